"""Planning the change of one block: everything that can fail happens before the returned function is called."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import fx, nn

from .codegen import Insertion, OutputGate, insert
from .finding import Analysis, Finding
from .graph_module import gate_calls
from .rewrite import Rewrite, gated_class, install
from .trace import trace_block

PlannedGate = tuple[Analysis, Finding, nn.Module]


def plan(block: nn.Module, gates: Sequence[PlannedGate]) -> Callable[[], None]:
    """Prepare to put gates into a block, next to those that it may have; the result does it and cannot fail.

    Raises ``RewriteError``.
    """
    if isinstance(block, fx.GraphModule):
        return _plan_graph_module(block, gates)
    rewrite = Rewrite.of(block)
    trace = None
    for analysis, finding, _ in gates:
        if finding.producer:
            rewrite = replace(rewrite, output=OutputGate(finding.gate, finding.channels_last))
        else:
            trace = analysis.trace
            rewrite = replace(
                rewrite,
                insertions=(*rewrite.insertions, Insertion(finding.gate, finding.placements)),
                displaced=rewrite.displaced | ({finding.gate.partition(".")[0]} & set(vars(block))),
            )
    if trace is None and rewrite.insertions:  # the block has gates inside from before
        trace = trace_block(rewrite.original, rewrite.original_state(vars(block)))
    cls = gated_class(trace, rewrite)
    return lambda: install(block, cls, {finding.gate: gate for _, finding, gate in gates})


def _plan_graph_module(module: fx.GraphModule, gates: Sequence[PlannedGate]) -> Callable[[], None]:
    graph = copy.deepcopy(module.graph)
    names = [".".join(filter(None, (finding.scope, finding.gate))) for _, finding, _ in gates]
    others = {*names, *(str(node.target) for node in gate_calls(module, graph))}
    for name, (_, finding, _) in zip(names, gates, strict=True):
        for placement in finding.placements:
            insert(graph, name, placement, others)

    def commit() -> None:
        for name, (_, _, gate) in zip(names, gates, strict=True):
            module.add_submodule(name, gate)
        module.graph = graph

    return commit
