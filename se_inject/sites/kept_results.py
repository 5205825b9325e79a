"""Whether autograd keeps what a gate returns for what follows, so that the gate needs to keep nothing of its own."""

from collections.abc import Iterable

from torch import fx

from ..graphs.dataflow import Flow
from ..graphs.operations import ADD, DIV, MUL, is_a, op_name


def keeps_results(uses: Iterable[tuple[Flow, tuple[fx.Node, ...]]]) -> bool:
    """Whether a weight scales the gated value, as layer scale does, on some way, and none changes it in place.

    ``uses`` has the nodes that use the value on each way, with the way's flow.
    """
    ways = list(uses)
    is_scaled = any(users and all(map(_scales_by_weight, users)) for _, users in ways)
    return is_scaled and all(_leaves_alone(flow, user) for flow, users in ways for user in users)


def _scales_by_weight(node: fx.Node) -> bool:
    return op_name(node) in MUL and any(map(_is_weight, node.all_input_nodes))


def _is_weight(node: fx.Node) -> bool:
    return node.op == "get_attr" or (is_a("view", node) and all(map(_is_weight, node.all_input_nodes[:1])))


def _leaves_alone(flow: Flow, node: fx.Node) -> bool:
    """Whether a node changes no input, nor does what uses its result, if that may be an input."""
    if flow.is_in_place(node):
        return False
    if flow.module(node) is None:
        return op_name(node) in ADD | MUL | DIV
    return flow.only_scales(node) and all(_leaves_alone(flow, user) for user in node.users)
