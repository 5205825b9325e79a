"""Children that are looked into: which of several outputs comes from what, and adds and concats that are modules.

pytorchcv's pre-activation blocks, for one, return their output together with the activated input, for the projection;
tsai adds by ``self.add(x, y)``, and Cadene's ResNeXt by a module that reduces the list that another one returns.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import fx, nn
from torch.fx.node import map_arg

from .layers import is_sequential
from .operations import ADD, CAT, op_name

GraphsOf = Callable[[nn.Module], Sequence[fx.Graph]]


def alias(value: Any) -> Any:
    """One output of a child that was looked into."""
    return value


def expanded(graph: fx.Graph, owner: nn.Module, graphs_of: GraphsOf) -> fx.Graph:
    """The graph with such children written out, for looking at only.

    The block's own nodes keep their names. Those from inside a child have ``"inner"`` in their ``meta``; each output
    that the block takes is a call of ``alias``, and a child that joins its inputs is the join itself.
    """
    calls = [node for node in graph.nodes if node.op == "call_module"]
    joins = {node: join for node in calls if (join := _join_of(node, owner, graphs_of)) is not None}
    several = {node: graphs_of(owner.get_submodule(str(node.target))) for node in calls if _is_taken_apart(node, joins)}
    inner = {node: graphs[0] for node, graphs in several.items() if len(graphs) == 1 and _has_all(graphs[0], node)}
    if not inner and not joins:
        return graph
    written = fx.Graph()
    copies: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        if node in inner:
            child = owner.get_submodule(str(node.target))
            copies[node] = _write_out(written, expanded(inner[node], child, graphs_of), node, copies)
        elif node in joins:
            copies[node] = _write_join(written, joins[node], node, copies)
        elif node.all_input_nodes and node.all_input_nodes[0] in inner:
            value = copies[node.all_input_nodes[0]][node.args[1]]
            copies[node] = written.create_node("call_function", alias, (value,), {}, name=node.name)
        else:
            copies[node] = _copy(written, node, copies, node.name)
    return written


def joins_its_inputs(module: nn.Module, graphs_of: GraphsOf) -> bool:
    """Whether a module does nothing but add or concatenate what it gets."""
    if any(True for _ in module.parameters()) or is_sequential(module):
        return False
    return any(map(_is_join, graphs_of(module)))


def _is_join(graph: fx.Graph) -> bool:
    work = [node for node in graph.nodes if node.op not in ("placeholder", "output")]
    joins = [node for node in work if op_name(node) in ADD | CAT]
    is_returned = graph.output_node().args[0] in joins
    are_of_several = all(len(node.all_input_nodes) == 2 for node in joins if op_name(node) in ADD)
    return is_returned and are_of_several and all(node in joins or op_name(node) == "getitem" for node in work)


def _join_of(call: fx.Node, owner: nn.Module, graphs_of: GraphsOf) -> fx.Graph | None:
    """The graph of a child that joins its inputs."""
    child = owner.get_submodule(str(call.target))
    if not joins_its_inputs(child, graphs_of):
        return None
    return next((graph for graph in graphs_of(child) if _is_join(graph)), None)


def _is_taken_apart(call: fx.Node, joins: dict[fx.Node, fx.Graph]) -> bool:
    """Whether all uses of a call's result take one item of it."""
    return bool(call.users) and all(
        (op_name(user) == "getitem" and user.args[0] is call and isinstance(user.args[1], int))
        or (user in joins and len(user.all_input_nodes) == 1)
        for user in call.users
    )


def _has_all(graph: fx.Graph, call: fx.Node) -> bool:
    outputs = _outputs(graph)
    wanted = [user.args[1] for user in call.users if op_name(user) == "getitem"]
    return outputs is not None and all(isinstance(i, int) and -len(outputs) <= i < len(outputs) for i in wanted)


def _outputs(graph: fx.Graph) -> Sequence[Any] | None:
    output = graph.output_node().args[0]
    is_several = isinstance(output, list | tuple) and all(isinstance(value, fx.Node) for value in output)
    return output if is_several else None  # type: ignore[return-value]


def _write_out(written: fx.Graph, graph: fx.Graph, call: fx.Node, copies: dict[fx.Node, Any]) -> list[Any]:
    given = iter(call.args)
    inside: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            default = node.args[0] if node.args else None
            value = next(given, call.kwargs.get(str(node.target), default))
            inside[node] = map_arg(value, lambda n: copies[n])
        elif op_name(node) == "getitem" and isinstance(items := map_arg(node.args[0], inside.get), list | tuple):
            inside[node] = items[node.args[1]]  # of a tuple that the child is given
        elif node.op != "output":
            inside[node] = _copy(written, node, inside, f"{call.name}__{node.name}", f"{call.target}.")
            inside[node].meta["inner"] = True
            inside[node].meta.pop("expressions", None)  # of the child's text
    return [inside[node] for node in _outputs(graph) or ()]


def _write_join(written: fx.Graph, graph: fx.Graph, call: fx.Node, copies: dict[fx.Node, Any]) -> fx.Node:
    """The adds or the concat of a child among the block's own nodes; the last one stands for the call."""
    arguments: list[Any] = [map_arg(arg, lambda n: copies[n]) for arg in (*call.args, *call.kwargs.values())]
    several = arguments[0] if len(arguments) == 1 and isinstance(arguments[0], list | tuple) else arguments
    last: Any = graph.output_node().args[0]
    if op_name(last) in CAT:
        join = written.create_node(last.op, last.target, (list(several), *last.args[1:]), last.kwargs, name=call.name)
    else:
        total, *others = several
        names = [None] * (len(others) - 1) + [call.name]
        for value, name in zip(others, names, strict=True):
            total = join = written.create_node(last.op, last.target, (total, value), {}, name=name)
    join.meta = dict(call.meta)
    return join


def _copy(written: fx.Graph, node: fx.Node, copies: dict[fx.Node, Any], name: str, prefix: str = "") -> fx.Node:
    args = map_arg(node.args, lambda n: copies[n])
    kwargs = map_arg(node.kwargs, lambda n: copies[n])
    target = f"{prefix}{node.target}" if node.op in ("call_module", "get_attr") else node.target
    copy = written.create_node(node.op, target, args, kwargs, name=name)  # type: ignore[arg-type]
    copy.meta = dict(node.meta)
    return copy
