"""Two state dicts as trees of names: the parts with gates that look alike are paired, from the largest down."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

from ..errors import LayoutError
from .layers import Layer
from .names import Tokens, in_order, template, tokens


@dataclass(frozen=True)
class Pool:
    """Layers of theirs and of ours that are each other's, by their names within the part that they are in."""

    context: tuple[Tokens, Tokens]  # the names of the two parts, without numbers
    theirs: dict[Tokens, Layer]
    ours: dict[Tokens, Layer]

    @cached_property
    def scopes(self) -> tuple[object, object]:
        """What pools have in common whose names mean the same: all names, or at least those of the parts."""
        return (self.context, frozenset(self.theirs), frozenset(self.ours)), self.context


@dataclass(frozen=True)
class _Part:
    """All layers below one name."""

    layers: dict[Tokens, Layer]

    @cached_property
    def prefix(self) -> Tokens:
        """The names that all have in common."""
        first, last = min(self.layers), max(self.layers)
        return tuple(a for a, b in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))

    @property
    def looks(self) -> object:
        return frozenset(Counter(layer.look for layer in self.layers.values()).items())

    def split(self) -> list["_Part"]:
        """The parts below, of which there are several; this part itself, where it is one layer."""
        below: dict[Tokens, dict[Tokens, Layer]] = defaultdict(dict)
        for path, layer in self.layers.items():
            below[path[: len(self.prefix) + 1]][path] = layer
        return [_Part(layers) for layers in below.values()]


def pools(theirs: Collection[Layer], ours: Collection[Layer], gates: Collection[str]) -> Iterator[Pool]:
    """The parts whose layers are each other's; both sides look the same. ``gates`` are the paths of ours in gates.

    Stages and blocks hold gates, so that only these are told by their looks; what is smaller (a convolution with its
    norm, which may be one of the branch or of the shortcut) is not. Raises ``LayoutError``.

    >>> from torch import nn
    >>> from .layers import layers_of
    >>> sides = [nn.ModuleDict({name: nn.Linear(3, 8), "gate": nn.Linear(8, 2)}) for name in ("stage1", "layer1")]
    >>> [pool] = pools(*(layers_of(side.state_dict()) for side in sides), ["gate"])
    >>> list(pool.theirs), list(pool.ours)
    ([('stage1',), ('gate',)], [('layer1',), ('gate',)])
    """
    yield from _pools(_Part(_by_tokens(theirs)), _Part(_by_tokens(ours)), gates)


def _by_tokens(layers: Collection[Layer]) -> dict[Tokens, Layer]:
    whole: dict[Tokens, Layer] = {}
    for layer in layers:
        other = whole.setdefault(tokens(layer.path), layer)
        if other is not layer:
            raise LayoutError(f"{other.path} and {layer.path} differ in dots, underscores and slashes only: rename one")
    return whole


def _pools(theirs: _Part, ours: _Part, gates: Collection[str]) -> Iterator[Pool]:
    left, right = theirs.split(), ours.split()
    pool = Pool((template(theirs.prefix), template(ours.prefix)), {}, {})
    while left or right:
        size = max(len(part.layers) for part in (*left, *right))
        if size == 1:
            break
        largest = [[part for part in side if len(part.layers) == size] for side in (left, right)]
        left, right = ([part for part in side if len(part.layers) < size] for side in (left, right))
        for one, other in _by_looks(*largest):
            pairs = _pairs(one, other, len(theirs.prefix), len(ours.prefix)) if _have_gates(other, gates) else []
            for pair in pairs:
                yield from _pools(*pair, gates)
            if not pairs:
                left += [below for part in one for below in part.split()]
                right += [below for part in other for below in part.split()]
    for whole, parts, found in ((theirs, left, pool.theirs), (ours, right, pool.ours)):
        found.update({path[len(whole.prefix) :]: layer for part in parts for path, layer in part.layers.items()})
    yield pool


def _by_looks(theirs: list[_Part], ours: list[_Part]) -> list[tuple[list[_Part], list[_Part]]]:
    groups: dict[object, tuple[list[_Part], list[_Part]]] = defaultdict(lambda: ([], []))
    for side, parts in enumerate((theirs, ours)):
        for part in parts:
            groups[part.looks][side].append(part)
    return list(groups.values())


def _have_gates(parts: list[_Part], gates: Collection[str]) -> bool:
    return any(layer.path in gates for part in parts for layer in part.layers.values())


def _pairs(one: list[_Part], other: list[_Part], depth: int, our_depth: int) -> list[tuple[_Part, _Part]]:
    """Parts that look the same, in pairs: by equal names, else by the numbers in them; none where neither tells."""
    theirs, ours = {p.prefix[depth:]: p for p in one}, {p.prefix[our_depth:]: p for p in other}
    if len(one) == len(other) == 1:
        return [(one[0], other[0])]
    if theirs.keys() == ours.keys():
        return [(part, ours[name]) for name, part in theirs.items()]
    left, right = in_order(theirs), in_order(ours)
    if left is None or right is None or len(left) != len(right):
        return []
    return [(theirs[a], ours[b]) for a, b in zip(left, right, strict=True)]
