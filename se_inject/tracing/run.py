"""One run of a forward on stand-ins: the graph that it leaves, and where in the text each value was made."""

import functools
import sys
import types
import weakref
from typing import Any

import torch
from torch import fx, nn

from ..source.function_text import FunctionText, Span, text_of
from ..source.locations import where
from .attributes import Attributes, Items, Keywords
from .calls import effect, perform
from .contexts import Entered, may_suppress
from .environment import Environment
from .errors import UntraceableError
from .evaluation import Attr, Evaluation, Expression
from .instrument import expression_at, instrumented, is_instrumented
from .loops import Loops
from .methods import Methods
from .module_proxies import Shadows, is_shadow
from .questions import Questions
from .value_proxy import Value, node_of, unknown
from .ways import Paths

_MAX_DEPTH = 30  # of functions that call themselves

_CONSTANTS: tuple[type, ...] = (str, int, float, bool, complex, type(None), type(Ellipsis))
_CONSTANTS += (torch.dtype, torch.device, torch.layout, torch.memory_format)


class Run(Questions, Methods, Environment, Loops, fx.Tracer):
    """Answers what an instrumented forward asks, and notes what it does."""

    def __init__(self, block: nn.Module, state: dict[str, Any], paths: Paths, unsettled: set[Attr]) -> None:
        fx.Tracer.__init__(self)
        Methods.__init__(self, type(block))
        Environment.__init__(self)
        Loops.__init__(self)
        Questions.__init__(self)
        self.graph = fx.Graph()
        self.paths = paths
        self.shadows = Shadows(self, block, state)
        self.unsettled = unsettled  # attributes that the forward writes: what it reads first is anybody's guess
        self.reads: set[Attr] = set()
        self.writes: set[Attr] = set()
        self.is_partial = False  # whether there are ways that nobody walks: loops that go on, suppressed errors
        self.walked: set[str] = set()  # the modules below whose children are walked through
        self.evaluations: list[Evaluation] = []
        self.missing: list[AttributeError] = []  # of modules that lack an attribute: the forward would fail as well
        self.walks: set[Expression | None] = set()
        self.modes: dict[str, bool] = {}  # which modules it was taken to be in training
        self.is_doubtful = False  # whether this way was taken for completeness, and may not exist
        self.native = 0  # how deep in code that runs as it is: what it makes is no expression of the text
        self.silent = 0  # the same in builtins that call back
        self._is_on_block = True
        self._running: list[FunctionText] = []
        self._values: list[weakref.ref[Value]] = []
        self.package = type(block).__module__.partition(".")[0]

    # The graph

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """A value of the graph."""
        value = Value(node, self)
        self._values.append(weakref.ref(value))
        return value

    def mark_held(self) -> None:
        """Mark the values that attributes, containers and globals still hold now that the forward has ended."""
        for reference in self._values:
            if (value := reference()) is not None:
                value.node.meta["held"] = True

    def create_arg(self, a: Any) -> Any:
        """What stands in the graph for an argument of a call."""
        if isinstance(a, fx.Proxy):
            return a.node
        if isinstance(a, list | tuple):
            return (list if isinstance(a, list) else tuple)(map(self.create_arg, a))
        if isinstance(a, dict):
            return {str(key): self.create_arg(item) for key, item in dict.items(a)}
        if isinstance(a, slice):
            return slice(self.create_arg(a.start), self.create_arg(a.stop), self.create_arg(a.step))
        if isinstance(a, _CONSTANTS):
            return a
        if isinstance(a, torch.Tensor):
            return self.unknown().node
        held = vars(a) if hasattr(a, "__dict__") and not isinstance(a, nn.Module | type | types.FunctionType) else {}
        return tuple([item.node for item in held.values() if isinstance(item, Value)]) or type(a).__name__

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """A node, with the expression of the text that it is the value of."""
        node = super().create_node(*args, **kwargs)
        if self._running and not (self.native or self.silent) and node.target is not getattr:
            self._note(node, expression_at(sys._getframe(1)))
        return node

    def _note(
        self, node: fx.Node | None, place: tuple[FunctionText, Span] | None, arguments: tuple[Any, ...] = ()
    ) -> None:
        if place is None:
            return
        at = Expression(*place, self._is_on_block)
        names = tuple("" if (of := node_of(a)) is None else of.name for a in arguments)
        self.evaluations.append(Evaluation(at, None if node is None else node.name, names, self.turn_at(*place)))
        if node is not None and at not in (made_by := node.meta.setdefault("expressions", [])):
            made_by.append(at)

    def unknown(self) -> Value:
        """A value that does not depend on the inputs, of which nothing else is known."""
        return self.create_proxy("call_function", unknown, (), {})  # type: ignore[return-value]

    def symbol(self, name: str, *args: Any, **kwargs: Any) -> Value:
        """What a function of that name makes of its arguments."""

        def function() -> None:
            pass

        function.__name__ = function.__qualname__ = name if name.isidentifier() else "call"
        return self.create_proxy("call_function", function, args, kwargs)  # type: ignore[return-value]

    def opaque(self, name: str, why: str, *args: Any, **kwargs: Any) -> Value:
        """The same for a function into which nobody can look."""
        value = self.symbol(name, *args, **kwargs)
        value.node.meta["opaque"] = self.at(f"it calls {name}, into which se_inject cannot look ({why})")
        return value

    def tensor(self, path: str | None, name: str) -> Value:
        """The value of a tensor that a module holds."""
        if path is None:
            return self.unknown()
        return self.create_proxy("get_attr", f"{path}.{name}" if path else name, (), {})  # type: ignore[return-value]

    def forget(self, nodes: int, evaluations: int) -> None:
        """Take back what was noted since the graph had that many nodes."""
        for node in reversed(list(self.graph.nodes)[nodes:]):
            self.graph.erase_node(node)
        del self.evaluations[evaluations:]

    # Reasons

    def at(self, reason: str) -> str:
        """A reason with the file and the line that the forward is at."""
        place = expression_at(sys._getframe(1))
        return reason if place is None else f"{reason} ({where(place[0].filename, place[1][0])})"

    def refuse(self, reason: str) -> UntraceableError:
        """The error to raise."""
        return UntraceableError(self.at(reason))

    def note_walk(self, path: str | None) -> None:
        """Note whose children are walked through, of the block's own also where: a gate would be among them."""
        place = expression_at(sys._getframe(1))
        if path == "":
            self.walks.add(None if place is None else Expression(*place, self._is_on_block))
        elif path is not None:
            self.walked.add(path)

    # What the instrumented copy calls

    def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """The result of a call whose result is used."""
        result = perform(self, function, args, kwargs)
        self._note(node_of(result), expression_at(sys._getframe(1)), args)
        return result

    def effect(self, function: Any, /, *args: Any, **kwargs: Any) -> None:
        """A call that stands for its effect alone."""
        effect(self, function, args, kwargs)

    def load(self, owner: Any, name: str) -> Any:
        """An attribute."""
        return Attributes(self, owner)[name]

    def attributes(self, owner: Any) -> Attributes:
        """Attributes to set, change or delete."""
        return Attributes(self, owner, is_changed=True)

    def items(self, owner: Any) -> Items:
        """Items to get, set or delete."""
        return Items(self, owner)

    def places(self, owner: Any) -> Items:
        """Items to change in place."""
        return Items(self, owner, is_changed=True)

    def keywords(self, given: dict[str, Any]) -> dict[str, Any]:
        """The ``**kwargs`` of a function: those of the forward itself may hold anything."""
        caller = sys._getframe(1).f_back
        return given if caller is None or expression_at(caller) is not None else Keywords(self)

    def enter(self, context: Any) -> Any:
        """A context manager; what it suppresses opens ways that nobody walks."""
        self.is_partial |= may_suppress(context)
        return Entered(self, context)

    # Running functions

    def instrument(self, function: types.FunctionType, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a function does when an instrumented copy of it runs. Raises ``UntraceableError``."""
        if is_instrumented(function.__code__):
            return function(*args, **kwargs)
        text = text_of(function)
        if text is None:
            code = function.__code__
            raise self.refuse(
                f"the source of {function.__qualname__} is not available, or differs from the code that runs"
                f" ({where(code.co_filename, code.co_firstlineno)})"
            )
        if self._running.count(text) >= (1 if function.__name__ == "forward" else _MAX_DEPTH):
            return self.opaque(function.__name__, "it calls itself", *args, **kwargs)
        code = instrumented(text)
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        copy = types.FunctionType(
            code,
            self.globals_of(function, code),
            function.__name__,
            self.own(function.__defaults__),
            tuple(self.cell(cells[name]) for name in code.co_freevars),
        )
        copy.__kwdefaults__ = self.own(function.__kwdefaults__)
        before = self.native, self.silent, self._is_on_block
        self.native = self.silent = 0
        self._is_on_block = bool(args) and is_shadow(args[0]) and vars(args[0]).get("_se_path") == ""
        if self._is_on_block:
            self.reached.setdefault(text, set()).add(self._reach)
        self._running.append(text)
        try:
            return copy(*args, **kwargs)
        finally:
            self._running.pop()
            self.native, self.silent, self._is_on_block = before

    def perform(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of a call that is no expression of the text."""
        return perform(self, function, args, kwargs)

    def answering(self, value: Any) -> Any:
        """A function that code which is not instrumented may call: it is answered as any call of the forward's."""
        if not isinstance(value, types.FunctionType | types.MethodType | functools.partial):
            return value
        return lambda *args, **kwargs: self.perform(value, args, kwargs)

    def is_own_code(self, function: types.FunctionType) -> bool:
        """Whether a function belongs to the block's own package, not to a library that it uses."""
        return (function.__module__ or "").partition(".")[0] == self.package

    def call_shadow(self, shadow: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Note the call of a child."""
        path = vars(shadow)["_se_path"]
        if path:
            return self.create_proxy("call_module", path, args, kwargs)
        name = vars(shadow)["_se_class"].__name__
        if path is None:
            return self.opaque(name, "it is not among the block's children", *args, **kwargs)
        raise self.refuse(f"{name} calls itself")
