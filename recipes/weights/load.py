"""Weights from files, into our networks."""

import argparse
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

import se_inject
from se_inject.errors import first_line
from se_inject.files.container import strict_json, unpacked

from ..errors import CheckpointError

# A file of ours with any part of this left has been damaged; one without is another's, or of an earlier version.
_DESCRIPTION = re.compile(r'\{"model": \{.*"sha256": "')
_OTHER_OBJECT = re.compile(r"GLOBAL ([\w.]+)")  # in what torch.load says
_PART_OF_A_CHECKSUM = re.compile("sha256|[0-9a-f]{64}")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a safetensors file or one of ``torch.save``; no pickled code is run.

    Raises ``CheckpointError`` if there is no such file, or it is truncated or holds anything but tensors, or is one of
    ours and damaged in any bit.

    >>> read_weights("no_such_file.safetensors")
    Traceback (most recent call last):
    ...
    recipes.errors.CheckpointError: no_such_file.safetensors: there is no such file
    """
    return read_file(Path(path))[0]


def read_file(path: Path) -> tuple[dict[str, Tensor], Any]:
    """The state dict in a file, and what the file says of itself, as JSON; ``None`` for weights from elsewhere.

    Raises what ``read_weights`` raises.

    >>> read_file(Path("no_such_file.safetensors"))
    Traceback (most recent call last):
    ...
    recipes.errors.CheckpointError: no_such_file.safetensors: there is no such file
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: {'is no file' if path.exists() else 'there is no such file'}")
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # a program's flags, as timm's training keeps them
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise many types for a damaged file
        if more := _OTHER_OBJECT.search(str(error)):
            raise CheckpointError(
                f"{path}: cannot be read as weights: it holds more than tensors ({more[1]}), or is damaged; if you "
                "trust it, load it with torch.load(..., weights_only=False) and save the model's state_dict()"
            ) from error
        why = first_line(error).replace(f"{path}: ", "")[:160]
        raise CheckpointError(
            f"{path}: cannot be read as weights ({why}); it is truncated or damaged, or not a state dict saved by "
            "torch.save or safetensors"
        ) from error
    for wrapper in ("state_dict", "model", "model_state_dict"):  # names that checkpoints give it
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if isinstance(state, dict) and "identity" in state:
        raise CheckpointError(f"{path}: is a checkpoint to resume from; pass the model.safetensors beside it")
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise CheckpointError(f"{path}: holds no state dict of tensors; save model.state_dict()")
    if any(value.is_meta for value in state.values()):
        raise CheckpointError(f"{path}: its tensors have no values, as they were saved from the meta device")
    return state, None


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Any error is one of a damaged file. Ours of earlier versions have no checksum."""
    with safe_open(path, "pt") as file:  # which refuses a file of another size than its header says
        metadata = file.metadata() or {}
    about = metadata.get("se_inject")
    if about is None and not any(map(_DESCRIPTION.match, metadata.values())):
        return load_file(path), None
    if about is None or _PART_OF_A_CHECKSUM.search(about):
        return unpacked(path)
    return load_file(path), strict_json(about)


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
    wrong += [
        f"{key} is of {found[key].dtype}, not {value.dtype}"
        for key, value in own.items()
        if key in found and (found[key].is_floating_point() != value.is_floating_point() or found[key].is_quantized)
    ]
    if wrong:
        raise _other_network(source, "; ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""))
    network.load_state_dict(found)


def _other_network(source: str, why: str) -> CheckpointError:
    return CheckpointError(f"{source}: these weights are of another network, or for other classes: {why}")
