"""The layers right before each gate, as far as nothing else uses what they make."""

from collections.abc import Iterator
from typing import NamedTuple

from torch import fx, nn

from ..graphs.layers import is_sequential
from ..graphs.operations import is_a, is_in_place
from ..tracing.errors import UntraceableError
from .callers import Callers, called, calls_in, only_argument
from .children import has_own_forward

Layer = nn.Module | str  # "operation" that makes a new tensor, or "view" of what the next one makes
_MAKES_NEW = ("concat", "add", "subtract", "multiply", "divide", "convolution", "linear", "norm", "activation")
_VIEWS = frozenset({"permute", "transpose", "contiguous", "movedim"})
_PASSING = frozenset({nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d})  # in eval mode


class Chain(NamedTuple):
    """The layers before a gate, the last one first, on each way; without any, ``why`` tells."""

    ways: frozenset[tuple[Layer, ...]] = frozenset()
    why: str = ""


class Chains:
    """The chains of one model in eval mode."""

    def __init__(self, model: nn.Module) -> None:
        self._callers = Callers(model)

    def before(self, gate: nn.Module) -> Chain:
        """The chain of a gate."""
        call = self._callers.call_of(gate)
        if isinstance(call, str):
            return Chain(why=call)
        owner = call.owner
        if self._callers.is_asked(owner) or self._callers.is_asked(gate):
            return Chain(why="a forward asks for its class, or that of its block")
        found: set[tuple[Layer, ...]] = set()
        without: set[nn.Module] = set()  # what runs on ways without the gate
        for graph, node in call.ways:
            if node is not None:
                layers = self._layers(only_argument(node), owner)
                found.add(tuple(layer for layer in layers if layer != "input"))
            else:
                without.update(layer for other in calls_in(graph) for layer in called(other, owner).modules())
        if any(layer in without for layers in found for layer in layers):
            return Chain(why="what is before it also runs on ways without it")
        if not all(found):
            return Chain(why="what it gates is not made by a known layer alone")
        return Chain(frozenset(found))

    def _layers(self, node: object, owner: nn.Module) -> Iterator[Layer]:
        """The layers that make a value, the last one first, while each is used by the next one alone.

        At the end, "input" if that is all that happens to what the forward is given.
        """
        while isinstance(node, fx.Node) and len(node.users) == 1 and "held" not in node.meta:
            if any(is_a(kind, node) for kind in _MAKES_NEW) and not is_in_place(node) and "out" not in node.kwargs:
                yield "operation"
                return
            if node.op == "placeholder":
                yield "input"
                return
            if node.op in ("call_function", "call_method") and _name(node) in _VIEWS:
                yield "view"
            elif node.op == "call_module" and only_argument(node) is not None:
                inside = list(self._inside(called(node, owner)))
                yield from (layer for layer in inside if layer != "end")
                if "end" in inside:
                    return
            else:
                return
            node = node.args[0]

    def _inside(self, module: nn.Module) -> Iterator[Layer]:
        """The layers of a module, the last one first; "end" where it is not a chain of layers."""
        if not self._is_alone(module):
            yield "end"
        elif type(module) in _PASSING:
            return
        elif not (has_own_forward(module) or is_sequential(module)):
            yield module
        else:
            outputs = [node.args[0] for graph in self._graphs(module) for node in graph.nodes if node.op == "output"]
            ways = {tuple(self._layers(output, module)) for output in outputs}
            way = ways.pop() if len(ways) == 1 else ()
            yield from (layer for layer in way if layer != "input")
            if "input" not in way:
                yield "end"

    def _graphs(self, module: nn.Module) -> list[fx.Graph]:
        try:
            return self._callers.capture(module).graphs
        except UntraceableError:
            return []

    def _is_alone(self, module: nn.Module) -> bool:
        """Whether a module in eval mode is called from one place, and nothing else has to do with it."""
        return self._callers.is_alone(module) and not self._callers.is_asked(module) and not module.training


def _name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
