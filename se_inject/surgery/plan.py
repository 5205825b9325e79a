"""Planning the change of one block: everything that can fail happens before the returned function is called."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import nn

from ..gate.record import OutputGate, mark_in_slot
from ..graphs.traced import Program, is_traced
from ..sites.findings import Finding
from ..source.edits import Edit
from . import exported_program, graph_module
from .gated_block import install, rewrite_of
from .graph_module import PlannedGate


def plan(block: nn.Module, gates: Sequence[PlannedGate]) -> Callable[[], None]:
    """Prepare to put gates into a block, next to those that it may have; the result does it and cannot fail.

    Raises ``RewriteError``.
    """
    if isinstance(block, Program):
        return exported_program.plan_program(block, gates)
    if is_traced(block):
        return graph_module.plan_graph(block, gates)
    rewrite = rewrite_of(block)
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


def plan_removal(traced: nn.Module) -> Callable[[], None]:
    """Prepare to take all gates out of a traced model; the result does it and cannot fail."""
    if isinstance(traced, Program):
        return exported_program.plan_removal(traced)
    return graph_module.plan_removal(traced)


def named_edits(finding: Finding) -> list[Edit]:
    """The edits of a finding with its gate in them."""
    return [replace(e, gate=finding.gate, channels_last=finding.channels_last) for e in finding.edits]
