"""The values that a forward works on while it runs on stand-ins."""

import operator
from collections.abc import Iterator
from typing import Any, NoReturn

from torch import fx


class Value(fx.Proxy):
    """A proxy whose questions are explored, or refused where nobody could go on from any answer."""

    tracer: Any
    __array_ufunc__ = None  # a number of numpy's leaves arithmetic to the value

    def __bool__(self) -> bool:
        return bool(self.tracer.to_bool(self))

    def __iter__(self) -> Iterator[Any]:
        parts = _parts(self.node)
        if parts is None:
            # How often a loop runs is known only when it runs; twice shows what it does and what its rounds share.
            self.tracer.note_loop()
            parts = 2
        return iter([self[i] for i in range(parts)])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # numpy and others ask for their protocols
            raise AttributeError(name)
        return Attribute(self, name)

    def __getitem__(self, index: Any) -> "Value":
        return self.tracer.create_proxy("call_function", operator.getitem, (self, index), {})  # type: ignore[no-any-return]

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})

    def __setattr__(self, name: str, value: Any) -> None:
        if name in {"tracer", "node", "root", "attr", "_node"}:  # of fx
            super().__setattr__(name, value)
        else:
            self.tracer.create_proxy("call_function", setattr, (self, name, value), {})


def _parts(node: fx.Node) -> int | None:
    """Into how many parts a value was split, if its text says so."""
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    count = (*node.args[1:2], *(node.kwargs.get(key) for key in ("chunks", "sections"))) if name == "chunk" else ()
    return next((n for n in count if isinstance(n, int)), None)


class Attribute(Value, fx.proxy.Attribute):
    """What ``x.shape`` is; the node is made when it is used, as it may be a method that is called."""


def _number(name: str) -> Any:
    def convert(self: Value, *_: Any) -> NoReturn:
        raise self.tracer.refuse(f"it converts a value that is known only at run time to a Python number ({name})")

    return convert


for _name in "len float int index complex round trunc floor ceil contains".split():
    setattr(Value, f"__{_name}__", _number(_name))


def _in_place(name: str) -> Any:
    operation = getattr(operator, name)

    def call(target: Any, value: Any) -> Any:
        return operation(target, value)

    call.__name__ = call.__qualname__ = name
    return lambda self, other: self.tracer.create_proxy("call_function", call, (self, other), {})


# fx takes "x += y" for "x = x + y", which no longer changes the x that others hold.
for _name in "iadd isub imul itruediv ifloordiv imod ipow imatmul iand ior ixor ilshift irshift".split():
    setattr(Value, f"__{_name}__", _in_place(_name))


def unknown() -> None:
    """Stands in a graph for what the forward makes without its inputs, such as a random tensor."""


def node_of(value: Any) -> fx.Node | None:
    """The node that made a value, if one did."""
    return value.node if isinstance(value, Value) and not isinstance(value, Attribute) else None
