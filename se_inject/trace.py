"""One block's own forward as fx graphs, its children as leaves.

What tracing would freeze or lose is either followed (``self.training``, an argument that is None or a flag: one graph
for each case) or refused with ``UntraceableError`` (randomness, attributes that forward writes, grad or autocast
contexts, questions about the type of a value): the graphs returned compute what the forward computes, always.
"""

import inspect
import itertools
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from .bytecode import compared_with_none, unanswerable
from .proxy import UntraceableError
from .reachable import plain_flags
from .shadow import trace_shadow

_MAX_CASES = 8

Conditions = tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class Case:
    """The graph of a forward under conditions: Python expressions over its arguments, and their outcomes."""

    conditions: Conditions
    graph: fx.Graph


@dataclass(frozen=True, eq=False)
class Trace:
    """All cases of one forward, and the attributes of the block that it read; compared by identity."""

    cases: tuple[Case, ...]
    reads: frozenset[str]
    flags: tuple[str, ...] = ()  # arguments that must be True or False


def trace_block(block_class: type[nn.Module], state: dict[str, Any]) -> Trace:
    """Trace ``block_class.forward`` on a stand-in with the attributes ``state``; the block itself is not touched.

    Raises ``UntraceableError``.

    >>> trace = trace_block(nn.Sequential, vars(nn.Sequential(nn.ReLU())))
    >>> [node.op for node in trace.cases[0].graph.nodes]
    ['placeholder', 'call_module', 'output']
    """
    if "forward" in state:
        raise UntraceableError("its forward is set on the instance, not by its class")
    try:
        parameters = list(inspect.signature(block_class.forward).parameters.values())[1:]
    except (TypeError, ValueError) as error:
        raise UntraceableError(f"its forward has no readable signature: {error}") from error
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        raise UntraceableError("its forward takes *args or **kwargs, whose values are known only when it runs")
    if reason := unanswerable(block_class, plain_flags(state)):
        raise UntraceableError(reason)
    compared = compared_with_none(block_class)
    flags = [p for p in parameters if isinstance(p.default, bool)]
    toggles = [p for p in parameters if p.default is None or p.name in compared or p in flags]
    if 2 ** len(toggles) > _MAX_CASES:
        raise UntraceableError(f"its forward has {len(toggles)} optional arguments: too many cases")

    cases: list[Case] = []
    reads: set[str] = set()
    for training in (state["training"], not state["training"]):
        # An "is None" or "if flag" leaves no mark in a graph, so all cases are traced; a look at the mode is noticed.
        if cases and "training" not in reads:
            break
        for outcomes in itertools.product((True, False), repeat=len(toggles)):
            conditions, fixed = _conditions(toggles, outcomes)
            graph = trace_shadow(block_class, {**state, "training": training}, parameters, fixed, reads)
            cases.append(Case((("self.training", training), *conditions), graph))
    return Trace(_drop_idle_conditions(cases), frozenset(reads) - {"training"}, tuple(p.name for p in flags))


def _conditions(toggles: list[inspect.Parameter], outcomes: tuple[bool, ...]) -> tuple[Conditions, dict[str, Any]]:
    """What one assignment of the optional arguments looks like from inside, and the values that it fixes."""
    conditions: list[tuple[str, bool]] = []
    fixed: dict[str, Any] = {}
    for parameter, outcome in zip(toggles, outcomes, strict=True):
        if not isinstance(parameter.default, bool):
            conditions.append((f"{parameter.name} is None", outcome))
            if outcome:
                fixed[parameter.name] = None
        else:
            conditions.append((parameter.name, outcome))
            fixed[parameter.name] = outcome
    return tuple(conditions), fixed


def _drop_idle_conditions(cases: list[Case]) -> tuple[Case, ...]:
    """Leave out conditions that make no difference to the graph."""
    for i in reversed(range(len(cases[0].conditions))):
        merged: dict[Conditions, list[Case]] = {}
        for case in cases:
            merged.setdefault(case.conditions[:i] + case.conditions[i + 1 :], []).append(case)
        if all(len({str(case.graph) for case in group}) == 1 for group in merged.values()):
            cases = [Case(conditions, group[0].graph) for conditions, group in merged.items()]
    return tuple(cases)
