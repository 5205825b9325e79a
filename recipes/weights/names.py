"""The names that others gave to the weights of a network, and which of ours they mean."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from torch import Tensor, nn


def todays_names(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The weights of others without the heads that only training has use for, and under today's names.

    torchvision published its DenseNets when the name of a module could hold a dot; timm and torchvision, Inception-v3
    and GoogLeNet with auxiliary heads.

    >>> list(todays_names({"AuxLogits.fc.weight": Tensor(), "denselayer1.norm.1.bias": Tensor()}, nn.Identity()))
    ['denselayer1.norm.1.bias']
    """
    unused = {"AuxLogits", "aux1", "aux2"} - {name for name, _ in network.named_children()}
    today = {re.sub(r"(\.denselayer\d+\.(?:norm|conv))\.(\d\.)", r"\1\2", key): value for key, value in state.items()}
    return {key: value for key, value in today.items() if key.partition(".")[0] not in unused}


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
