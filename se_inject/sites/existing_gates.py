"""Blocks that have a channel gate of their own already: SE, ECA, CBAM and the like, by what they compute."""

from typing import Protocol

from torch import fx, nn

from ..graphs.dataflow import Flow
from ..graphs.operations import MUL, argument, op_name
from .reasons import Reason, Refusal


class Gating(Protocol):
    """What the rules need to know about a child from the inside."""

    def has_own_gate(self, module: nn.Module) -> bool:
        """Whether it is a channel gate or brings one."""

    def is_unreadable(self, module: nn.Module) -> str | None:
        """Why nobody can tell what it does, if so."""

    def squeezes(self, module: nn.Module) -> bool:
        """Whether it averages over all positions."""


def has_gate(flow: Flow, region: int, children: Gating) -> bool:
    """Whether a region holds a channel gate: a child that is one, or a value times a function of its average."""
    for node in flow.members(region):
        module = flow.module(node)
        if module is not None and children.has_own_gate(module):
            return True
        if op_name(node) in MUL and _is_gating(flow, node, children):
            return True
    return False


def _is_gating(flow: Flow, mul: fx.Node, children: Gating) -> bool:
    x, scale = argument(mul, 0, "input"), argument(mul, 1, "other")
    if not (flow.is_data(x) and flow.is_data(scale)) or not flow.ancestors[x] & flow.ancestors[scale]:
        return False
    on_one_side = list(flow.members(flow.ancestors[x] ^ flow.ancestors[scale]))
    if any(op_name(node) == "rsqrt" for node in on_one_side):
        return False  # a norm, such as filter response normalization
    return any(
        flow.squeezes(node) or ((module := flow.module(node)) is not None and children.squeezes(module))
        for node in on_one_side
    )


def unreadable(flow: Flow, region: int, children: Gating) -> Refusal | None:
    """Why nobody can tell whether a region holds a gate: what it calls cannot be looked into."""
    for node in flow.members(region):
        module = flow.module(node)
        why = node.meta.get("opaque") if module is None else children.is_unreadable(module)
        if why is not None and module is not None:
            return Refusal(Reason.UNREADABLE_CHILD, node.target, why)
        if why is not None:
            return Refusal(Reason.UNREADABLE_CALL, why)
    return None
