"""The layers right before each gate, as far as nothing else uses what they make."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import fx, nn

from ..gate.autograd import is_plain_call, is_plain_layer
from ..gate.marks import is_gate
from ..gate.record import Gated
from ..gate.squeeze_excitation import SqueezeExcitation
from ..graphs.layers import is_sequential
from ..graphs.operations import is_a, is_in_place
from ..tracing.capture import Capture, capture
from ..tracing.errors import UntraceableError
from .children import has_own_forward
from .nameable import nameable

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
        self._places = Counter(module for _, module in model.named_modules(remove_duplicate=False))
        self._owners: dict[nn.Module, tuple[nn.Module, Capture]] = {}
        self._calls: Counter[nn.Module] = Counter()  # in how many forwards a module is called, and how often in each
        self._refusals: dict[nn.Module, str] = {}
        self._asked: set[nn.Module] = set()  # whose classes make a difference
        for _, module in model.named_modules():
            if (has_own_forward(module) and not is_gate(module)) or isinstance(module, Gated):
                self._read(module)

    def _read(self, module: nn.Module) -> None:
        try:
            if type(module).__call__ is not nn.Module.__call__:
                raise UntraceableError("its class has a __call__ of its own")
            captured = capture(type(module), vars(module), module)
        except UntraceableError as error:
            self._refusals.update(dict.fromkeys(nameable(module), f"a forward around it cannot be followed: {error}"))
            return
        self._asked.update(module.get_submodule(path) for path in captured.asked if path)
        if "" in captured.asked:
            self._asked.update((module, *module.children()))
        calls: Counter[nn.Module] = Counter()
        for graph in captured.graphs:
            calls |= Counter(_called(node, module) for node in graph.nodes if node.op == "call_module")
        self._calls += calls
        self._owners.update(dict.fromkeys(calls, (module, captured)))

    def before(self, gate: nn.Module) -> Chain:
        """The chain of a gate."""
        if type(gate) is not SqueezeExcitation:
            return Chain(why=f"it is a {type(gate).__name__}")
        if not _is_plain(gate) or not (is_plain_layer(gate.fc1) and is_plain_layer(gate.fc2)):
            return Chain(why="it has hooks, computed weights, or other layers than 1x1 convolutions with bias")
        if gate in self._refusals or gate not in self._owners:
            return Chain(why=self._refusals.get(gate, "no forward that can be followed calls it"))
        owner, captured = self._owners[gate]
        if self._calls[gate] != 1 or self._places[gate] != 1:
            return Chain(why="it is called more than once")
        if captured.is_partial:
            return Chain(why="not every way through its block is known")
        if owner in self._asked or gate in self._asked:
            return Chain(why="a forward asks for its class, or that of its block")
        found: set[tuple[Layer, ...]] = set()
        without: set[nn.Module] = set()  # what runs on ways without the gate
        for graph in captured.graphs:
            calls = {_called(node, owner): node for node in graph.nodes if node.op == "call_module"}
            if gate in calls:
                found.add(tuple(self._layers(_only_argument(calls[gate]), owner)))
            else:
                without.update(layer for module in calls for layer in module.modules())
        if any(layer in without for layers in found for layer in layers):
            return Chain(why="what is before it also runs on ways without it")
        if not all(found):
            return Chain(why="what it gates is not made by a known layer alone")
        return Chain(frozenset(found))

    def _layers(self, node: object, owner: nn.Module) -> Iterator[Layer]:
        """The layers that make a value, the last one first, while each is used by the next one alone."""
        while isinstance(node, fx.Node) and len(node.users) == 1 and "held" not in node.meta:
            if any(is_a(kind, node) for kind in _MAKES_NEW) and not is_in_place(node) and "out" not in node.kwargs:
                yield "operation"
                return
            if node.op in ("call_function", "call_method") and _name(node) in _VIEWS:
                yield "view"
            elif node.op == "call_module" and _only_argument(node) is not None:
                module = _called(node, owner)
                inside = list(self._inside(module))
                yield from (layer for layer in inside if layer != "end")
                if "end" in inside:
                    return
            else:
                return
            node = node.args[0]

    def _inside(self, module: nn.Module, calls: int = 1) -> Iterator[Layer]:
        """The layers of a module, the last one first; "end" where it is not a chain of layers."""
        if not self._is_alone(module, calls):
            yield "end"
        elif is_sequential(module) and vars(nn.Sequential)["__iter__"] is getattr(type(module), "__iter__", None):
            for child in reversed(list(module.children())):
                yield from (inside := list(self._inside(child, calls=0)))  # but for the Sequential, nobody calls it
                if "end" in inside:
                    return
        elif type(module) in _PASSING:
            return
        elif not has_own_forward(module):
            yield module
        else:
            outputs = [node.args[0] for graph in self._graphs(module) for node in graph.nodes if node.op == "output"]
            ways = {tuple(self._layers(output, module)) for output in outputs}
            if len(ways) == 1:
                yield from next(iter(ways))
            if len(ways) != 1 or not all(map(self._passes_through, outputs)):
                yield "end"

    @staticmethod
    def _passes_through(node: object) -> bool:
        """Whether a value is a view of what a forward was given, and nothing else happens."""
        while isinstance(node, fx.Node) and node.op in ("call_function", "call_method") and _name(node) in _VIEWS:
            node = node.args[0]
        return isinstance(node, fx.Node) and node.op == "placeholder" and len(node.users) == 1

    def _graphs(self, module: nn.Module) -> list[fx.Graph]:
        try:
            return capture(type(module), vars(module), module).graphs
        except UntraceableError:
            return []

    def _is_alone(self, module: nn.Module, calls: int) -> bool:
        """Whether a module in eval mode is called from one place, and nothing else has to do with it."""
        is_apart = self._places[module] == 1 and module not in self._asked and module not in self._refusals
        return _is_plain(module) and is_apart and not module.training and self._calls[module] == calls


def _called(node: fx.Node, owner: nn.Module) -> nn.Module:
    return owner.get_submodule(str(node.target))


def _name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def _only_argument(node: fx.Node) -> object:
    """What a module is called with, if that is one value, without its name."""
    return node.args[0] if len(node.args) == 1 and not node.kwargs else None


def _is_plain(module: nn.Module) -> bool:
    is_call = type(module).__call__ is nn.Module.__call__ and is_plain_call(module)
    return is_call and not torch.nn.utils.parametrize.is_parametrized(module)
