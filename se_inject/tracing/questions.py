"""Questions that leave no mark on a value: where only a real input could answer, each answer is explored."""

import copy
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from .errors import InfeasiblePath, UntraceableError
from .module_proxies import CONTAINERS, Shadows, is_shadow
from .value_proxy import Value, unknown
from .ways import Paths


class Questions:
    """The part of a run that answers them."""

    paths: Paths
    shadows: Shadows
    native: int
    is_doubtful: bool
    refuse: Callable[[str], UntraceableError]
    own: Callable[[Any], Any]
    symbol: Callable[..., Value]
    stop = UntraceableError, InfeasiblePath  # what handlers of the forward's own let pass

    def __init__(self) -> None:
        self.asked: set[str] = set()  # the modules whose class makes a difference
        self.classes: dict[type, set[str]] = {}  # of modules of the block, by those who were asked for them
        self._constants: dict[str, Any] = {}  # what values were found to be equal to
        self._kinds: dict[fx.Node, tuple[type, ...]] = {}  # and to be instances of
        self._tried = 0

    def to_bool(self, value: fx.Proxy) -> bool:
        """Where a branch goes."""
        if self.native:
            raise self.refuse("library code branches on a value that is known only at run time")
        node = value.node
        if node.target in (operator.eq, operator.ne) and not isinstance(node.args[1], fx.Node):
            subject, constant = node.args
            return self._equals(str(subject), constant) == (node.target is operator.eq)
        return self.paths.choose(f"truth of {node.name}")

    def _equals(self, subject: str, constant: Any) -> bool:
        """Whether a value is a constant: it can be but one of those that it is compared with."""
        if subject in self._constants:
            return bool(self._constants[subject] == constant)
        answer = self.paths.choose(f"{subject} == {constant!r}")
        if answer:
            self._constants[subject] = constant
        return answer

    def is_(self, a: Any, b: Any) -> bool:
        """``a is b``."""
        self.note_classes(a, b)
        if a is b or not (isinstance(a, Value) or isinstance(b, Value)):
            return a is b
        value, other = (a, b) if isinstance(a, Value) else (b, a)
        if isinstance(other, Value):
            return value.node is other.node or self.paths.choose(f"{value.node} is {other.node}", first=False)
        if other is None and _is_computed(value.node):
            return False
        return self.paths.choose(f"{value.node} is {_told(other)}", first=False)

    def is_not(self, a: Any, b: Any) -> bool:
        """``a is not b``."""
        return not self.is_(a, b)

    def in_(self, a: Any, b: Any) -> bool:
        """``a in b``."""
        self.note_classes(a)
        if isinstance(b, Value):
            return self.paths.choose(f"{_told(a)} in {b.node}")
        if isinstance(a, Value):
            return self.paths.choose(f"{a.node} in {_told(b)}")
        return a in b

    def not_in(self, a: Any, b: Any) -> bool:
        """``a not in b``."""
        return not self.in_(a, b)

    def equals(self, a: Any, b: Any) -> Any:
        """``a == b``."""
        self.note_classes(a, b)
        return a == b

    def differs(self, a: Any, b: Any) -> Any:
        """``a != b``."""
        self.note_classes(a, b)
        return a != b

    def is_instance(self, value: Any, classes: Any) -> bool:
        """``isinstance(value, classes)``."""
        kinds = classes if isinstance(classes, tuple) else (classes,)
        self.note_classes(*kinds)
        if not isinstance(value, Value):
            return isinstance(value, classes)
        types = tuple(kind for kind in kinds if isinstance(kind, type))
        if value.node in self._kinds:
            return any(issubclass(kind, types) for kind in self._kinds[value.node])
        is_tensor = any(issubclass(torch.Tensor, kind) for kind in types)
        names = sorted(getattr(kind, "__name__", str(kind)) for kind in kinds)
        # Layers of one class return one kind of thing.
        about = f"what {kind} returns" if (kind := self.shadows.class_at(value.node)) else f"{value.node}"
        answer = self.paths.choose(f"{about} is an instance of {names}", first=is_tensor)
        if answer:
            self._kinds[value.node] = types
        return answer

    def class_of(self, value: Any) -> Any:
        """``type(value)``."""
        if isinstance(value, Value):
            return self.symbol("type", value)
        if not is_shadow(value):
            return type(value)
        cls = vars(value).get("_se_class", type(value))
        if vars(value).get("_se_path") is not None:
            self.classes.setdefault(cls, set()).add(vars(value)["_se_path"])
        return cls

    def note_classes(self, *values: Any) -> None:
        """Note where what a class is, and not only what it has, makes a difference: a gate changes classes."""
        for value in values:
            if isinstance(value, type) and value in self.classes:
                self.asked |= self.classes[value]

    def text(self, *parts: Any) -> Any:
        """An f-string."""
        held = [part[0] for part in parts if isinstance(part, tuple)]
        if self.note_text(*held):
            return self.symbol("text", *[value for value in held if isinstance(value, Value)])
        convert: dict[int, Callable[[Any], Any]] = {-1: lambda v: v, 115: str, 114: repr, 97: ascii}
        return "".join(p if isinstance(p, str) else format(convert[p[1]](p[0]), p[2]) for p in parts)

    def percent(self, template: str, values: Any) -> Any:
        """``template % values``."""
        held = values if isinstance(values, tuple) else (values,)
        if self.note_text(*held):
            return self.symbol("text", *[value for value in held if isinstance(value, Value)])
        return template % values

    def note_text(self, *held: Any) -> bool:
        """Whether a text of these is unknown; that of a module tells its class."""
        modules = [value for value in held if is_shadow(value)]
        self.asked |= {vars(module)["_se_path"] for module in modules} - {None}
        return bool(modules) or any(isinstance(value, Value) for value in held)

    def unpack(self, value: Any, shape: tuple[Any, ...]) -> Any:
        """The items of ``a, b = value``; ``shape`` has a number for each, or the shape of a target in it."""
        if not isinstance(value, Value):
            value = [self.own(item) for item in value] if isinstance(value, tuple | list) else value
            if -1 in shape or not any(isinstance(part, tuple) for part in shape):
                return value
            value = list(value)
            if len(value) != len(shape):
                return value
        items = [value[index] for index in range(len(shape))]  # one item for a name with a star
        return [self.unpack(i, part) if isinstance(part, tuple) else i for i, part in zip(items, shape, strict=True)]

    def augmented(self, value: Any) -> Any:
        """What ``value += ...`` may change: a copy of an object that is not the run's own."""
        is_own = isinstance(value, Value | torch.Tensor | torch.nn.Module) or type(value) in (*CONTAINERS, tuple)
        if is_own or value is None or isinstance(value, int | float | complex | str | bytes):
            return value
        try:
            return copy.deepcopy(value)
        except Exception as error:  # whatever the object is
            raise self.refuse(f"it changes a {type(value).__name__} in place, which cannot be copied") from error

    def spread(self, value: Any) -> Any:
        """The items of ``*value`` in a call: any number of them does, as long as they only tell a shape."""
        if not isinstance(value, Value):
            return value
        items = [value[index] for index in range(2)]
        for item in items:
            item.node.meta["shape_only"] = True
        return items

    def mapping(self, value: Any) -> Any:
        """The items of ``**value`` in a call, of which nothing is known where it is a value."""
        if isinstance(value, Value):
            return {}
        return dict(dict.items(value)) if isinstance(value, dict) else value

    def subject(self, value: Any) -> Any:
        """What a match statement looks at."""
        held = value if isinstance(value, tuple | list) else (value,)
        if any(isinstance(item, Value) for item in held):
            raise self.refuse("its match statement tests a value that is known only at run time; use if")
        return value

    def fails(self) -> bool:
        """Whether what is tried raises an error, so that a handler runs instead."""
        self._tried += 1
        return self.expect(f"try {self._tried} fails", False)

    def caught(self) -> Any:
        """The error that a handler gets."""
        return self.symbol("error")

    def expect(self, question: str, expected: bool) -> bool:
        """The answer to a question that is most likely ``expected``; the ways with the other one may not exist."""
        answer = self.paths.choose(question, first=expected)
        self.is_doubtful |= answer != expected
        return answer


def _is_computed(node: fx.Node) -> bool:
    """Whether a value is the result of arithmetic, which is never None."""
    if node.op == "call_method":
        return True
    module = getattr(node.target, "__module__", None) or ""
    may_be_anything = node.target in (getattr, operator.getitem, unknown) or "opaque" in node.meta
    return (
        node.op == "call_function"
        and not may_be_anything
        and (not module or module.startswith(("torch", "_operator", "se_inject")))
    )


def _told(value: Any) -> str:
    return str(value.node) if isinstance(value, Value) else repr(value)[:200]
