"""Weights from files and from timm's published SE networks."""

import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import CheckpointError

# timm's legacy networks call some modules by other names
_LEGACY = ((r"^layer0\.(conv1|bn1)\.", r"\1."), (r"\.se_module\.", ".se."), (r"^last_linear\.", "fc."))
_SENET154 = _LEGACY[1:]  # its first stage has the same name here


def from_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of a timm SE network's state dict to ours; other state dicts come back as they are.

    >>> state = {"layer0.conv1.weight": torch.zeros(1), "layer1.0.se_module.fc1.bias": torch.zeros(1)}
    >>> list(from_timm(state))
    ['conv1.weight', 'layer1.0.se.fc1.bias']
    """
    if "last_linear.weight" not in state and not any(".se_module." in key for key in state):
        return dict(state)
    rules = _SENET154 if "layer0.conv3.weight" in state else _LEGACY

    def renamed(key: str) -> str:
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        return key

    return {renamed(key): value for key, value in state.items()}


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a safetensors file or one of ``torch.save``; no pickled code is run.

    Raises ``CheckpointError`` if there is no such file, or it is truncated or holds anything but tensors.

    >>> read_weights("no_such_file.safetensors")
    Traceback (most recent call last):
    ...
    recipes.errors.CheckpointError: no_such_file.safetensors: there is no such file
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise many types for a damaged file
        raise CheckpointError(
            f"{path}: cannot be read as weights ({type(error).__name__}: {str(error).splitlines()[0][:120]}); it is "
            "truncated, or not a state dict saved by torch.save or safetensors"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if isinstance(state, dict) and "identity" in state:
        raise CheckpointError(f"{path}: is a checkpoint to resume from; pass the model.safetensors beside it")
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: holds no state dict of tensors; save model.state_dict()")
    return state


def load_weights(network: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Copy ``state`` into ``network``; every key and shape must fit, timm's names are understood.

    Raises ``CheckpointError`` and leaves the network as it was.

    >>> load_weights(nn.Linear(2, 3), nn.Linear(2, 4).state_dict(), "file")
    Traceback (most recent call last):
    ...
    recipes.errors.CheckpointError: file: these weights are of another network, or for other classes: weight is ...
    """
    own = network.state_dict()
    # batch norm counters came with torch 0.4.1: older published weights lack them
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    found = counters | (state if own.keys() == state.keys() else from_timm(state))
    wrong = [f"{key} is missing" for key in own.keys() - found.keys()]
    wrong += [f"{key} is unknown" for key in found.keys() - own.keys()]
    wrong.sort()
    wrong += [
        f"{key} is {tuple(found[key].shape)}, not {tuple(value.shape)}"
        for key, value in own.items()
        if key in found and found[key].shape != value.shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(
            f"{source}: these weights are of another network, or for other classes: {'; '.join(wrong[:3])}{more}"
        )
    network.load_state_dict(found)
