"""What the children of a block do inside, read off the graphs of their forwards."""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import fx, nn

from ..gate.marks import is_gate, own_modules
from ..gate.record import originally
from ..graphs.dataflow import Flow
from ..graphs.inlining import expanded
from ..graphs.layers import is_conv, is_sequential
from ..graphs.mutation import changes_input, keeps_memory
from ..graphs.traced import is_traced, ungated, whole_graphs
from ..tracing.cache import Fingerprints
from ..tracing.capture import Capture, capture
from ..tracing.errors import UntraceableError
from .adapters import adapted
from .existing_gates import has_gate
from .rules.joins import joins
from .site import PAPERS_KINDS

Answer = TypeVar("Answer")


def _asked_once(method: Callable[[Any, nn.Module], Answer]) -> Callable[[Any, nn.Module], Answer]:
    """Keep the answers of a method, by module: blocks in blocks in blocks would ask again and again."""

    @functools.wraps(method)
    def ask(self: Any, module: nn.Module) -> Answer:
        key = method.__name__, module
        if key not in self._answers:
            self._answers[key] = method(self, module)
        return self._answers[key]  # type: ignore[no-any-return]

    return ask


@dataclass
class Children:
    """Answers questions about modules; each kind of module is traced once."""

    fingerprints: Fingerprints = field(default_factory=Fingerprints)
    _captures: dict[int, Capture | UntraceableError] = field(default_factory=dict)
    _answers: dict[tuple[str, nn.Module], Any] = field(default_factory=dict)

    @_asked_once
    def _flows(self, module: nn.Module) -> list[Flow]:
        return [Flow(graph, module, self.depth_of, self.starts_in_place) for graph in self.graphs_of(module)]

    def flow(self, graph: fx.Graph, owner: nn.Module) -> Flow:
        """A graph with what its children do; those that return several values are looked into."""
        return Flow(expanded(graph, owner, self.graphs_of), owner, self.depth_of, self.starts_in_place)

    @_asked_once
    def has_own_gate(self, module: nn.Module) -> bool:
        """Whether a child is a channel gate or holds one that is not the gate of a block inside the child."""
        if is_gate(module):
            return True
        if not has_own_forward(module):
            children = originally(module)[1]["_modules"].values()  # without a gate of ours on its output
            return any(self.has_own_gate(child) for child in children if child is not None)
        for graph in self.graphs_of(module):
            flow = self.flow(graph, module)
            if any(candidate.value is not None for candidate in joins(flow, leaves_block, PAPERS_KINDS, "standard")):
                return False
            if has_gate(flow, flow.everything, self):
                return True
        return False

    @_asked_once
    def is_unreadable(self, module: nn.Module) -> str | None:
        """Why nobody can tell what a child does, if its forward or that of a module in it cannot be followed."""
        if is_gate(module) or not any(True for _ in module.parameters()):
            return None
        if has_own_forward(module) and not is_traced(module):
            captured = self._captured(module)
            if isinstance(captured, UntraceableError):
                return str(captured)
        return next(filter(None, map(self.is_unreadable, module.children())), None)

    @_asked_once
    def depth_of(self, module: nn.Module) -> int:
        """How many convolutions a child runs, one after the other."""
        base = adapted(module)
        if base is not None:
            return self.depth_of(base)
        if is_conv(module):
            return 1
        if is_sequential(module):
            return sum(map(self.depth_of, module.children()))
        if not is_traced(module) and not any(map(is_conv, own_modules(module))):
            return 0
        flows = self._flows(module)
        if not flows:  # it cannot be traced
            return sum(map(is_conv, own_modules(module)))
        return max(flow.conv_depth(flow.everything) for flow in flows)

    @_asked_once
    def starts_in_place(self, module: nn.Module) -> bool:
        """Whether a child changes its input."""
        if not module._modules and not has_own_forward(module):
            return bool(getattr(module, "inplace", False))
        if is_sequential(module):
            changing = (child for child in module.children() if not keeps_memory(child))
            return any(map(self.starts_in_place, itertools.islice(changing, 1)))
        flows = self._flows(module)
        if not flows:  # it cannot be traced
            return any(getattr(m, "inplace", False) for m in own_modules(module))
        return any(map(changes_input, flows))

    @_asked_once
    def squeezes(self, module: nn.Module) -> bool:
        """Whether a child averages over all positions anywhere inside."""
        if not has_own_forward(module):
            return any(map(self.squeezes, module.children()))
        flows = self._flows(module)
        return any(
            flow.squeezes(node) or ((child := flow.module(node)) is not None and self.squeezes(child))
            for flow in flows
            for node in flow.nodes
        )

    @_asked_once
    def graphs_of(self, module: nn.Module) -> list[fx.Graph]:
        """The graphs of a module's forward without our gates; empty where it cannot be traced."""
        if is_traced(module):
            return [ungated(graph, module) for graph in whole_graphs(module)]
        try:
            return self.capture(module).graphs
        except UntraceableError:
            return []

    def capture(self, module: nn.Module) -> Capture:
        """All ways through a module's forward, without our gates. Raises ``UntraceableError``."""
        captured = self._captured(module)
        if isinstance(captured, UntraceableError):
            raise captured
        return captured

    @_asked_once
    def _captured(self, module: nn.Module) -> Capture | UntraceableError:
        cls, state = originally(module)
        key = self.fingerprints.of(cls, state)
        if key not in self._captures:
            try:
                self._captures[key] = capture(cls, state, module)
            except UntraceableError as error:
                self._captures[key] = error
        return self._captures[key]


def has_own_forward(module: nn.Module) -> bool:
    """Whether a module's forward is more than that of a layer or container of torch."""
    forward = getattr(type(module), "forward", None)  # a scripted module's class has none
    return forward is not None and not (getattr(forward, "__module__", None) or "").startswith("torch.nn.")


def leaves_block(node: fx.Node) -> bool:
    """Whether a block returns a value."""
    return any(user.op == "output" for user in node.users)
