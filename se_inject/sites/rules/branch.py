"""What the rules ask of a branch: what scales it, which part of the channels it takes, whose outputs it starts from."""

from typing import Any

from torch import fx

from ...graphs.dataflow import Flow
from ...graphs.operations import ADD, MUL, op_name


def before_scaling(flow: Flow, value: fx.Node, user: fx.Node, region: int) -> tuple[fx.Node, tuple[fx.Node, ...]]:
    """Walk up a branch past constant scaling, layer scale, dropout and stochastic depth.

    Where only some channels take part in the add, also past that choice: the gate then serves all of them. Not past
    what is used for other things too, which the gate would change.
    """
    users: tuple[fx.Node, ...] = (user,)
    while all(other in users for other in value.users if flow.is_data(other)):
        sources = [node for node in value.all_input_nodes if flow.is_data(node)]
        is_modulated = len(sources) == 2 and op_name(value) in ADD | MUL
        if is_modulated:
            sources = _modulated(flow, sources)
        if len(sources) != 1 or not flow.bit[sources[0]] & region:
            break
        if is_slice(value):
            value, users = sources[0], tuple(filter(flow.is_data, sources[0].users))
        elif is_modulated or flow.only_scales(value):
            value, users = sources[0], (value,)
        else:
            break
    return value, users


def _modulated(flow: Flow, sources: list[fx.Node]) -> list[fx.Node]:
    """The operand with the convolutions, if the other comes from elsewhere, as FiLM's scale and shift do."""
    with_convs = [node for node in sources if flow.ancestors[node] & flow.conv_mask]
    is_independent = not flow.ancestors[sources[0]] & flow.ancestors[sources[1]]
    return with_convs if len(with_convs) == 1 and is_independent else []


def is_slice(node: fx.Node) -> bool:
    """Whether a node takes some of the channels: ``x[:, :n]``."""
    if op_name(node) != "getitem" or not isinstance(node.args[1], tuple):
        return False
    whole = slice(None)
    index: tuple[Any, ...] = node.args[1]
    rows, columns, *others = (*index, None)
    return rows == whole and isinstance(columns, slice) and columns != whole and all(i in (whole, None) for i in others)


def outputs(flow: Flow, region: int) -> set[fx.Node]:
    """The calls of children, and the arguments, of which a region takes one item."""
    taken = [node for node in flow.members(region) if op_name(node) == "getitem" and isinstance(node.args[1], int)]
    return {source for node in taken if (source := node.all_input_nodes[0]).op in ("call_module", "placeholder")}
