"""Which sites, on the several ways through a forward, are one site and share a gate."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import nn

from ..graphs.dataflow import Flow
from ..tracing.capture import Way
from ..tracing.gate_places import ValueUses
from .findings import Finding
from .reasons import Reason
from .rules.candidate import Candidate


@dataclass(frozen=True, eq=False)
class Entry:
    """A site on one way."""

    way: int
    flow: Flow
    candidate: Candidate
    finding: Finding

    @property
    def target(self) -> ValueUses:
        """What placing its gate needs to know."""
        value = self.candidate.value
        assert value is not None
        data = tuple(user for user in value.users if self.flow.is_data(user))
        return ValueUses(self.way, value, self.candidate.users, data)

    @property
    def targets(self) -> Iterator[ValueUses]:
        """The places of the gate, best first: its own, after modules that stand for "nothing", and just at the add."""
        target = self.target
        yield target
        while len(target.users) == 1 and isinstance(self.flow.module(target.users[0]), nn.Identity):
            value = target.users[0]
            data = tuple(user for user in value.users if self.flow.is_data(user))
            target = ValueUses(self.way, value, data, data)
            yield target
        join, identity = self.candidate.join, self.candidate.identity
        for operand in join.all_input_nodes:
            if identity is not None and operand is not identity and join not in target.users:
                yield ValueUses(self.way, operand, (join,), tuple(filter(self.flow.is_data, operand.users)))


def grouped(entries: list[Entry], ways: Sequence[Way]) -> tuple[list[list[Entry]], list[Finding]]:
    """The entries by the gate that serves them, and those that no other way confirms.

    An identity that is handed in as an argument is one only if the same branch, on another way, is added to the input.
    """
    confirmed = {entry.finding.key for entry in entries if not entry.finding.handed_in}
    alone = [entry for entry in entries if entry.finding.key not in confirmed]
    left_out = [entry.finding.without(Reason.NO_COMMON_ANCESTOR) for entry in alone]
    groups: list[list[Entry]] = []
    by_way: dict[int, list[Entry]] = {}
    for entry in entries:
        if entry.finding.key in confirmed:
            by_way.setdefault(entry.way, []).append(entry)
    for on_way in by_way.values():
        _add(groups, on_way)
    return _of_both_modes(_without_rivals(groups), ways), left_out


def _of_both_modes(groups: list[list[Entry]], ways: Sequence[Way]) -> list[list[Entry]]:
    """Refuse gates that would learn in training and not be there in eval mode, or the other way round."""
    ruled = {mode for way in ways for mode in way.modes}
    for group in groups:
        shared = frozenset.intersection(*(ways[entry.way].modes for entry in group))
        is_ruled = any((question, not answer) in ruled for question, answer in shared)
        if is_ruled and group[0].finding.reason is None:
            group[:] = [replace(group[0], finding=group[0].finding.without(Reason.ONE_MODE))]
    return groups


def _add(groups: list[list[Entry]], on_way: list[Entry]) -> None:
    """Add one way's entries: to the group with the same place, else to the one with the same turn on its way."""
    known = list(groups)
    at = {
        (entry.finding.key, place): group for group in groups for entry in group for place in entry.target.expressions
    }
    taken: set[int] = set()
    for entry in on_way:
        key, places = entry.finding.key, entry.target.expressions
        group = next((at[key, place] for place in places if (key, place) in at), None)
        if group is None:
            group = next((g for g in known if g[0].finding.key == key and id(g) not in taken), None)
        if group is None:
            group = []
            groups.append(group)
        group.append(entry)
        taken.add(id(group))
        at.update(dict.fromkeys(((key, place) for place in places), group))


def _without_rivals(groups: list[list[Entry]]) -> list[list[Entry]]:
    """Refuse gates of which no way has more than one: each would learn from other inputs than it meets later."""
    ways = [{entry.way for entry in group} for group in groups]
    if not groups or len(set().union(*ways)) == 1:
        return groups
    rivals = {i for i, a in enumerate(ways) for j, b in enumerate(ways) if i != j and not a & b}
    refused = [replace(e, finding=e.finding.without(Reason.DEPENDS)) for i in rivals for e in groups[i]]
    return [group for i, group in enumerate(groups) if i not in rivals] + ([refused[:1]] if refused else [])
