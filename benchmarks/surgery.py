"""Time find_sites and apply: against building the model, and per block as networks grow.

Run ``python -m benchmarks.surgery``; about a minute. Both arms of a ratio alternate in one run, and medians are
reported. Writes its sections of docs/speed.md.
"""

import gc
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from tqdm import tqdm

import se_inject

from .measure import write


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x).relu())


class Adds(nn.Module):
    """Many adds in one forward."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(16, 16, 1) for _ in range(number))

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = x + conv(x)
        return x


class Around(nn.Module):
    """A block around another one."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.conv, self.shortcut = inner, nn.Conv2d(16, 16, 1), nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.conv(self.inner(x))


def nested(number: int) -> nn.Module:
    model: nn.Module = nn.Identity()
    for _ in range(number):
        model = Around(model)
    return model


def seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    gc.collect()
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def inject(model: nn.Module) -> None:
    se_inject.find_sites(model)
    se_inject.apply(model)


def against_construction(name: str, repeats: int) -> dict[str, str]:
    build = getattr(torchvision.models, name)
    inject(build())  # imports and caches
    times = []
    for _ in tqdm(range(repeats), desc=name, leave=False):
        built, model = seconds(build)
        injected, _ = seconds(partial(inject, model))
        times.append((built, injected))
    built, injected = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(b / a for a, b in times)
    return {
        "network": name,
        "construction": f"{built * 1e3:.0f} ms",
        "find_sites + apply": f"{injected * 1e3:.0f} ms",
        "ratio": f"{ratio:.2f}",
    }


KINDS: dict[str, Callable[[int], nn.Module]] = {
    "equal": lambda size: nn.Sequential(*(Block(16) for _ in range(size))),
    "each of its own width": lambda size: nn.Sequential(*(Block(16 + i) for i in range(size))),
    "adds in one forward": Adds,
    "one in the other": nested,
}


def per_block(kind: str, sizes: tuple[int, ...], repeats: int) -> list[dict[str, str]]:
    """Blocks of a kind, in growing numbers."""
    times: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in tqdm(range(repeats), desc=f"{kind} blocks", leave=False):
        for size in sizes:
            with torch.device("meta"):
                model = KINDS[kind](size)
            times[size].append(seconds(partial(inject, model))[0] / size)
    base = statistics.median(times[sizes[0]])
    medians = {size: statistics.median(values) for size, values in times.items()}
    return [
        {
            "blocks": kind,
            "number": str(size),
            "per block": f"{medians[size] * 1e3:.2f} ms",
            "to the fewest": f"{medians[size] / base:.2f}",
        }
        for size in sizes
    ]


def main() -> None:
    torch.set_num_threads(1)
    against = [against_construction(name, 15) for name in ("resnet50", "resnet152")]
    growth = [row for kind in list(KINDS)[:3] for row in per_block(kind, (50, 200, 1000), 5)]
    growth += per_block("one in the other", (25, 50, 100), 5)
    write(
        "Surgery",
        "`python -m benchmarks.surgery`: `find_sites` and `apply`, against building the model, one thread.",
        against,
    )
    write(
        "Surgery of many blocks",
        "The same command: `find_sites` and `apply` by block, as blocks grow in number.",
        growth,
    )


if __name__ == "__main__":
    main()
