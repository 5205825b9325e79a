"""Which forward of a model calls which module, read once for the whole model."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import fx, nn

from ..gate.autograd import is_plain_call, is_plain_layer
from ..gate.record import Gated
from ..gate.squeeze_excitation import SqueezeExcitation
from ..graphs.layers import flatten, is_sequential
from ..graphs.operations import SHAPE_ATTRIBUTES, argument, is_a, op_name
from ..tracing.cache import Fingerprints
from ..tracing.capture import Capture, capture
from ..tracing.errors import UntraceableError
from ..tracing.module_proxies import MODULE_INTERNALS
from .children import has_own_forward
from .nameable import nameable


class Weight(NamedTuple):
    """A parameter or a buffer, by its module and its name there."""

    module: nn.Module
    name: str


class GateCall(NamedTuple):
    """The module whose forward calls a gate, and each way through it with the gate's node, None where it has none."""

    owner: nn.Module
    ways: tuple[tuple[fx.Graph, fx.Node | None], ...]


class Callers:
    """The forwards of one model, and what they call."""

    def __init__(self, model: nn.Module) -> None:
        self._places = Counter(module for _, module in model.named_modules(remove_duplicate=False))
        self._owners: dict[nn.Module, nn.Module] = {}
        self._captures: dict[nn.Module, Capture] = {}
        self._calls: Counter[nn.Module] = Counter()  # in how many forwards a module is called, and how often in each
        self._refusals: dict[nn.Module, str] = {}
        self._asked: set[nn.Module] = set()  # whose classes make a difference
        self._readers: dict[Weight, set[nn.Module]] = {}
        self._fingerprints = Fingerprints()
        self._of_layers: dict[int, Capture] = {}
        for _, module in model.named_modules():
            # Forwards that iterate over a Sequential do not call it.
            is_run = is_sequential(module) and (module is model or self._calls[module] > 0)
            is_authors = has_own_forward(module) and not isinstance(module, SqueezeExcitation)
            if is_run or is_authors or isinstance(module, Gated):
                self._read(module)

    def _read(self, module: nn.Module) -> None:
        try:
            if type(module).__call__ is not nn.Module.__call__:
                raise UntraceableError("its class has a __call__ of its own")
            captured = capture(type(module), vars(module), module)
        except UntraceableError as error:
            why = f"a forward around it cannot be followed: {error}"
            self._refusals.update(dict.fromkeys((*nameable(module), *_unregistered(module)), why))
            return
        self._asked.update(module.get_submodule(path) for path in captured.asked if path)
        if "" in captured.asked:
            self._asked.update((module, *module.children()))
        calls: Counter[nn.Module] = Counter()
        for graph in captured.graphs:
            calls |= Counter(called(node, module) for node in graph.nodes if node.op == "call_module")
        self._calls += calls
        self._owners.update(dict.fromkeys(calls, module))
        self._captures[module] = captured
        names = {op_name(node) for graph in captured.graphs for node in graph.nodes}
        strangers = [other for other in _unregistered(module) if type(other).__name__ in names]
        self._refusals.update(dict.fromkeys(strangers, f"a {type(module).__name__} calls it, whose child it is not"))
        for graph in captured.graphs:
            for weight in filter(None, (weight_of(node, module) for node in graph.nodes)):
                self._readers.setdefault(weight, set()).add(module)

    def call_of(self, gate: nn.Module) -> GateCall | str:
        """The only call of a gate, or why nothing can be said about it."""
        if type(gate) is not SqueezeExcitation:
            return f"it is a {type(gate).__name__}, whose formula may be another one"
        if not is_plain(gate) or not (is_plain_layer(gate.fc1) and is_plain_layer(gate.fc2)):
            return "it has hooks, computed weights, or other layers than 1x1 convolutions with bias"
        if gate in self._refusals or gate not in self._owners:
            return self._refusals.get(gate, "no forward that can be followed calls it")
        if self._calls[gate] != 1 or self._places[gate] != 1:
            return "it is called more than once"
        owner = self._owners[gate]
        captured = self._captures[owner]
        if captured.is_partial:
            return "not every way through its block is known"
        nodes = [{called(node, owner): node for node in calls_in(graph)} for graph in captured.graphs]
        return GateCall(owner, tuple(zip(captured.graphs, [of.get(gate) for of in nodes], strict=True)))

    def capture(self, module: nn.Module) -> Capture:
        """All ways through the forward of a module, of a layer of torch, too. Raises ``UntraceableError``."""
        if module not in self._captures:
            key = self._fingerprints.of(type(module), vars(module))
            if key not in self._of_layers:
                self._of_layers[key] = capture(type(module), vars(module), module)
            self._captures[module] = self._of_layers[key]
        return self._captures[module]

    def readers(self, weight: "Weight") -> set[nn.Module]:
        """The modules whose forwards read the values of a weight themselves."""
        return self._readers.get(weight, set())

    def is_alone(self, module: nn.Module) -> bool:
        """Whether a module is called from one place, and nothing else has to do with it."""
        is_once = self._places[module] == 1 and self._calls[module] == 1
        return is_plain(module) and is_once and module not in self._refusals

    def is_called(self, module: nn.Module) -> bool:
        """Whether a module is called, or may be."""
        return self._calls[module] > 0 or module in self._refusals or self._places[module] > 1

    def is_asked(self, module: nn.Module) -> bool:
        """Whether the class of a module makes a difference to a forward."""
        return module in self._asked


def _unregistered(module: nn.Module) -> Iterator[nn.Module]:
    """The modules that a module holds in attributes, in lists, for one, and that are not its children."""
    for value in [value for name, value in vars(module).items() if name not in MODULE_INTERNALS]:
        for held in value.values() if isinstance(value, dict) else flatten(value):
            if isinstance(held, nn.Module):
                yield from held.modules()


def calls_in(graph: fx.Graph) -> list[fx.Node]:
    """The calls of modules in a graph."""
    return [node for node in graph.nodes if node.op == "call_module"]


def called(node: fx.Node, owner: nn.Module) -> nn.Module:
    """The module that a node of its owner's forward calls."""
    return owner.get_submodule(str(node.target))


def weight_of(node: fx.Node, owner: nn.Module) -> Weight | None:
    """The weight whose values a node of its owner's forward reads."""
    if node.op != "get_attr" or all(reads_shape(user, node) for user in node.users):
        return None
    path, _, name = str(node.target).rpartition(".")
    return Weight(owner.get_submodule(path), name)


def reads_shape(user: fx.Node, value: fx.Node) -> bool:
    """Whether a user of a value reads its shape or the like, not its numbers."""
    is_attribute = op_name(user) == "getattr" and user.args[1] in SHAPE_ATTRIBUTES
    is_about_shape = is_attribute or op_name(user) == "len" or is_a("shape", user)
    return is_about_shape and inputs_of(user).count(value) == 1 and argument(user, 0, "input") is value


def inputs_of(node: fx.Node) -> list[fx.Node]:
    """The values that a node uses, as often as it uses them."""
    found: list[fx.Node] = []
    fx.node.map_arg((node.args, node.kwargs), found.append)
    return found


def only_argument(node: fx.Node) -> object:
    """What a module is called with, if that is one value, without its name."""
    return node.args[0] if len(node.args) == 1 and not node.kwargs else None


def is_plain(module: nn.Module) -> bool:
    """Whether calling a module is its class's forward on its own weights, and no more.

    >>> is_plain(nn.Conv2d(3, 8, 1)), is_plain(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 1)))
    (True, False)
    """
    is_call = type(module).__call__ is nn.Module.__call__ and is_plain_call(module)
    return is_call and not torch.nn.utils.parametrize.is_parametrized(module)
