"""Pretrained weights into a network for other classes: all but the head, under the names that they may have."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from ..errors import CheckpointError
from ..networks.any_model import Model
from .described import describe
from .load import load_weights, read_weights
from .open import todays_names


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
    if not why and (other := [key for key in in_head if key not in state or state[key].shape != own[key].shape]):
        outputs = len(state[other[0]]) if other[0] in state else 0
        why = f"the file has {outputs} outputs, the data {len(classes)} classes" if outputs else "the file has none"
    if why:
        state = {key: value for key, value in state.items() if key not in in_head} | {key: own[key] for key in in_head}
    load_weights(network, state, str(path))
    return Origin(head if why else (), why)


def renamed(state: Mapping[str, Tensor], own: Mapping[str, Tensor], head: Collection[str] = ()) -> dict[str, Tensor]:
    """``state`` under the names of ``own``, if it can be told which is which; as it is, if not.

    Names are told from others by their words, and by the order of their numbers among those of the same words; shapes
    must fit, but for those in ``head``, which may also be missing. The order of keys is no evidence: files change it.

    >>> theirs = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8)).state_dict(prefix="module.")
    >>> ours = nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 3)), nn.BatchNorm2d(8)).state_dict()
    >>> renamed(theirs, ours).keys() == ours.keys()
    True
    """
    if own.keys() - head <= state.keys():
        return dict(state)
    for prefix in _prefixes(list(state)):
        pairs = _pairs({key.removeprefix(prefix): value for key, value in state.items()}, own, head)
        if pairs is not None:
            return {key: state[prefix + other] for key, other in pairs.items()}
    return dict(state)


def _pairs(theirs: Mapping[str, Tensor], own: Mapping[str, Tensor], head: Collection[str]) -> dict[str, str] | None:
    """Our keys and theirs; ``None`` where the two do not fit."""
    left: dict[str, list[str]] = _by_words(theirs)
    found: dict[str, str] = {}
    for words, keys in _by_words(own).items():
        others = left.pop(words, [])
        if len(others) == len(keys):
            found |= dict(zip(keys, others, strict=True))
        elif others or not all(key in head or key.endswith("num_batches_tracked") for key in keys):
            return None
    fits = all(key in head or own[key].shape == theirs[other].shape for key, other in found.items())
    return found if fits and not left else None


def _by_words(keys: Iterable[str]) -> dict[str, list[str]]:
    """The keys that differ in numbers alone, together and in the order of these."""
    groups: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        groups[re.sub(r"[\d.]+", ".", key)].append(key)
    return {words: sorted(some, key=_numbers) for words, some in groups.items()}


def _numbers(key: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", key)]


def _prefixes(keys: Sequence[str]) -> Iterator[str]:
    """None, then the names of modules that are around all keys, such as ``module.`` or ``module.encoder.``."""
    yield ""
    parts = [key.split(".")[:-1] for key in keys]
    prefix = ""
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1:
            return
        prefix += f"{names[0]}."
        yield prefix


def _some(classes: Sequence[str]) -> str:
    return f"{len(classes)} classes ({', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''})"
