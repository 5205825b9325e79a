"""The paper's four places for the gate of a residual block.

Hu, Shen, Sun, "Squeeze-and-Excitation Networks" (journal version), section 6.5 and figure 5.
"""

from dataclasses import replace

from torch import fx

from ...graphs.dataflow import Flow
from ..reasons import Reason
from ..site import Position
from .candidate import Candidate


def positioned(flow: Flow, candidate: Candidate, position: Position) -> Candidate:
    """A residual candidate with its gate where ``position`` says: its own place is "standard"."""
    if candidate.value is None or candidate.identity is None or position == "standard":
        return candidate
    if position == "identity":
        return replace(candidate, value=candidate.identity, users=(candidate.join,))
    if position == "post":
        return _after_the_add(flow, candidate)
    return _before_the_branch(flow, candidate)


def _after_the_add(flow: Flow, candidate: Candidate) -> Candidate:
    """On the sum, after its activation if one follows."""
    value = candidate.join
    users = tuple(filter(flow.is_data, value.users))
    if len(users) == 1 and flow.is_activation(users[0]):
        value, users = users[0], tuple(filter(flow.is_data, users[0].users))
    if not users:
        return candidate.without(Reason.UNUSED_SUM)
    return replace(candidate, value=value, users=users)


def _before_the_branch(flow: Flow, candidate: Candidate) -> Candidate:
    """On what the branch reads, for the branch alone."""
    entries: dict[fx.Node, list[fx.Node]] = {}
    for node in flow.members(candidate.region):
        for source in node.all_input_nodes:
            if flow.is_data(source) and not flow.bit[source] & candidate.region:
                entries.setdefault(source, []).append(node)
    if len(entries) != 1:
        return candidate.without(Reason.SEVERAL_ENTRIES, len(entries))
    [(value, users)] = entries.items()
    return replace(candidate, value=value, users=tuple(users))
