"""Children that return several values, looked into: which of their outputs comes from what.

pytorchcv's pre-activation blocks, for one, return their output together with the activated input, for the projection.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import fx, nn
from torch.fx.node import map_arg

from .nodes import op_name

GraphsOf = Callable[[nn.Module], Sequence[fx.Graph]]


def alias(value: Any) -> Any:
    """One output of a child that was looked into."""
    return value


def expanded(graph: fx.Graph, owner: nn.Module, graphs_of: GraphsOf) -> fx.Graph:
    """The graph with such children written out, for looking at only.

    The block's own nodes keep their names. Those from inside a child have ``"inner"`` in their ``meta``; each output
    that the block takes is a call of ``alias``.
    """
    several = {node for node in graph.nodes if node.op == "call_module" and _is_taken_apart(node)}
    inner = {node: graphs_of(owner.get_submodule(str(node.target))) for node in several}
    inner = {node: graphs for node, graphs in inner.items() if len(graphs) == 1 and _has_all(graphs[0], node)}
    if not inner:
        return graph
    written = fx.Graph()
    copies: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        if node in inner:
            child = owner.get_submodule(str(node.target))
            copies[node] = _write_out(written, expanded(inner[node][0], child, graphs_of), node, copies)
        elif node.all_input_nodes and node.all_input_nodes[0] in inner:
            value = copies[node.all_input_nodes[0]][node.args[1]]
            copies[node] = written.create_node("call_function", alias, (value,), {}, name=node.name)
        else:
            copies[node] = _copy(written, node, copies, node.name)
    return written


def _is_taken_apart(call: fx.Node) -> bool:
    """Whether all uses of a call's result take one item of it."""
    return bool(call.users) and all(
        op_name(user) == "getitem" and user.args[0] is call and isinstance(user.args[1], int) for user in call.users
    )


def _has_all(graph: fx.Graph, call: fx.Node) -> bool:
    outputs = _outputs(graph)
    wanted = [user.args[1] for user in call.users]
    return outputs is not None and all(isinstance(i, int) and -len(outputs) <= i < len(outputs) for i in wanted)


def _outputs(graph: fx.Graph) -> Sequence[Any] | None:
    output = graph.output_node().args[0]
    is_several = isinstance(output, list | tuple) and all(isinstance(value, fx.Node) for value in output)
    return output if is_several else None  # type: ignore[return-value]


def _write_out(written: fx.Graph, graph: fx.Graph, call: fx.Node, copies: dict[fx.Node, Any]) -> list[Any]:
    given: Iterable[Any] = iter(call.args)
    inside: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            default = node.args[0] if node.args else None
            value = next(given, call.kwargs.get(str(node.target), default))  # type: ignore[call-overload]
            inside[node] = map_arg(value, lambda n: copies[n])
        elif node.op != "output":
            inside[node] = _copy(written, node, inside, f"{call.name}__{node.name}", f"{call.target}.")
            inside[node].meta["inner"] = True
    return [inside[node] for node in _outputs(graph) or ()]


def _copy(written: fx.Graph, node: fx.Node, copies: dict[fx.Node, Any], name: str, prefix: str = "") -> fx.Node:
    args = map_arg(node.args, lambda n: copies[n])
    kwargs = map_arg(node.kwargs, lambda n: copies[n])
    target = f"{prefix}{node.target}" if node.op in ("call_module", "get_attr") else node.target
    copy = written.create_node(node.op, target, args, kwargs, name=name)  # type: ignore[arg-type]
    copy.meta = dict(node.meta)
    return copy
