"""What a forward's code asks that leaves no mark on a proxy: seen in its bytecode instead."""

import dis
import functools
import inspect
import types
from collections.abc import Iterator
from typing import Any

# Global modes of torch; what they say while tracing need not be what they say when the forward runs.
_MODE_QUESTIONS = frozenset("is_grad_enabled is_inference_mode_enabled is_autocast_enabled is_compiling".split())


def unanswerable(block_class: Any) -> str | None:
    """Why a class's forward, or a method that it may call, cannot be followed; None if nothing stands against it.

    >>> class Block:
    ...     def forward(self, x):
    ...         return x if type(x) is tuple else self.other(x)
    >>> unanswerable(Block)
    'it asks for the type of a value (type), which is known only when it runs'
    """
    return next((reason for code in _codes(block_class) if (reason := _question(code)) is not None), None)


@functools.lru_cache(maxsize=1024)
def _question(code: types.CodeType) -> str | None:
    for instruction in dis.get_instructions(code):
        if instruction.opname == "LOAD_GLOBAL" and instruction.argval == "type":
            return "it asks for the type of a value (type), which is known only when it runs"
        if instruction.argval in _MODE_QUESTIONS and "LOAD" in instruction.opname:
            return f"it asks for a mode of torch ({instruction.argval}), which may differ when it runs"
    return None


def compared_with_none(forward: Any) -> set[str]:
    """The arguments that a forward itself compares with None.

    >>> sorted(compared_with_none(lambda self, x, mask, bias: x if mask is None else bias))
    ['mask']
    """
    return _compared_with_none(inspect.unwrap(forward).__code__)


@functools.lru_cache(maxsize=1024)
def _compared_with_none(code: types.CodeType) -> set[str]:
    steps = list(dis.get_instructions(code))
    names = set()
    for load, test, after in zip(steps, steps[1:], [*steps[2:], steps[-1]], strict=False):
        against_none = "NONE" in test.opname or (test.argval is None and after.opname == "IS_OP")
        if load.opname.startswith("LOAD_FAST") and against_none:
            names.add(str(load.argval))
    return names & set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])


def _codes(block_class: Any) -> Iterator[types.CodeType]:
    """The code of a class's forward and of the methods that it names, and so on."""
    names, seen = ["forward"], set()
    while names:
        name = names.pop()
        method = inspect.unwrap(getattr(block_class, name, None))  # type: ignore[arg-type]
        if name in seen or not isinstance(method, types.FunctionType):
            continue
        seen.add(name)
        code = method.__code__
        yield code
        yield from (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
        if not method.__module__.startswith("torch.nn."):
            names.extend(code.co_names)
