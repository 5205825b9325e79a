"""The weights that take a factor on what a gate is given, a power of 2, while every other value stays what it is."""

import inspect
from collections.abc import Callable, Collection, Iterable
from typing import Any, Literal, NamedTuple, TypeVar

from torch import fx, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from ..gate.marks import is_gate
from ..graphs.operations import argument, op_name
from ..graphs.scaling import ways_to_scale
from ..source.locations import where
from ..tracing.errors import UntraceableError
from .callers import (
    Callers,
    GateCall,
    Weight,
    called,
    calls_in,
    inputs_of,
    is_plain,
    only_argument,
    reads_shape,
    weight_of,
)
from .children import has_own_forward

Item = TypeVar("Item")
Preference = Literal["first", "last"]


# Their other argument, the size of the output, takes a loop that cannot be followed.
_TRANSPOSED = (nn.ConvTranspose1d.forward, nn.ConvTranspose2d.forward, nn.ConvTranspose3d.forward)


class NoPlaceError(Exception):
    """There is no place for a factor; the text says why."""


class Inside(NamedTuple):
    """What takes a factor on the result of a module: weights in it, and arguments of its forward, by name."""

    weights: frozenset[Weight]
    inputs: frozenset[str]


class Factors:
    """Where factors can go in one model, in eval mode and in training."""

    def __init__(self, model: nn.Module) -> None:
        self.callers = Callers(model)
        self._names = {module: path for path, module in model.named_modules()}
        self._inside: dict[nn.Module, Inside] = {}

    def before(self, gate: nn.Module) -> frozenset[Weight]:
        """The weights that take a factor on what a gate is given, and on nothing else. Raises ``NoPlaceError``."""
        call = self.callers.call_of(gate)
        if isinstance(call, str):
            raise NoPlaceError(call)
        return _first_that_works(lambda prefer: self._before(call, prefer))

    def _before(self, call: GateCall, prefer: Preference) -> frozenset[Weight]:
        regions = [_Region(graph, call.owner, self, prefer) for graph, _ in call.ways]
        for region, (_, node) in zip(regions, call.ways, strict=True):
            if node is not None:
                region.grow(only_argument(node), node)
            if region.inputs:
                raise NoPlaceError(
                    f"it gates the input of {self.shown(call.owner)}, or what is made of it without weights"
                )
        weights = _agreed(region.weights for region in regions if region.ends)
        for region in regions:
            region.check(weights)
        return weights

    def inside(self, module: nn.Module) -> Inside:
        """What takes a factor on the result of a module. Raises ``NoPlaceError``."""
        if module not in self._inside:
            self._inside[module] = _first_that_works(lambda prefer: self._look_inside(module, prefer))
        return self._inside[module]

    def _look_inside(self, module: nn.Module, prefer: Preference) -> Inside:
        if is_gate(module):
            raise NoPlaceError(f"it follows another gate, {self.shown(module)}")
        if not is_plain(module):
            raise NoPlaceError(f"{self.shown(module)} has hooks, a __call__ of its own, or weights that are computed")
        if type(module).forward in _TRANSPOSED:
            return self._inside_transposed(module)
        try:
            captured = self.callers.capture(module)
        except UntraceableError as error:
            raise NoPlaceError(f"the forward of {self.shown(module)} cannot be followed: {error}") from error
        if captured.is_partial:
            raise NoPlaceError(f"not every way through the forward of {self.shown(module)} is known")
        regions = [_Region(graph, module, self, prefer) for graph in captured.graphs]
        for region in regions:
            output = region.graph.output_node()
            if isinstance(output.args[0], tuple | list | dict):
                raise NoPlaceError(f"{self.shown(module)} returns several values")
            region.grow(output.args[0], output)
        inside = Inside(_agreed(r.weights for r in regions), _agreed(r.inputs for r in regions))
        for region in regions:
            region.check(inside.weights)
        if inside.weights:
            self._check_alone(module)
        return inside

    def _inside_transposed(self, module: nn.Module) -> Inside:
        weights = frozenset(Weight(module, name) for name, weight in module._parameters.items() if weight is not None)
        if any(map(self.callers.readers, weights)):
            raise NoPlaceError(f"the weights of {self.shown(module)} serve others, too")
        self._check_alone(module)
        return Inside(weights, frozenset())

    def _check_alone(self, module: nn.Module) -> None:
        if not self.callers.is_alone(module):
            raise NoPlaceError(f"{self.shown(module)} serves others, too: it is called, or held, in several places")

    def shown(self, module: nn.Module) -> str:
        """A module's class and its path."""
        path = self._names.get(module)
        return f"{type(module).__name__} ({path})" if path else type(module).__name__


class _Region:
    """The values of one graph that have a factor, from the weights that take it to where it ends."""

    def __init__(self, graph: fx.Graph, owner: nn.Module, factors: Factors, prefer: Preference) -> None:
        self.graph = graph
        self.weights: set[Weight] = set()
        self.inputs: set[str] = set()
        self.ends: set[fx.Node] = set()
        self._owner = owner
        self._factors = factors
        self._prefer = prefer
        self._sources: dict[fx.Node, list[Any]] = {}  # what each value has its factor from

    def grow(self, value: object, end: fx.Node) -> None:
        """Give a value the factor, which ends at its user ``end``. Raises ``NoPlaceError``."""
        self.ends.add(end)
        self._scale(value)

    def _scale(self, value: object) -> None:
        if not isinstance(value, fx.Node):
            if value == 0:
                return
            raise NoPlaceError(f"it is made with {value!r}, which is no weight")
        if value in self._sources:
            return
        if "held" in value.meta and value.op != "get_attr":
            raise NoPlaceError(f"what {self._shown(value)} makes is kept elsewhere, too")
        errors = []
        for sources in self._ways_to_scale(value):
            before = dict(self._sources), set(self.weights), set(self.inputs)
            self._sources[value] = sources
            try:
                for source in sources:
                    self._scale(source)
                return
            except NoPlaceError as error:
                errors.append(error)
                self._sources, self.weights, self.inputs = before
        raise errors[0] if errors else NoPlaceError(f"{self._shown(value)} does not pass on a factor of 2")

    def _ways_to_scale(self, node: fx.Node) -> list[list[Any]]:
        """The inputs that must have the factor for a value to have it; notes the weights and inputs that take it."""
        if node.op == "placeholder":
            self.inputs.add(str(node.target))
            return [[]]
        if node.op == "get_attr":
            self.weights.add(self._weight(node))
            return [[]]
        if node.op == "call_module":
            module = called(node, self._owner)
            inside = self._factors.inside(module)
            self.weights |= inside.weights
            return [[_handed(node, module, name) for name in inside.inputs]]
        ways = ways_to_scale(node)
        if self._prefer == "last":
            ways.reverse()
        return [way for way in ways if any(source in self._sources for source in way)] or ways

    def _weight(self, node: fx.Node) -> Weight:
        weight = weight_of(node, self._owner)
        if weight is None:
            raise NoPlaceError(f"{node.target} is read for its shape only")
        module, name = weight
        is_saved = name in module._parameters or name in module._buffers.keys() - module._non_persistent_buffers_set
        if not is_saved or is_parametrized(module) or isinstance(module, ParametrizationList):
            raise NoPlaceError(f"{node.target} is computed, or not in the state dict")
        is_called = module is not self._owner and self._factors.callers.is_called(module)
        if is_called or self._factors.callers.readers(weight) - {self._owner}:
            raise NoPlaceError(f"{name} of {self._factors.shown(module)} serves others, too")
        return weight

    def check(self, weights: Collection[Weight]) -> None:
        """Check that nothing but these weights, and nothing that is used elsewhere, has the factor."""
        modules = {weight.module for weight in weights}
        for node in self.graph.nodes:
            if node in self._sources:
                for user in node.users.keys() - self.ends:
                    is_accounted_for = inputs_of(user).count(node) == self._sources.get(user, []).count(node)
                    if not (is_accounted_for or reads_shape(user, node)):
                        raise NoPlaceError(f"what {self._shown(node)} makes is used elsewhere, too")
            elif weight_of(node, self._owner) in weights:
                raise NoPlaceError(f"{node.target} of {self._factors.shown(self._owner)} is used elsewhere, too")
        for node in calls_in(self.graph):
            if node not in self._sources and not modules.isdisjoint(called(node, self._owner).modules()):
                raise NoPlaceError(f"{self._shown(node)} serves others, too, or runs on ways without the gate")

    def _shown(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return self._factors.shown(called(node, self._owner))
        if not has_own_forward(self._owner):
            return self._factors.shown(self._owner)  # a layer of torch
        places = [where(e.text.filename, e.span[0]) for e in node.meta.get("expressions", ())]
        name = op_name(node) or str(node.target)
        return f"{name} ({places[0]})" if places else f"{name} in {self._factors.shown(self._owner)}"


def _first_that_works(attempt: Callable[[Preference], Item]) -> Item:
    """A product takes its factor at either side: the one next to the gate, unless some way does without that one."""
    try:
        return attempt("first")
    except NoPlaceError as error:
        try:
            return attempt("last")
        except NoPlaceError:
            raise error from None


def _agreed(found: Iterable[set[Item]]) -> frozenset[Item]:
    kinds = set(map(frozenset, found))
    if len(kinds) != 1:
        raise NoPlaceError("what makes the value that it gates differs between the ways through the forward")
    return kinds.pop()


def _handed(call: fx.Node, module: nn.Module, name: str) -> object:
    """What a call of a module hands to the argument ``name`` of its forward."""
    everything = (*call.args, *call.kwargs.values())
    if len(everything) == 1:
        return everything[0]
    names = list(inspect.signature(type(module).forward).parameters)[1:]
    return argument(call, names.index(name), name) if name in names else None
