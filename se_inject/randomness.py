"""Noticing, and undoing, that code draws from a random stream."""

import random
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .source.functions import is_empty

Stream = tuple[str, Callable[[], Any], Callable[[Any], Any]]  # its name, and how its state is read and set


@contextmanager
def no_randomness(*code: Any) -> Iterator[list[str]]:
    """Put random streams back as they were; the list then holds the names of those that were drawn from.

    These are the global ones, and the generators that functions among ``code`` can reach.

    >>> with no_randomness() as drawn:
    ...     _ = torch.rand(1)
    >>> drawn
    ['torch']
    """
    streams = [*_global_streams(), *(_stream(generator) for generator in _generators(code, set()))]
    states = [get() for _, get, _ in streams]
    drawn: list[str] = []
    try:
        yield drawn
    finally:
        for (name, get, restore), state in zip(streams, states, strict=True):
            if not _is_same(get(), state):
                restore(state)
                drawn.append(name)


def is_generator(value: Any) -> bool:
    """Whether a value is a random generator, of Python, NumPy or torch.

    >>> is_generator(random.Random())
    True
    """
    is_numpys = type(value).__module__.startswith("numpy.random") and hasattr(value, "random")
    return is_numpys or isinstance(value, random.Random | torch.Generator)


def _global_streams() -> Iterator[Stream]:
    yield "random", random.getstate, random.setstate
    yield "torch", torch.get_rng_state, torch.set_rng_state
    if numpy := sys.modules.get("numpy"):
        yield "numpy", numpy.random.get_state, numpy.random.set_state
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        yield "cuda", torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all


def _stream(generator: Any) -> Stream:
    if isinstance(generator, random.Random):
        return "a random.Random", generator.getstate, generator.setstate
    if isinstance(generator, torch.Generator):
        return "a torch.Generator", generator.get_state, generator.set_state
    bits = getattr(generator, "bit_generator", None) or generator._bit_generator
    return "a numpy generator", lambda: bits.state, lambda state: setattr(bits, "state", state)


def _generators(values: Any, seen: set[int], depth: int = 4) -> Iterator[Any]:
    """The generators among values, in what functions among them name and close over, and in objects' attributes."""
    for value in values:
        if id(value) in seen:
            continue
        seen.add(id(value))
        if is_generator(value):
            yield value
        elif depth and isinstance(value, types.MethodType):
            yield from _generators((value.__self__, value.__func__), seen, depth)
        elif depth and isinstance(value, types.FunctionType):
            yield from _generators(_reached(value), seen, depth - 1)
        elif depth and isinstance(value, dict | list | tuple):
            yield from _generators(value.values() if isinstance(value, dict) else value, seen, depth - 1)
        elif depth and not isinstance(value, type | types.ModuleType | torch.Tensor):
            yield from _generators(list(getattr(value, "__dict__", {}).values()), seen, depth - 1)


def _reached(function: types.FunctionType) -> list[Any]:
    named = [function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__]
    closed_over = [cell.cell_contents for cell in function.__closure__ or () if not is_empty(cell)]
    return [*named, *closed_over, *(function.__defaults__ or ())]


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _is_same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_is_same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_is_same(a[key], b[key]) for key in a)
    return bool(getattr(a, "tobytes", lambda: a)() == getattr(b, "tobytes", lambda: b)())
