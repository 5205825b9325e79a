"""Candidates: adds and concats that could be the paper's, with the value that takes the gate or the reason why none."""

from dataclasses import dataclass

from torch import fx

from ..reasons import Reason, Refusal
from ..site import Kind


@dataclass(frozen=True)
class Candidate:
    """An add or a returned concat: the value to gate and the uses of it to redirect, or the reason why not."""

    kind: Kind
    join: fx.Node
    value: fx.Node | None = None
    users: tuple[fx.Node, ...] = ()
    region: int = 0  # the branch, or all paths of the concat, as a mask of its Flow
    identity: fx.Node | None = None  # the other operand of a residual add
    reason: Refusal | None = None
    handed_in: bool = False  # whether the identity is an argument of its own, which only another way can confirm

    def without(self, reason: Reason, *details: object) -> "Candidate":
        """The candidate without a place, and why.

        >>> str(Candidate("residual", fx.Graph().placeholder("x")).without(Reason.ALREADY_GATED).reason)
        'already gated'
        """
        return Candidate(self.kind, self.join, reason=Refusal(reason, *details))
