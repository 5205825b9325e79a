"""Layouts that are told by a name: the keys of a gated network, renamed."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..errors import InvalidArgumentError, LayoutError


@dataclass(frozen=True)
class _Layout:
    """Patterns in keys and what stands for them; all keys of such a network match ``keys`` then."""

    rules: tuple[tuple[str, str], ...] = ()
    keys: str = ""


_CADENE = _Layout(
    ((r"^(conv1|bn1)\.", r"layer0.\1."), (r"\.se\.(?=fc[12]\.)", ".se_module."), (r"^fc\.", "last_linear.")),
    r"(layer\d|last_linear)\.",
)
_WRAPPERS = re.compile(r"^((module|_orig_mod)\.)+")  # DataParallel, DDP; torch.compile
_LAYOUTS = {
    "timm": _Layout(),
    "torchvision": _Layout(),
    "cadene": _CADENE,
    "pytorchcv": _Layout(((r"\.se\.fc(?=[12]\.)", ".se.conv"),), r"(features|output)\."),
}


def renamed(state: Mapping[str, Tensor], gates: Collection[str], layout: str) -> dict[str, Tensor]:
    """The state dict in a layout of that name; ``gates`` are the paths of its gates.

    Raises ``InvalidArgumentError`` for an unknown name, ``LayoutError`` for a network that it is not enough for.

    >>> import torch
    >>> list(renamed({"conv1.weight": torch.ones(1), "layer1.0.se.fc1.bias": torch.ones(1)}, ["layer1.0.se"], "cadene"))
    ['layer0.conv1.weight', 'layer1.0.se_module.fc1.bias']
    """
    if layout not in _LAYOUTS:
        raise InvalidArgumentError(
            f"layout must be a state dict or one of {', '.join(map(repr, _LAYOUTS))}, got {layout!r}"
        )
    like = "pass a state dict of the network that is to load it, to_layout(model, network.state_dict())"
    for gate in gates:
        names = {key.removeprefix(f"{gate}.") for key in state if key.startswith(f"{gate}.")}
        if gate.rpartition(".")[2] != "se" or not all(re.match(r"fc[12]\.", name) for name in names):
            raise LayoutError(f"{gate} is not called as an SE module of {layout}: {like}")
    result = {}
    for key, value in state.items():
        name = _WRAPPERS.sub("", key)
        for pattern, replacement in _LAYOUTS[layout].rules:
            name = re.sub(pattern, replacement, name)
        if not re.match(_LAYOUTS[layout].keys, name):
            raise LayoutError(f"{key} is no name of {layout}'s SE networks: {like}")
        result[name] = value
    return result
