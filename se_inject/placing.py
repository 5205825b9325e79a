"""Planning the change of one block: everything that can fail happens before the returned function is called."""

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from torch import fx, nn

from .errors import RewriteError
from .finding import Finding, Placement
from .graph_module import gate_calls
from .source.edit import Edit
from .surgery.gated_block import OutputGate, Rewrite, install, mark_in_slot

PlannedGate = tuple[Finding, nn.Module]


def plan(block: nn.Module, gates: Sequence[PlannedGate]) -> Callable[[], None]:
    """Prepare to put gates into a block, next to those that it may have; the result does it and cannot fail.

    Raises ``RewriteError``.
    """
    if isinstance(block, fx.GraphModule):
        return _plan_graph_module(block, gates)
    rewrite = Rewrite.of(block)
    for finding, gate in gates:
        if finding.producer:
            rewrite = replace(rewrite, output=OutputGate(finding.gate, finding.channels_last))
        elif finding.in_slot:
            mark_in_slot(gate)
        else:
            edits = named_edits(finding)
            displaced = {finding.gate.partition(".")[0]} & set(vars(block))
            rewrite = replace(rewrite, edits=(*rewrite.edits, *edits), displaced=rewrite.displaced | displaced)
    return install(block, rewrite, {finding.gate: gate for finding, gate in gates})


def named_edits(finding: Finding) -> list[Edit]:
    """The edits of a finding with its gate in them."""
    return [replace(e, gate=finding.gate, channels_last=finding.channels_last) for e in finding.edits]


def _plan_graph_module(module: fx.GraphModule, gates: Sequence[PlannedGate]) -> Callable[[], None]:
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
