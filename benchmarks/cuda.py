"""Time gated networks on a GPU, in inference and in training: ``python -m benchmarks.cuda``, six minutes on an H200.

Writes its sections of docs/speed.md.
"""

import argparse
import copy
import itertools
from collections.abc import Callable
from functools import partial

import timm
import torch
from torch import Tensor, nn

import se_inject

from .inference import LAYOUTS, NETWORKS, TWINS
from .measure import ratios, time_on_gpu, write
from .training import kept

WAYS: list[tuple[str, str]] = [("float32", "contiguous"), ("bfloat16", "channels_last")]


def run(call: Callable[[Tensor], object], x: Tensor, precision: str, times: int) -> None:
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
        for _ in range(times):
            call(x)


def in_graph(model: nn.Module, x: Tensor, precision: str) -> Callable[[Tensor], object]:
    """The model's kernels alone, as a CUDA graph replays them."""
    with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
        run(model, x, precision, 3)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run(model, x, precision, 1)
    return lambda _: graph.replay()


def arms(name: str, layout: str, training: bool) -> tuple[dict[str, nn.Module], int]:
    """The plain network, the gated ones and timm's on the GPU, and the side of their images."""
    make, size = NETWORKS[name]
    plain = make().cuda().to(memory_format=LAYOUTS[layout]).train(training)  # type: ignore[call-overload]
    models = {"plain": plain, "gated": se_inject.apply(copy.deepcopy(plain))}
    if not training:
        models["optimized"] = se_inject.optimize(models["gated"])
    if name in TWINS:
        twin = timm.create_model(TWINS[name]).cuda().train(training)
        models["timm's SE"] = twin.to(memory_format=LAYOUTS[layout])
    return models, size


def inference(name: str, way: tuple[str, str], batch: int, how: str, rounds: int) -> dict[str, str]:
    torch.compiler.reset()
    precision, layout = way
    models, size = arms(name, layout, training=False)
    x = torch.randn(batch, 3, size, size, device="cuda").contiguous(memory_format=LAYOUTS[layout])
    calls: dict[str, Callable[[Tensor], object]] = dict(models)
    if how == "CUDA graph":
        calls = {key: in_graph(model, x, precision) for key, model in models.items()}
    if how == "compiled":
        mode = "reduce-overhead" if batch == 1 else "default"  # with a CUDA graph
        calls = {key: torch.compile(model, mode=mode) for key, model in models.items()}
    timed = {key: partial(run, call, x, precision, 5 if batch == 1 else 1) for key, call in calls.items()}
    found = ratios(timed, rounds, f"{name}, {batch}, {how}", time_on_gpu)
    return {"network": name, "how": how, "precision": precision, "layout": layout, "batch": str(batch), **found}


def step(model: nn.Module, x: Tensor, precision: str) -> None:
    model.zero_grad()
    with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
        output = model(x)
    logits = output if isinstance(output, Tensor) else output[0]  # with auxiliary ones
    logits.float().square().mean().backward()


def training(name: str, way: tuple[str, str], batch: int, rounds: int) -> dict[str, str]:
    precision, layout = way
    models, size = arms(name, layout, training=True)
    x = torch.randn(batch, 3, size, size, device="cuda").contiguous(memory_format=LAYOUTS[layout])
    timed = {key: partial(step, model, x, precision) for key, model in models.items()}
    found = ratios(timed, rounds, f"{name}, training", time_on_gpu)
    with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
        bytes_kept = {key: kept(model, x) for key, model in models.items()}
    memory = {f"kept, {key}": f"{size / bytes_kept['plain']:.3f}" for key, size in bytes_kept.items() if key != "plain"}
    return {"network": name, "precision": precision, "layout": layout, "batch": str(batch), **found, **memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--compiled", nargs="*", default=["resnet50"], choices=NETWORKS)
    parser.add_argument("--batch", type=int, default=256, help="the large one, half of it in training")
    parser.add_argument("--rounds", type=int, default=9)
    flags = parser.parse_args()
    jobs = [*itertools.product(flags.networks, WAYS, [(1, "eager"), (1, "CUDA graph"), (flags.batch, "eager")])]
    jobs += itertools.product(flags.compiled, WAYS[1:], [(1, "compiled"), (flags.batch, "compiled")])
    machine = torch.cuda.get_device_name()
    rows = [inference(name, way, batch, how, flags.rounds) for name, way, (batch, how) in jobs]
    text = (
        "`python -m benchmarks.cuda`: forward in eval mode, bfloat16 by autocast; wall time, with quartiles, as ratios"
        " to the plain network's. A CUDA graph replays the kernels without the calls from Python."
    )
    write("Inference on a GPU", text, rows, machine)
    rows = [training(name, way, flags.batch // 2, flags.rounds) for name in flags.networks for way in WAYS]
    text = (
        "The same command: forward and backward, and the bytes of activations that autograd keeps, as ratios to the"
        " plain network's."
    )
    write("Training on a GPU", text, rows, machine)


if __name__ == "__main__":
    main()
