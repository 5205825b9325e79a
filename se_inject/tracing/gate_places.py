"""Where in the text of a block a gate goes: around what makes a value, or around its uses."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import fx, nn

from ..source.edits import Edit, goes_through_itself, is_expression, method_of, moved, operand, walked
from ..source.function_text import span_of
from .capture import Capture
from .evaluation import Expression


@dataclass(frozen=True)
class ValueUses:
    """On one way through a forward, a value to gate, the uses of it to gate, and all its uses as data."""

    way: int
    value: fx.Node
    users: tuple[fx.Node, ...]
    all_users: tuple[fx.Node, ...]

    @property
    def expressions(self) -> list[Expression]:
        """The places in the text where the value is made."""
        made_by: list[Expression] = self.value.meta.get("expressions", [])
        return made_by


class Placer:
    """Finds places in the text of one block's methods, which hold on every way through it."""

    def __init__(self, cls: type[nn.Module], capture: Capture) -> None:
        self._cls = cls
        self._capture = capture
        self._ways = capture.ways
        self._methods: dict[int, tuple[str, type | None] | None] = {}

    def edits(self, targets: list[ValueUses]) -> tuple[Edit, ...]:
        """The edits that gate these values and nothing else; none where no expressions are these values alone."""
        # Where not all ways are known, what another one does with the value is anybody's guess.
        around_values = () if self._capture.is_partial else self._around_values(targets)
        return self._with_walks(around_values or self._around_uses(targets))

    def edits_in_rounds(self, targets: list[ValueUses]) -> tuple[Edit, ...]:
        """The same where an expression in a loop serves other layers too: each round gets a gate of its own."""
        return self._with_walks(() if self._capture.is_partial else self._around_uses(targets, in_rounds=True))

    def _with_walks(self, edits: tuple[Edit, ...]) -> tuple[Edit, ...]:
        """These, and edits that leave the gate out where the block's children are walked through; none if none do."""
        walks = []
        for walk in self._capture.walks:
            if walk is not None and issubclass(self._cls, nn.Sequential) and goes_through_itself(walk.text, walk.span):
                continue  # its class leaves the gate out
            found = walked(walk.text, walk.span) if walk is not None and self._can_edit(walk) else None
            if walk is None or found is None:
                return ()
            walks.append(replace(self._edit(walk, found[0]), walks=found[1]))
        return (*edits, *walks) if edits else ()

    def _around_values(self, targets: list[ValueUses]) -> tuple[Edit, ...]:
        if any(user not in target.users for target in targets for user in target.all_users):
            return ()
        names = _names_by_way((target.way, target.value) for target in targets)
        chosen: list[Expression] = []
        for target in targets:
            good = [e for e in target.expressions if self._is_place(e) and self._has_only(e, names)]
            if not good:
                return ()
            if not any(e in chosen for e in good):
                chosen.append(good[0])
        if any(sum(e in chosen for e in target.expressions) != 1 for target in targets):
            return ()
        return tuple(self._edit(e, e.span) for e in chosen)

    def _around_uses(self, targets: list[ValueUses], in_rounds: bool = False) -> tuple[Edit, ...]:
        found: dict[Edit, None] = {}
        names = _names_by_way((target.way, user) for target in targets for user in target.users)
        for target in targets:
            for user in target.users:
                places = [e for e in user.meta.get("expressions", []) if self._can_edit(e)]
                if in_rounds:
                    edits = (self._around_use_in_round(target, user, e, names) for e in places)
                else:
                    edits = (self._around_use(target, user, e) for e in places if self._has_only(e, names))
                edit = next(filter(None, edits), None)
                if edit is None:
                    return ()
                found[edit] = None
        return tuple(found)

    def _around_use(self, target: ValueUses, user: fx.Node, place: Expression, turn: int | None = None) -> Edit | None:
        """The edit that gates a value where ``place`` takes it, in any round of a loop or in one."""
        evaluations = [e for e in self._ways[target.way].evaluations if e.expression == place]
        calls = [e.arguments for e in evaluations if e.arguments and turn in (None, e.turn)]
        if calls:
            # A function may use what it gets more than once.
            is_whole = all(other in target.users for other in target.all_users)
            positions = [i for i, name in enumerate(calls[0]) if name == target.value.name]
            if any(call != calls[0] for call in calls) or not (is_whole or place == user.meta["expressions"][0]):
                return None
        else:
            positions = [i for i, arg in enumerate(user.args) if arg is target.value]
        part = operand(place.text, place.span, positions[0]) if len(positions) == 1 else None
        return None if part is None else self._edit(place, *part)

    def _around_use_in_round(
        self, target: ValueUses, user: fx.Node, place: Expression, names: dict[int, set[str]]
    ) -> Edit | None:
        """The same in the one round of a loop in which ``place`` has the named values, if it then has no others."""
        loop = place.text.loops.get(place.span)
        by_way = [way.values.get(place, set()) for way in self._ways]
        turns = {turn for i, values in enumerate(by_way) for name, turn in values if name in names.get(i, ())}
        if loop is None or len(turns) != 1:
            return None
        [turn] = turns
        if any(at == turn and name not in names.get(i, ()) for i, values in enumerate(by_way) for name, at in values):
            return None
        edit = self._around_use(target, user, place, turn)
        return None if edit is None else replace(edit, loop=moved(span_of(loop), -place.text.first), turn=turn)

    def _edit(self, place: Expression, span: tuple[int, int, int, int], assigns: bool = False) -> Edit:
        method = self._method(place)
        assert method is not None
        name, owner = method
        return Edit(name, moved(span, -place.text.first), place.text.digest, gate="", assigns=assigns, owner=owner)

    def _is_place(self, place: Expression) -> bool:
        return self._can_edit(place) and is_expression(place.text, place.span)

    def _can_edit(self, place: Expression) -> bool:
        return place.of_block and self._method(place) is not None

    def _method(self, place: Expression) -> tuple[str, type | None] | None:
        key = id(place.text)
        if key not in self._methods:
            self._methods[key] = method_of(self._cls, self._capture.reached.get(place.text, frozenset()), place.text)
        return self._methods[key]

    def _has_only(self, place: Expression, names: dict[int, set[str]]) -> bool:
        """Whether an expression is, on every way, one of the named values."""
        return all(
            name in names.get(i, ()) for i, way in enumerate(self._ways) for name, _ in way.values.get(place, ())
        )


def _names_by_way(nodes: Iterable[tuple[int, fx.Node]]) -> dict[int, set[str]]:
    names: dict[int, set[str]] = {}
    for way, node in nodes:
        names.setdefault(way, set()).add(node.name)
    return names


def slots_fit(plain: Capture, filled: Capture, targets: list[ValueUses], slot: str) -> bool:
    """Whether a module in the block's own place for a gate runs exactly where the gate goes, on every way."""
    if len(plain.ways) != len(filled.ways):
        return False
    for i, (before, after) in enumerate(zip(plain.ways, filled.ways, strict=True)):
        here = [target for target in targets if target.way == i]
        calls = [node for node in after.graph.nodes if node.op == "call_module" and node.target == slot]
        expected = [target.value.name for target in here]
        if [str(call.args[0]) for call in calls] != expected or not _without(after.graph, calls, str(before.graph)):
            return False
        for call, target in zip(calls, here, strict=True):
            if {user.name for user in call.users} != {user.name for user in target.users}:
                return False
    return True


def _without(graph: fx.Graph, calls: list[fx.Node], expected: str) -> bool:
    copy = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node in calls:
            copies[node] = copies[node.args[0]]  # type: ignore[index]
        else:
            copies[node] = copy.node_copy(node, lambda n: copies[n])
    return str(copy) == expected
