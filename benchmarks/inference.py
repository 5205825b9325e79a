"""Time gated and optimized networks against the plain ones: ``python -m benchmarks.inference``, half an hour.

Writes its section of docs/speed.md. ``--compiled`` times torch.compile with freezing instead.
"""

import argparse
import copy
import itertools
from collections.abc import Callable
from functools import partial

import timm
import torch
import torchvision
from torch import Tensor, nn

import se_inject

from .measure import ratios, write

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet50": (torchvision.models.resnet50, 224),
    "resnext50_32x4d": (torchvision.models.resnext50_32x4d, 224),
    "mobilenet_v2": (torchvision.models.mobilenet_v2, 224),
    "convnext_tiny": (torchvision.models.convnext_tiny, 224),
    "inception_v3": (partial(torchvision.models.inception_v3, init_weights=False), 299),
    "inception_resnet_v2": (partial(timm.create_model, "inception_resnet_v2"), 299),
}


LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
TWINS = {"resnet50": "seresnet50", "resnext50_32x4d": "seresnext50_32x4d"}


def run(model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        model(x)


def row(name: str, batch: int, memory_format: torch.memory_format, rounds: int, compiled: bool) -> dict[str, str]:
    torch.compiler.reset()  # or dynamo takes models of the same code for one that is compiled too often
    make, size = NETWORKS[name]
    plain = make().eval()
    models = {"plain": plain, "gated": se_inject.apply(copy.deepcopy(plain))}
    models["optimized"] = se_inject.optimize(models["gated"])
    if name in TWINS:
        models["timm's SE"] = timm.create_model(TWINS[name]).eval()
    x = torch.randn(batch, 3, size, size).contiguous(memory_format=memory_format)
    for key, model in models.items():
        model.to(memory_format=memory_format)
        if compiled:
            models[key] = torch.compile(model)  # type: ignore[assignment]
    layout = next(layout for layout, known in LAYOUTS.items() if known == memory_format)
    found = ratios({key: partial(run, model, x) for key, model in models.items()}, rounds, f"{name}, {batch}")
    return {"network": name, "threads": str(torch.get_num_threads()), "batch": str(batch), "layout": layout, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS), choices=LAYOUTS)
    parser.add_argument("--rounds", type=int, default=11)
    flags = parser.parse_args()
    if flags.compiled:
        torch._inductor.config.freezing = True
    rows = []
    formats = [LAYOUTS[layout] for layout in flags.layouts]
    for name, threads, memory_format, batch in itertools.product(flags.networks, flags.threads, formats, (1, 8)):
        torch.set_num_threads(threads)
        rounds = flags.rounds * (3 if batch == 1 else 1)
        rows.append(row(name, batch, memory_format, rounds, flags.compiled))
    section = "Inference, compiled" if flags.compiled else "Inference"
    command = f"python -m benchmarks.inference{' --compiled' if flags.compiled else ''}"
    text = (
        f"`{command}`: forward in eval mode; processor time, with quartiles, and wall time as ratios to the plain"
        " network's."
    )
    write(section, text, rows)


if __name__ == "__main__":
    main()
