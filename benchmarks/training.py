"""Time and memory of a training step, gated against plain: ``python -m benchmarks.training``, ten minutes.

Writes its section of docs/speed.md.
"""

import argparse
import copy
from functools import partial

import timm
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

import se_inject

from .inference import NETWORKS, TWINS
from .measure import ratios, write


def step(model: nn.Module, x: Tensor) -> None:
    model.zero_grad()
    _logits(model(x)).square().mean().backward()


def kept(model: nn.Module, x: Tensor) -> int:
    """The bytes of activations that a forward keeps for backward."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor.detach()  # a result that its own node kept would never be freed

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        _output = model(x)
    return sum(storage.nbytes() for address, storage in storages.items() if address not in parameters)


def _logits(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]  # with auxiliary ones


def row(name: str, memory_format: torch.memory_format) -> dict[str, str]:
    make, size = NETWORKS[name]
    plain = make().train()
    models = {"plain": plain, "gated": se_inject.apply(copy.deepcopy(plain))}
    if name == "inception_resnet_v2":  # whose gates follow convolutions without norms
        models["recomputing"] = se_inject.apply(copy.deepcopy(plain), memory="recompute")
    if name in TWINS:
        models["timm's SE"] = timm.create_model(TWINS[name]).train()
    x = torch.randn(4, 3, size, size).contiguous(memory_format=memory_format)
    for model in models.values():
        model.to(memory_format=memory_format)
    layout = "channels_last" if memory_format == torch.channels_last else "contiguous"
    found = ratios({key: partial(step, model, x) for key, model in models.items()}, 9, name)
    base = kept(plain, x)
    memory = {f"kept, {key}": f"{kept(model, x) / base:.3f}" for key, model in models.items() if key != "plain"}
    return {"network": name, "layout": layout, **found, **memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    formats = (torch.contiguous_format, torch.channels_last)
    rows = [row(name, memory_format) for name in flags.networks for memory_format in formats]
    text = (
        "`python -m benchmarks.training`: forward and backward of 4 images, one thread; processor time, with quartiles,"
        " and wall time as ratios to the plain network's, and so the bytes of activations that autograd keeps."
    )
    write("Training", text, rows)


if __name__ == "__main__":
    main()
