"""Planning the change of one block: everything that can fail happens before the returned function is called."""

import copy
from collections.abc import Callable, Sequence

from torch import fx, nn

from .analysis import Analysis, Finding
from .errors import RewriteError
from .rewrite import GatedBlock, Insertion, Rewrite, gated_class, insert, install


def plan(block: nn.Module, analysis: Analysis, gates: Sequence[tuple[Finding, nn.Module]]) -> Callable[[], None]:
    """Prepare to put gates into a block, next to those that it may have; the result does it and cannot fail.

    Raises ``RewriteError``.
    """
    if isinstance(block, fx.GraphModule):
        return _plan_graph_module(block, gates)
    assert analysis.trace is not None
    if not isinstance(block, GatedBlock):
        rewrite = Rewrite(type(block), (), frozenset())
    elif "_se_rewrite" in vars(type(block)):
        rewrite = type(block)._se_rewrite
    else:
        raise RewriteError(f"its class was extended to {type(block).__name__} after an earlier apply; undo that first")
    insertions = (*rewrite.insertions, *(Insertion(finding.gate, finding.placements) for finding, _ in gates))
    cls = gated_class(analysis.trace, Rewrite(rewrite.original, insertions, rewrite.displaced | analysis.displaced))
    return lambda: install(block, cls, {finding.gate: gate for finding, gate in gates})


def _plan_graph_module(module: fx.GraphModule, gates: Sequence[tuple[Finding, nn.Module]]) -> Callable[[], None]:
    graph = copy.deepcopy(module.graph)
    names = [".".join(filter(None, (finding.scope, finding.gate))) for finding, _ in gates]
    for name, (finding, _) in zip(names, gates, strict=True):
        for placement in finding.placements:
            insert(graph, name, placement)

    def commit() -> None:
        for name, (_, gate) in zip(names, gates, strict=True):
            module.add_submodule(name, gate)
        module.graph = graph

    return commit
