"""Which layer of a state dict is which of a model: the assignment that shapes and names force, or none.

The order of keys is no evidence: files and tools change it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from ..errors import LayoutError
from .layers import Layer
from .names import Tokens, in_order, nearest
from .tree import Pool, pools

Pairs = list[tuple[Tokens, Tokens]]


def match(theirs: Collection[Layer], ours: Collection[Layer], gates: Collection[str]) -> list[tuple[Layer, Layer]]:
    """Pairs of a layer of theirs and one of ours; ``gates`` are the paths of ours in gates.

    Both sides have the same looks, equally often. Raises ``LayoutError`` where several assignments are possible.

    >>> from torch import nn
    >>> from .layers import layers_of
    >>> ours = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)).state_dict()
    >>> theirs = {f"conv{key}": ours[key] for key in reversed(ours)}
    >>> [(a.path, b.path) for a, b in match(layers_of(theirs), layers_of(ours), ())]
    [('conv0', '0'), ('conv1', '1')]
    """
    by_path = {layer.path: layer for layer in ours}
    if {layer.path for layer in theirs} == by_path.keys():
        return [(layer, by_path[layer.path]) for layer in theirs]
    return list(_Matching(list(pools(theirs, ours, gates))).settled())


@dataclass
class _Tie:
    """Layers of one pool that look the same and are not told apart yet, by their names."""

    pool: int
    theirs: set[Tokens]
    ours: set[Tokens]


@dataclass
class _Matching:
    pools: list[Pool]
    ties: list[_Tie] = field(init=False)
    found: list[dict[Tokens, Tokens]] = field(init=False)  # of each pool, theirs to ours
    # what a name was found to be in all pools of one scope, and the reverse
    roles: dict[object, set[Tokens]] = field(default_factory=lambda: defaultdict(set))

    def __post_init__(self) -> None:
        self.ties = [tie for number, pool in enumerate(self.pools) for tie in _ties(number, pool)]
        self.found = [{} for _ in self.pools]

    def settled(self) -> Iterator[tuple[Layer, Layer]]:
        rules = (self._alone, self._same_names, self._same_role, self._same_company, self._same_number)
        while self.ties:
            if not any(self._use(rule) for rule in rules):  # from the first rule again after each success
                self._refuse(self.ties[0])
        for pool, found in zip(self.pools, self.found, strict=True):
            yield from ((pool.theirs[a], pool.ours[b]) for a, b in found.items())

    def _use(self, rule: Callable[[_Tie], Pairs]) -> bool:
        pairs = [(tie, a, b) for tie in self.ties for a, b in rule(tie)]
        for tie, a, b in pairs:
            tie.theirs.remove(a)
            tie.ours.remove(b)
            self.found[tie.pool][a] = b
            for scope in self.pools[tie.pool].scopes:
                self.roles["theirs", scope, a].add(b)
                self.roles["ours", scope, b].add(a)
        self.ties = [tie for tie in self.ties if tie.theirs]
        return bool(pairs)

    def _alone(self, tie: _Tie) -> Pairs:
        return list(zip(tie.theirs, tie.ours, strict=True)) if len(tie.theirs) == 1 else []

    def _same_names(self, tie: _Tie) -> Pairs:
        return [(name, name) for name in tie.theirs] if tie.theirs == tie.ours else []

    def _same_role(self, tie: _Tie) -> Pairs:
        """As in other blocks, where shapes tell: ``increase`` is ``conv3`` where there is no projection."""
        for scope in self.pools[tie.pool].scopes:
            pairs = [(a, b) for a in tie.theirs for b in self.roles["theirs", scope, a] & tie.ours]
            told = [
                (a, b)
                for a, b in pairs
                if len(self.roles["theirs", scope, a]) == len(self.roles["ours", scope, b]) == 1
            ]
            if told:
                return told
        return []

    def _same_company(self, tie: _Tie) -> Pairs:
        """A norm goes with its convolution."""
        pool, found = self.pools[tie.pool], self.found[tie.pool]
        theirs = _by_company({a: _companion(a, pool.theirs) for a in tie.theirs})
        ours = _by_company({b: _companion(b, pool.ours) for b in tie.ours})
        return [(a, ours[found[other]]) for other, a in theirs.items() if found.get(other) in ours]

    def _same_number(self, tie: _Tie) -> Pairs:
        left, right = in_order(tie.theirs), in_order(tie.ours)
        return [] if left is None or right is None else list(zip(left, right, strict=True))

    def _refuse(self, tie: _Tie) -> None:
        pool = self.pools[tie.pool]
        theirs = sorted(pool.theirs[name].path for name in tie.theirs)
        ours = sorted(pool.ours[name].path for name in tie.ours)
        raise LayoutError(
            f"{_some(theirs)} have the shapes of the model's {_some(ours)}, and names do not tell which is which:"
            " name or number those keys as the model does"
        )


def _ties(number: int, pool: Pool) -> Iterator[_Tie]:
    ties: dict[object, _Tie] = defaultdict(lambda: _Tie(number, set(), set()))
    for name, layer in pool.theirs.items():
        ties[layer.look].theirs.add(name)
    for name, layer in pool.ours.items():
        ties[layer.look].ours.add(name)
    yield from ties.values()


def _companion(name: Tokens, layers: dict[Tokens, Layer]) -> Tokens | None:
    """The layer of another kind that this one belongs to."""
    return nearest(name, (other for other, layer in layers.items() if layer.look != layers[name].look))


def _by_company(companions: dict[Tokens, Tokens | None]) -> dict[Tokens, Tokens]:
    """The layers that are the only one of their company, by that."""
    counts = Counter(companions.values())
    return {other: name for name, other in companions.items() if other is not None and counts[other] == 1}


def _some(paths: list[str]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(paths[:3]) + more
