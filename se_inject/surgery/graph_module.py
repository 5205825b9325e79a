"""Gates in the graphs of a traced model, which are edited as graphs."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn

from ..errors import RewriteError
from ..graphs.flat import is_interpreter
from ..graphs.traced import GATE_MARK, TracedGraph, all_graphs, copied, erase_gates, gate_nodes, gate_of
from ..sites.findings import Finding, Placement
from ..sites.qualified_names import join

PlannedGate = tuple[Finding, nn.Module]


def plan_graph(module: nn.Module, gates: Sequence[PlannedGate]) -> Callable[[], None]:
    """Prepare to put gates into a traced model; the result does it and cannot fail. Raises ``RewriteError``."""
    copies = _copies(module)
    nodes = {name: {node.name: node for node in traced.graph.nodes} for name, traced in copies.items()}
    children = []
    for finding, gate in gates:
        path = join(finding.scope, finding.gate)
        for placement in finding.placements:
            traced = copies[placement.graph]
            around = traced.name if is_interpreter(module) else ""
            name = path.removeprefix(f"{around}.") if around else path
            if not f"{path}.".startswith(
                around and f"{around}."
            ):  # a second call of the module, which has a copy of its own
                name = finding.gate
            _check_free(module, join(around, name))
            children.append((join(around, name), gate))
            insert(traced, nodes[traced.name], placement, _call(name, gate, finding, path))

    def commit() -> None:
        for path, gate in children:
            add_gate(module, path, gate)
        _exchange(module, copies)

    return commit


def _copies(module: nn.Module) -> dict[str, TracedGraph]:
    """Copies of a traced model's graphs, by their names; a graph with two names is copied once."""
    once: dict[fx.Graph, TracedGraph] = {}
    return {
        traced.name: once.setdefault(traced.graph, copied(traced)) if traced.graph not in once else once[traced.graph]
        for traced in all_graphs(module)
    }


def plan_removal(module: nn.Module) -> Callable[[], None]:
    """Prepare to take the gates out of a traced model; the result does it and cannot fail."""
    copies = _copies(module)
    paths = set()
    for traced in copies.values():
        paths |= {path for _, path in gate_nodes(traced)}
        erase_gates(traced, module)
        for node in list(traced.graph.nodes):
            if node.op == "get_attr" and not node.users and str(node.target).startswith(tuple(f"{p}." for p in paths)):
                traced.graph.erase_node(node)

    def commit() -> None:
        for path in paths:
            _delete(module, path)
        _exchange(module, copies)

    return commit


Write = Callable[[fx.Graph, fx.Node, fx.Node], fx.Node]  # of a graph, a value and its first user: the gated value


def insert(traced: TracedGraph, nodes: dict[str, fx.Node], placement: Placement, write: Write) -> fx.Node:
    """Put a gate on a value of a graph, just before its first redirected use, and return the gated value.

    ``nodes`` are the nodes of the graph by their names.

    Where a gate is on the value for the same users already, the new one follows it. Raises ``RewriteError``.
    """
    graph = traced.graph
    try:
        value, users = nodes[placement.value], [nodes[name] for name in placement.users]
    except KeyError as error:
        raise RewriteError(f"its graph has no node {error} any more; has it changed since?") from error
    value = _behind_gates(value, users, traced)
    # As late as possible: the value may be changed in place between its origin and that use.
    first = _first_of(users, value)
    with graph.inserting_before(first):
        gated = write(graph, value, first)
    for user in users:
        user.replace_input_with(value, gated)
    return gated


def _first_of(users: list[fx.Node], value: fx.Node) -> fx.Node:
    node = value.next
    while node not in users:
        node = node.next
    return node


def _behind_gates(value: fx.Node, users: list[fx.Node], traced: TracedGraph) -> fx.Node:
    """The value itself, or what the last of the gates on it makes of it, for the same users."""
    following = [value]
    for node in following:
        if set(users) & set(node.users):
            return node
        following += [user for user in node.users if gate_of(user, traced.owner) is not None and user not in following]
    raise RewriteError(f"its graph no longer uses {value} where the gate was; has it changed?")


def _call(name: str, gate: nn.Module, finding: Finding, path: str) -> Write:
    """The call of a gate that is child ``name``; it gates the last dimension where the channels are there."""

    def write(graph: fx.Graph, value: fx.Node, user: fx.Node) -> fx.Node:
        if not finding.channels_last:
            # Not by graph.call_module, which warns that the child is not there yet.
            return _noted(graph.create_node("call_module", name, (value,)), value, path)
        first = _noted(graph.call_function(torch.movedim, (value, -1, 1)), None, path)
        gated = _noted(graph.create_node("call_module", name, (first,)), None, path)
        return _noted(graph.call_function(torch.movedim, (gated, 1, -1)), value, path)

    return write


def _noted(node: fx.Node, like: fx.Node | None, gate: str) -> fx.Node:
    """A node with the gate that it is a part of, and with what tracers noted of the value that it is like."""
    if like is not None:
        node.meta |= {key: like.meta[key] for key in ("val", "tensor_meta", "example_value") if key in like.meta}
    node.meta["custom"] = {GATE_MARK: gate}
    return node


def add_gate(module: nn.Module, path: str, gate: nn.Module) -> None:
    """Make a gate a child at a path, with containers where there are none."""
    *around, name = path.split(".")
    for child in around:
        if child not in module._modules:
            module._modules[child] = nn.ModuleDict().train(module.training)
        module = module._modules[child]  # type: ignore[assignment]
    module._modules[name] = gate


def _check_free(module: nn.Module, path: str) -> None:
    """Raise ``RewriteError`` where something that is no module has one of the names on the way to a gate."""
    for name in path.split("."):
        if name not in module._modules:
            if hasattr(module, name):
                raise RewriteError(
                    f"its graph cannot hold {path}: {name!r} is the name of something else in {type(module).__name__};"
                    " rename the module before it is traced"
                )
            return
        module = module._modules[name]  # type: ignore[assignment]


def _delete(module: nn.Module, path: str) -> None:
    """Take out a child; a container of several gates goes with its last one, and so does a scope made for gates."""
    while path:
        parent_path, _, child = path.rpartition(".")
        parent = module.get_submodule(parent_path)
        parent._modules.pop(child, None)
        if parent._modules or type(parent) is not nn.ModuleDict:
            break
        path = parent_path


def _exchange(module: nn.Module, graphs: dict[str, TracedGraph]) -> None:
    """Give a traced model other graphs."""
    for name, (_, graph, owner) in graphs.items():
        old: Any = vars(owner).get("_graph", vars(owner).get("graph"))
        if isinstance(owner, fx.GraphModule):
            if not name:
                owner.graph = graph
            else:
                runs = old is vars(owner)[name]
                vars(owner)[name] = graph
                if runs:
                    owner.graph = graph
        else:
            vars(owner)["graph"] = graph
            graph.owning_module = owner  # type: ignore[assignment]
            if "graph_module" in vars(owner):
                owner.finalize()  # type: ignore[operator]
