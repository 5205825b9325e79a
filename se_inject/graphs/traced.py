"""Traced models: what is one, which graphs it has, and which nodes of them are our gates."""

import copy
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, fx, nn

from ..gate.marks import injection_of
from .flat import Constants, FlatGraph, attribute, flattened, is_interpreter
from .folded import Folded
from .operations import argument, is_a, op_name

if TYPE_CHECKING:
    from torch.export import ExportedProgram

GATE_MARK = "se_inject"  # in a node's meta["custom"], which export and decomposition hand on: the path of its gate


class Program(nn.Module):
    """An exported program among modules, for as long as it is read or changed."""

    def __init__(self, program: "ExportedProgram") -> None:
        super().__init__()
        self.program = program


class TracedGraph(NamedTuple):
    """One of a traced model's graphs: its name, or the path of the module that interprets it."""

    name: str
    graph: fx.Graph
    owner: nn.Module


def is_program(model: object) -> bool:
    """Whether a model is a ``torch.export.ExportedProgram``.

    >>> is_program(nn.ReLU())
    False
    """
    return any(cls.__name__ == "ExportedProgram" and cls.__module__.startswith("torch.") for cls in type(model).__mro__)


def traced_models(model: nn.Module) -> dict[str, nn.Module]:
    """The traced models in a model, by their paths, without what is read with them.

    >>> list(traced_models(nn.Sequential(nn.ReLU(), fx.symbolic_trace(nn.ReLU()))))
    ['1']
    """
    found: dict[str, nn.Module] = {}
    inside: set[nn.Module] = set()
    for path, module in model.named_modules():
        if is_traced(module) and module not in inside:
            found[path] = module
            inside.update(below for child in read_with(module) for below in module.get_submodule(child).modules())
    return found


def is_traced(module: nn.Module | None) -> bool:
    """Whether a module is a graph: of fx, of torch.export, or of a module that was folded.

    >>> is_traced(fx.symbolic_trace(nn.ReLU())), is_traced(nn.ReLU())
    (True, False)
    """
    return isinstance(module, fx.GraphModule | Program | Folded) or (module is not None and is_interpreter(module))


def whole_graphs(module: nn.Module) -> list[TracedGraph]:
    """The graphs that a traced model runs as a whole; two, where ``train()`` swaps them.

    >>> [name for name, _, _ in whole_graphs(fx.symbolic_trace(nn.ReLU()))]
    ['']
    """
    if isinstance(module, Program):
        return [TracedGraph("", module.program.graph, module.program.graph_module)]
    swapped = {name: value for name, value in vars(module).items() if isinstance(value, fx.Graph) and name != "_graph"}
    if isinstance(module, fx.GraphModule) and len(swapped) > 1:
        return [TracedGraph(name, graph, module) for name, graph in swapped.items()]
    return [TracedGraph("", module.graph, module)]  # type: ignore[list-item, arg-type]


def all_graphs(module: nn.Module) -> list[TracedGraph]:
    """The same, and for modules that interpret graphs those of all modules below."""
    if not is_interpreter(module):
        return whole_graphs(module)
    return [
        TracedGraph(path, child.graph, child)  # type: ignore[arg-type]
        for path, child in module.named_modules(remove_duplicate=False)
        if is_interpreter(child) and isinstance(getattr(child, "graph", None), fx.Graph)
    ]


def read_with(module: nn.Module) -> list[str]:
    """The paths of the modules below a traced one that are read with it: graphs of its operators, and interpreters.

    >>> read_with(nn.Sequential(nn.ReLU()))
    []
    """
    if not is_traced(module) or isinstance(module, Program):
        return []
    below = [path for path, child in module.named_modules() if path and is_interpreter(child)]
    handed = [str(node.target) for _, graph, _ in whole_graphs(module) for node in graph.nodes if node.op == "get_attr"]
    return below + [path for path in handed if isinstance(attribute(module, path), nn.Module)]


def flat_graph(traced: TracedGraph, module: nn.Module) -> FlatGraph:
    """One of a traced model's graphs, written out, without our gates."""
    return flattened(traced.graph, traced.owner, _constants(traced.graph, module), gate_of)


def weights(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a traced model by their names, in its own order.

    >>> list(weights(fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 8, 1, bias=False)))))
    ['0.weight']
    """
    if isinstance(module, Program):
        return {**module.program.state_dict, **module.program.constants}
    return module.state_dict(keep_vars=True)


def _constants(graph: fx.Graph, module: nn.Module) -> Constants:
    """The placeholders of a graph that stand for parameters and buffers."""
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    if isinstance(module, Program):
        tensors = weights(module)
        specs = module.program.graph_signature.input_specs
        named = {spec.arg.name: spec.target for spec in specs if spec.kind.name not in ("USER_INPUT", "TOKEN")}
        return {n.name: (str(named[n.name]), tensors.get(named[n.name])) for n in placeholders if n.name in named}
    return {node.name: ("", node.meta.get("example_value")) for node in placeholders if _is_lifted(node)}


def _is_lifted(node: fx.Node) -> bool:
    """Whether a placeholder of a graph from dynamo or make_fx stands for a parameter or a buffer."""
    if isinstance(node.meta.get("example_value"), nn.Parameter) or re.match(r"[Ll]_.*_buffers_", str(node.target)):
        return True
    return bool(node.users) and all(_is_weight_of(node, user) for user in node.users)


def _is_weight_of(node: fx.Node, user: fx.Node) -> bool:
    """Whether an operation takes a value as its weight, bias or statistics."""
    return (is_a("convolution", user) or is_a("norm", user) or is_a("linear", user)) and argument(
        user, 0, "input"
    ) is not node


def gate_of(node: fx.Node, owner: nn.Module) -> str | None:
    """The path of our gate that a node belongs to, None for all other nodes."""
    custom = node.meta.get("custom")
    if isinstance(custom, dict) and GATE_MARK in custom:
        return str(custom[GATE_MARK])
    if node.op != "call_module":
        return None
    child = owner.get_submodule(str(node.target))
    if is_interpreter(child):  # of a gate that was written out, when it was unflattened
        inside = [gate_of(n, child) for n in getattr(child, "graph", fx.Graph()).nodes if n.op == "call_function"]
        return inside[0] if inside and len(set(inside)) == 1 else None
    return str(node.target) if injection_of(child) is not None else None


def gate_nodes(traced: TracedGraph) -> Iterator[tuple[fx.Node, str]]:
    """The nodes of our gates in a graph, with the paths of the gates."""
    around = traced.name if is_interpreter(traced.owner) else ""
    for node in traced.graph.nodes:
        path = gate_of(node, traced.owner)
        if path is not None:
            is_target = path == str(node.target) and GATE_MARK not in (node.meta.get("custom") or ())
            yield node, f"{around}.{path}" if around and is_target else path


def gate_paths(module: nn.Module) -> set[str]:
    """The paths of our gates in a traced model, for the model itself to be ``""``."""
    return {path for traced in all_graphs(module) for _, path in gate_nodes(traced)}


def ungated(traced: TracedGraph, module: nn.Module) -> fx.Graph:
    """A graph without our gates: a copy, if there are some."""
    if next(gate_nodes(traced), None) is None:
        return traced.graph
    changed = copied(traced)
    erase_gates(changed, module)
    return changed.graph


def copied(traced: TracedGraph) -> TracedGraph:
    """The same with a copy of the graph, whose nodes have the same names, such as ``input``, which fx would change."""
    graph = copy.deepcopy(traced.graph)
    for node, original in zip(graph.nodes, traced.graph.nodes, strict=True):
        node.name = original.name
    return traced._replace(graph=graph)


def erase_gates(traced: TracedGraph, module: nn.Module) -> None:
    """Take the nodes of our gates out of a graph: what used a gated value uses the value."""
    constants = _constants(traced.graph, module)
    gates = [node for node, _ in gate_nodes(traced)]
    values: dict[fx.Node, fx.Node | None] = {}
    sizes: list[fx.Node] = []
    for node in gates:
        sizes += filter(_is_size, node.all_input_nodes)
        outer = (n for n in node.all_input_nodes if not (n.op == "get_attr" or n.name in constants or _is_size(n)))
        values[node] = next((values.get(n, n) for n in outer), None)
    for node in gates:
        for user in [user for user in node.users if user not in values]:
            user.replace_input_with(node, values[node])  # type: ignore[arg-type]
    for node in [*reversed(gates), *reversed(dict.fromkeys(sizes))]:
        if not node.users:
            traced.graph.erase_node(node)


def _is_size(node: fx.Node) -> bool:
    return op_name(node).startswith("sym_")
