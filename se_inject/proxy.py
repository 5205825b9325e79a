"""The values that a forward works on while it is traced."""

import operator
import sys
import types
from typing import Any

from torch import fx


class UntraceableError(Exception):
    """The forward cannot be written as graphs without changing what it does; the message says why."""


class Value(fx.Proxy):
    """A proxy that refuses to be asked for its type: the answer would send the trace down one path for good."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        frame: types.FrameType | None = sys._getframe(1)
        # isinstance(x, nn.Parameter) asks on behalf of its caller.
        while frame is not None and frame.f_globals.get("__name__") == "torch.nn.parameter":
            frame = frame.f_back
        asker = frame.f_globals.get("__name__", "") if frame is not None else ""
        if asker.startswith(("torch.fx.", "torch.utils._pytree", "se_inject.")):
            return fx.Proxy
        raise UntraceableError("it asks for the type of a value (isinstance), which is known only when it runs")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in {"tracer", "node"}:
            raise UntraceableError(f"it sets {name} of a value, which a graph would lose")
        super().__setattr__(name, value)


def _in_place(name: str) -> Any:
    operation = getattr(operator, name)

    def call(target: Any, value: Any) -> Any:
        return operation(target, value)

    call.__name__ = call.__qualname__ = name
    return lambda self, other: self.tracer.create_proxy("call_function", call, (self, other), {})


# fx takes "x += y" for "x = x + y", which no longer changes the x that others hold.
for _name in "iadd isub imul itruediv ifloordiv imod ipow imatmul iand ior ixor ilshift irshift".split():
    setattr(Value, f"__{_name}__", _in_place(_name))
