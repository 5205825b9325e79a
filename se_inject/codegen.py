"""Python code of a forward with gates, from the graphs of the forward without."""

import copy
import functools
import linecache
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from torch import fx

from .errors import RewriteError
from .trace import Trace


@dataclass(frozen=True)
class Placement:
    """Where a graph gets a gate, by node names: ``users`` take the gated value instead of ``value``."""

    value: str
    users: tuple[str, ...]
    channels_last: bool = False


@dataclass(frozen=True)
class Insertion:
    """A gate by its name within the block, and its placement in the graph of each case of the forward."""

    gate: str
    placements: tuple[Placement, ...]


@dataclass(frozen=True)
class OutputGate:
    """A gate on what a module returns, by its name within the module; the module's forward stays as it is."""

    gate: str
    channels_last: bool = False


def insert(graph: fx.Graph, gate: str, placement: Placement, others: Collection[str]) -> None:
    """Put a call of child ``gate`` on a value of ``graph``, just before its first redirected use.

    Where a gate of ``others`` is on the value for the same users already, the new one follows it.
    """
    nodes = {node.name: node for node in graph.nodes}
    try:
        value, users = nodes[placement.value], [nodes[name] for name in placement.users]
    except KeyError as missing:
        raise RewriteError(f"its forward has no value {missing} any more; has its code changed?") from missing
    while not set(users) & set(value.users):
        gates = [user for user in value.users if user.op == "call_module" and user.target in others]
        if not gates:
            raise RewriteError(f"its forward no longer uses {value} where the gate was; has its code changed?")
        value = gates[0]
    # As late as possible: the value may be changed in place between its origin and that use.
    with graph.inserting_before(next(node for node in value.users if node in users)):
        source = graph.call_method("movedim", (value, -1, 1)) if placement.channels_last else value
        gated = graph.call_module(gate, (source,))
        if placement.channels_last:
            gated = graph.call_method("movedim", (gated, 1, -1))
    for user in users:
        user.replace_input_with(value, gated)


def gated_code(graph: fx.Graph, insertions: Iterable[Insertion], case: int) -> Any:
    """The code of one case of a forward, with its gates."""
    graph = copy.deepcopy(graph)
    insertions = tuple(insertions)
    names = {insertion.gate for insertion in insertions}
    for insertion in insertions:
        insert(graph, insertion.gate, insertion.placements[case], names)
    return graph.python_code("self")


def dispatch(trace: Trace, forwards: list[Callable[..., Any]]) -> Callable[..., Any]:
    """One forward that picks the case by its conditions."""
    cases = trace.cases
    placeholders = [node for node in cases[0].graph.nodes if node.op == "placeholder"]
    names = [str(node.target) for node in placeholders]
    namespace: dict[str, Any] = {f"_case_{i}": forward for i, forward in enumerate(forwards)}
    namespace |= {f"_default_{node.target}": node.args[0] for node in placeholders if node.args}
    declared = [f"{name}=_default_{name}" if f"_default_{name}" in namespace else name for name in names]
    lines = [f"def forward(self, {', '.join(declared)}):"]
    for flag in trace.flags:
        lines += [
            f"    if {flag} is not True and {flag} is not False:",
            f"        raise TypeError('{flag} must be True or False: the forward with gates has a case for each')",
        ]
    for i, case in enumerate(cases):
        condition = " and ".join(text if outcome else f"not ({text})" for text, outcome in case.conditions)
        # One of the cases holds, so the last needs no condition.
        branch = f"{'el' * (i > 0)}if {condition}" if i < len(cases) - 1 else "else"
        lines += [f"    {branch}:", f"        return _case_{i}(self, {', '.join(names)})"]
    return function("forward", "\n".join(lines) + "\n", namespace)


def function(name: str, source: str, namespace: dict[str, Any]) -> Callable[..., Any]:
    """The function of that name in ``source``, which finds its globals in ``namespace``."""
    # Under linecache the source shows in tracebacks, debuggers and inspect.getsource.
    filename = f"<se_inject {abs(hash(source)):x}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    exec(compile(source, filename, "exec"), namespace)  # code that fx generated from the block's own forward
    function: Callable[..., Any] = namespace[name]
    return function


def with_output_gate(forward: Callable[..., Any], output: OutputGate) -> Callable[..., Any]:
    """A forward whose result passes a gate."""
    source = (
        "def forward(self, *args, **kwargs):\n"
        f"    return self.{output.gate}(_forward(self, *args, **kwargs){'.movedim(-1, 1)' * output.channels_last})"
        f"{'.movedim(1, -1)' * output.channels_last}\n"
    )
    return functools.wraps(forward)(function("forward", source, {"_forward": forward}))
