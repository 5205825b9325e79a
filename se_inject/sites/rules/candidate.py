"""Candidates: adds and concats that could be the paper's, with the value that takes the gate or the reason why none."""

from dataclasses import dataclass

from torch import fx

from ..site import Kind

ALREADY_GATED = "already gated"
SUM_OF_OUTPUTS = "ambiguous add: it sums the outputs of several layers, as WaveNet's skip connections"
NO_COMMON_ANCESTOR = "the operands of its add have no common ancestor"


@dataclass(frozen=True)
class Candidate:
    """An add or a returned concat: the value to gate and the uses of it to redirect, or the reason why not."""

    kind: Kind
    join: fx.Node
    value: fx.Node | None = None
    users: tuple[fx.Node, ...] = ()
    region: int = 0  # the branch, or all paths of the concat, as a mask of its Flow
    identity: fx.Node | None = None  # the other operand of a residual add
    reason: str | None = None
    handed_in: bool = False  # whether the identity is an argument of its own, which only another case can vouch for


def refused(candidate: Candidate, reason: str) -> Candidate:
    """The candidate without a place, and why.

    >>> refused(Candidate("residual", fx.Graph().placeholder("x")), "too small").reason
    'too small'
    """
    return Candidate(candidate.kind, candidate.join, reason=reason)
