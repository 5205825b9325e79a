"""Noticing, and undoing, that code draws from a random stream."""

import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .reachable import Reach

Stream = tuple[str, Callable[[], Any], Callable[[Any], Any]]  # its name, and how its state is read and set


@contextmanager
def no_randomness(reach: Reach | None = None) -> Iterator[list[str]]:
    """Put random streams back as they were; the list then holds the names of those that were drawn from.

    These are the global ones, and the generators that what runs can reach. While other threads run, which may draw from
    the global ones, only those that it can reach.

    >>> with no_randomness() as drawn:
    ...     _ = torch.rand(1)
    >>> drawn
    ['torch']
    """
    may_be_others = reach is not None and threading.active_count() > 1
    streams = [s for s in _global_streams() if not may_be_others or reach.may_draw_from(s[0])]  # type: ignore[union-attr]
    streams += [] if reach is None else map(_stream, reach.generators)
    states = [get() for _, get, _ in streams]
    drawn: list[str] = []
    try:
        yield drawn
    finally:
        for (name, get, restore), state in zip(streams, states, strict=True):
            if not _is_same(get(), state):
                restore(state)
                drawn.append(name)


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
    if isinstance(generator, torch.quasirandom.SobolEngine):
        return "a Sobol engine", lambda: {**vars(generator)}, vars(generator).update
    if isinstance(generator, torch.Generator):
        return "a torch.Generator", generator.get_state, generator.set_state
    bits = getattr(generator, "bit_generator", None) or generator._bit_generator
    return "a numpy generator", lambda: bits.state, lambda state: setattr(bits, "state", state)


def _is_same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_is_same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_is_same(a[key], b[key]) for key in a)
    return bool(getattr(a, "tobytes", lambda: a)() == getattr(b, "tobytes", lambda: b)())
