"""Gates in the graph of a traced model, which is edited as a graph."""

import copy
from collections.abc import Callable, Collection, Sequence

from torch import fx, nn

from ..errors import RewriteError
from ..graphs.scopes import gate_calls, ungated_graph
from ..sites.findings import Finding, Placement

PlannedGate = tuple[Finding, nn.Module]


def plan_graph(module: fx.GraphModule, gates: Sequence[PlannedGate]) -> Callable[[], None]:
    """Prepare to put gates into a traced model; the result does it and cannot fail. Raises ``RewriteError``."""
    graph = copy.deepcopy(module.graph)
    names = [".".join(filter(None, (finding.scope, finding.gate))) for finding, _ in gates]
    others = {*names, *(str(node.target) for node in gate_calls(module, graph))}
    for name, (finding, _) in zip(names, gates, strict=True):
        for placement in finding.placements:
            _insert(graph, name, placement, others)

    def commit() -> None:
        for name, (_, gate) in zip(names, gates, strict=True):
            module.add_submodule(name, gate)
        module.graph = graph

    return commit


def _insert(graph: fx.Graph, gate: str, placement: Placement, others: Collection[str]) -> None:
    """Put a call of child ``gate`` on a value of ``graph``, just before its first redirected use.

    Where a gate of ``others`` is on the value for the same users already, the new one follows it.
    """
    nodes = {node.name: node for node in graph.nodes}
    value, users = nodes[placement.value], [nodes[name] for name in placement.users]
    while not set(users) & set(value.users):
        gates = [user for user in value.users if user.op == "call_module" and user.target in others]
        if not gates:
            raise RewriteError(f"its graph no longer uses {value} where the gate was; has it changed?")
        value = gates[0]
    # As late as possible: the value may be changed in place between its origin and that use.
    with graph.inserting_before(next(node for node in value.users if node in users)):
        gated = graph.call_module(gate, (value,))
    for user in users:
        user.replace_input_with(value, gated)


def remove_from_graph(module: fx.GraphModule) -> None:
    """Take the gates out of a traced model's graph, and out of its children."""
    names = {str(call.target) for call in gate_calls(module, module.graph)}
    graph = ungated_graph(module)
    for name in names:
        # A container of several gates goes with its last one, and so does a scope that had no modules before.
        while name:
            parent_name, _, child = name.rpartition(".")
            parent = module.get_submodule(parent_name)
            del parent._modules[child]
            if parent._modules or type(parent) not in (nn.Module, nn.ModuleDict):
                break
            name = parent_name
    module.graph = graph
