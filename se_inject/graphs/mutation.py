"""Values that are changed in place: where a gate on one would change what others see, or be changed after it."""

from torch import fx, nn

from .dataflow import Flow
from .layers import is_sequential
from .operations import is_a


def is_overwritten(flow: Flow, value: fx.Node, users: tuple[fx.Node, ...]) -> bool:
    """Whether a redirected use changes the value in place while the same memory is used elsewhere.

    Or whether a later use changes it: the gate needs the value again in the backward pass.
    """
    writers = [user for user in value.users if flow.is_in_place(user) and user.args and user.args[0] is value]
    first = min(flow.bit[user] for user in users)
    if any(flow.bit[writer] > first for writer in writers if writer not in users):
        return True
    if not any(writer in users for writer in writers):
        return False
    while True:
        if len(list(filter(flow.is_data, value.users))) > 1:  # readers of its shape do not mind
            return True
        if not _may_alias(flow, value):
            return False
        value = next(node for node in value.all_input_nodes if flow.is_data(node))


def changes_input(flow: Flow) -> bool:
    """Whether a forward changes its first argument in place, or a view of it."""
    same = {node for node in flow.nodes[:1] if node.op == "placeholder"}
    for node in flow.nodes:
        if node.all_input_nodes and node.all_input_nodes[0] in same:
            if flow.is_in_place(node):
                return True
            if _may_alias(flow, node):
                same.add(node)
    return False


def _may_alias(flow: Flow, node: fx.Node) -> bool:
    """Whether a node's output can share memory with its input."""
    module = flow.module(node)
    if module is None:
        return is_a("view", node) or flow.is_in_place(node)
    return keeps_memory(module) or flow.is_in_place(node)


def keeps_memory(module: nn.Module) -> bool:
    """Whether a module may return its input, or a view of it.

    >>> keeps_memory(nn.Sequential()), keeps_memory(nn.ReLU())
    (True, False)
    """
    if is_sequential(module):
        return all(map(keeps_memory, module.children()))
    return isinstance(module, nn.Identity | nn.Flatten | nn.Unflatten | nn.modules.dropout._DropoutNd)
