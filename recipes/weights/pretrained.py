"""Pretrained weights into a network for other classes: all but the head, under the names that they may have."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import nn

from ..errors import CheckpointError
from ..networks.any_model import Model
from .described import describe
from .load import load_weights, read_weights
from .names import renamed, todays_names


class Origin(NamedTuple):
    """What became of a file's weights: the layers of the new head, if it needs one, and why."""

    new_head: tuple[str, ...]
    why: str


def load_pretrained(
    network: nn.Module, model: Model, path: Path, classes: Sequence[str], new_head: bool = False
) -> Origin:
    """Copy the weights in ``path`` into the plain ``network`` that ``model`` describes, in place.

    The head keeps the file's weights where the file names the same ``classes``, or names none and has as many outputs;
    otherwise, or with ``new_head``, it stays as it was made. Names may differ in numbers (``conv.3`` for ``conv.1.0``)
    and in a prefix (``module.``); everything else must fit.

    Raises ``CheckpointError``, and leaves the network as it was.
    """
    state, description = read_weights(path), describe(path)
    head = model.head_layers()
    why = "as asked for" if new_head else ""
    if description is not None:
        if description.model.name != model.name:
            raise CheckpointError(f"{path}: holds weights of {description.model.name}, not of {model.name}")
        if description.model.gates != "none":
            raise CheckpointError(f"{path}: its network has gates already; give the weights of a plain one")
        if list(description.classes) != list(classes):
            why = why or f"the file is of {_some(description.classes)}, the data of {_some(classes)}"
    state = todays_names(state, network)
    own = network.state_dict()
    in_head = {key for key in own if key.rpartition(".")[0] in head}
    state = renamed(state, own, in_head)
    if not why and (other := sorted(key for key in in_head if key not in state or state[key].shape != own[key].shape)):
        theirs = tuple(state[other[0]].shape) if other[0] in state else ()
        outputs = theirs[0] if theirs else 0
        why = f"the file has {outputs} outputs, the data {len(classes)} classes" if outputs else "the file has none"
        if theirs[:1] == own[other[0]].shape[:1]:
            raise CheckpointError(
                f"{path}: its head is of another network: {other[0]} is {theirs}, not {tuple(own[other[0]].shape)}; "
                "give the weights of this one, or --new-head to leave the head out"
            )
    if why:
        state = {key: value for key, value in state.items() if key not in in_head} | {key: own[key] for key in in_head}
    load_weights(network, state, str(path))
    return Origin(head if why else (), why)


def _some(classes: Sequence[str]) -> str:
    return f"{len(classes)} classes ({', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''})"
