"""Whether autograd keeps what a gate returns for what follows, so that the gate needs to keep nothing of its own."""

from collections.abc import Iterable

from torch import fx, nn

from ..graphs.dataflow import Flow
from ..graphs.operations import ADD, DIV, MUL, is_a, is_in_place, op_name


def keeps_results(uses: Iterable[tuple[Flow, tuple[fx.Node, ...]]]) -> bool:
    """Whether a weight scales the gated value, as layer scale does, on some way, and none changes it in place.

    ``uses`` has the nodes that use the value on each way, with the way's flow.
    """
    ways = list(uses)
    is_scaled = any(users and all(_scales_by_weight(flow, user) for user in users) for flow, users in ways)
    return is_scaled and all(_leaves_alone(flow, user) for flow, users in ways for user in users)


def _scales_by_weight(flow: Flow, node: fx.Node) -> bool:
    module = flow.module(node)
    if module is not None:
        return flow.only_scales(node) and any(True for _ in module.parameters())
    return op_name(node) in MUL and any(map(_is_weight, node.all_input_nodes))


def _is_weight(node: fx.Node) -> bool:
    return node.op == "get_attr" or (is_a("view", node) and all(map(_is_weight, node.all_input_nodes[:1])))


def _leaves_alone(flow: Flow, node: fx.Node) -> bool:
    """Whether a node changes no input, nor does what uses its result, if that may be an input."""
    module = flow.module(node)
    if module is None:
        return op_name(node) in ADD | MUL | DIV and not is_in_place(node)
    if not flow.only_scales(node) or getattr(module, "inplace", False):
        return False
    may_pass_on = isinstance(module, nn.Identity) or not any(True for _ in module.parameters())
    return not may_pass_on or all(_leaves_alone(flow, user) for user in node.users)
