"""Weights from files, into our networks."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import se_inject

from ..errors import CheckpointError


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
    """Copy ``state`` into ``network``; every key and shape must fit. Published SE weights may have other names.

    Raises ``CheckpointError`` and leaves the network as it was.

    >>> load_weights(nn.Linear(2, 3), nn.Linear(2, 4).state_dict(), "file")
    Traceback (most recent call last):
    ...
    recipes.errors.CheckpointError: file: these weights are of another network, or for other classes: weight is ...
    """
    own = network.state_dict()
    # batch norm counters came with torch 0.4.1: older published weights lack them
    found = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")} | state
    forms = {getattr(gate, "init", "") for _, gate in se_inject.gates(network)}
    if found.keys() != own.keys() and forms == {"standard"}:
        try:
            se_inject.load_se_weights(network, state)
        except se_inject.errors.SEInjectError as error:
            raise _other_network(source, str(error)) from error
        return
    wrong = [f"{key} is missing" for key in own.keys() - found.keys()]
    wrong += [f"{key} is unknown" for key in found.keys() - own.keys()]
    wrong.sort()
    wrong += [
        f"{key} is {tuple(found[key].shape)}, not {tuple(value.shape)}"
        for key, value in own.items()
        if key in found and found[key].shape != value.shape
    ]
    if wrong:
        raise _other_network(source, "; ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""))
    network.load_state_dict(found)


def _other_network(source: str, why: str) -> CheckpointError:
    return CheckpointError(f"{source}: these weights are of another network, or for other classes: {why}")
