"""The values that a forward works on while it is traced."""

import operator
import sys
import types
from typing import Any, NoReturn

import torch
from torch import fx

from .frames import asks_for_a_tensor, is_in_call, is_unpacking


class UntraceableError(Exception):
    """The forward cannot be written as graphs without changing what it does; the message says why."""


def _is_internal(frame: types.FrameType | None) -> bool:
    asker = frame.f_globals.get("__name__", "") if frame is not None else ""
    return asker.startswith(("torch.fx.", "torch.utils._pytree", "torch.nn.modules.module", "se_inject."))


class Value(fx.Proxy):
    """A proxy that refuses to be asked for its type: the answer would send the trace down one path for good."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        frame: types.FrameType | None = sys._getframe(1)
        # isinstance(x, nn.Parameter) asks on behalf of its caller.
        while frame is not None and frame.f_globals.get("__name__") == "torch.nn.parameter":
            frame = frame.f_back
        if _is_internal(frame):
            return fx.Proxy
        if frame is not None and frame.f_globals.get("__name__") == "torch.utils.checkpoint":
            raise self._refuse("it uses activation checkpointing")
        # Never for a question from C, which would go on to read this object's memory as that of a tensor.
        if self._explores() and frame is not None and asks_for_a_tensor(frame):
            return torch.Tensor
        raise self._refuse("it asks for the type of a value (isinstance), which is known only when it runs")

    def _explores(self) -> bool:
        return object.__getattribute__(self, "tracer").paths is not None

    def _refuse(self, reason: str) -> UntraceableError:
        error: UntraceableError = object.__getattribute__(self, "tracer").refuse(reason)
        return error

    def __getattr__(self, name: str) -> Any:
        frame = sys._getframe(1)
        if not _is_internal(frame) and is_in_call(frame):
            raise self._refuse("it asks what a value has (hasattr, getattr), which is known only when it runs")
        return _Attribute(self, name)

    def __repr__(self) -> str:
        return _Text(super().__repr__())

    def __str__(self) -> str:
        return _Text(super().__repr__())

    def __format__(self, spec: str) -> str:
        return _Text(super().__repr__())

    def __hash__(self) -> int:
        # A set or dict would miss it without asking whether it is equal.
        if not sys._getframe(1).f_globals.get("__name__", "").startswith(("torch", "se_inject.")):
            raise self._refuse("it looks a value up in a set or dictionary (data-dependent control flow)")
        return super().__hash__()

    def __setitem__(self, index: Any, value: Any) -> None:
        raise self._refuse("it assigns items of a value, which a graph does not show")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in {"tracer", "node", "root", "attr", "_node"}:  # of fx
            raise self._refuse(f"it sets {name} of a value, which a graph would lose")
        super().__setattr__(name, value)


class _Attribute(Value, fx.proxy.Attribute):
    """What ``x.shape`` is; the node is made when it is used, as it may be a method that is called."""


class _Text(str):
    """What a value looks like: good for messages, which may be made without need, and for nothing else."""

    __slots__ = ()
    __hash__ = str.__hash__

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise UntraceableError("it looks at the text of a value, which is known only when it runs")

    __eq__ = __ne__ = __contains__ = startswith = endswith = split = find = lower = strip = _refuse


def _number(name: str) -> Any:
    def convert(self: Value, *_: Any) -> NoReturn:
        if name == "len" and self._explores() and is_unpacking(sys._getframe(1)):
            raise TypeError  # *value asks for a hint only
        raise self._refuse(f"it makes a Python number of a value ({name}), which is known only when it runs")

    return convert


# Errors of fx's own could be caught by the forward, which would then go on as it never does when it runs.
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
