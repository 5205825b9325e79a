"""What the forwards around a block do with it: call it or its children, walk through it, ask for its class."""

from collections import Counter
from contextlib import suppress
from functools import cached_property

from torch import nn

from ..gate.marks import is_gate
from ..graphs.traced import is_traced
from ..tracing.capture import Capture
from ..tracing.errors import UntraceableError
from .analyzer import BlockAnalyzer
from .children import has_own_forward
from .qualified_names import is_at_or_below, join, with_parents
from .reasons import Reason, Refusal
from .target import Target


class Surroundings:
    """Answers for one model, whose modules are given by their qualified names."""

    def __init__(self, model: nn.Module, modules: dict[str, nn.Module], analyzer: BlockAnalyzer) -> None:
        in_gates = {inside for module in modules.values() if is_gate(module) for inside in module.modules()}
        self._modules = {path: module for path, module in modules.items() if module not in in_gates}
        self._analyzer = analyzer
        self._places = Counter(module for _, module in model.named_modules(remove_duplicate=False))

    def refusal(self, target: Target) -> Refusal | None:
        """Why a value cannot take its gate, as things around its block are."""
        changed = join(target.block_path, target.finding.producer)
        is_text = not target.finding.in_graph
        if changed in self._asked and not target.finding.in_slot and is_text:
            return Refusal(Reason.ASKED_FOR_CLASS)
        if changed in self._walked:
            return Refusal(Reason.WALKED)
        if target.block_path and is_text and self._is_bypassed(target.block_path):
            return Refusal(Reason.BYPASSED)
        if target.finding.producer and not self._serves_block_alone(target):
            return Refusal(Reason.SHARED_CHILD, target.finding.producer)
        return None

    def is_run_by_others(self, sequential: str) -> bool:
        """Whether a forward around a Sequential runs its children one by one."""
        return sequential in self._entered

    def _serves_block_alone(self, target: Target) -> bool:
        """Whether the child that makes a value can hold a gate, and nobody else calls it."""
        block, path = target.block_path, join(target.block_path, target.finding.producer)
        is_called_elsewhere = any(
            called.startswith(f"{block}.") and is_at_or_below(path, called) and not is_at_or_below(caller, block)
            for called, caller in self._calls
            if block
        )
        is_single = self._places[target.block] == 1 and not is_called_elsewhere
        return is_single and self._analyzer.can_hold_gate(target.block)

    def _is_bypassed(self, path: str) -> bool:
        """Whether a forward around a block calls its children, and none calls the block."""
        return path in self._entered and path not in self._called

    @cached_property
    def _captured(self) -> list[tuple[str, Capture]]:
        """All that forwards do, by their modules."""
        captured = []
        for path, module in self._modules.items():
            if has_own_forward(module) and not is_traced(module):
                with suppress(UntraceableError):
                    captured.append((path, self._analyzer.children.capture(module)))
        return captured

    @cached_property
    def _walked(self) -> set[str]:
        """The modules whose children a forward around them walks through."""
        return {join(path, child) for path, captured in self._captured for child in captured.walked}

    @cached_property
    def _asked(self) -> set[str]:
        """The modules whose class a forward of a module above asks for."""
        return {join(path, child) for path, captured in self._captured for child in captured.asked - {""}}

    @cached_property
    def _called(self) -> set[str]:
        return {called for called, _ in self._calls}

    @cached_property
    def _entered(self) -> set[str]:
        """The modules in which a forward around them calls a child."""
        return {
            above
            for called, caller in self._calls
            for above in with_parents(called.rpartition(".")[0])
            if not is_at_or_below(caller, above)
        }

    @cached_property
    def _calls(self) -> set[tuple[str, str]]:
        """Which child each forward calls: the paths of the child and of the caller."""
        return {
            (join(path, str(node.target)), path)
            for path, module in self._modules.items()
            if has_own_forward(module) and not is_traced(module)
            for graph in self._analyzer.children.graphs_of(module)
            for node in graph.nodes
            if node.op == "call_module"
        }
