"""Noticing, and undoing, that code draws from a global random stream."""

import operator
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def no_randomness(*, of_torch: bool = True) -> Iterator[list[str]]:
    """Put the global random streams back as they were; the list then holds the names of those that were drawn from.

    >>> with no_randomness() as drawn:
    ...     _ = torch.rand(1)
    >>> drawn
    ['torch']
    """
    streams: list[tuple[str, Any, Any, Any]] = [("random", random.getstate, random.setstate, operator.eq)]
    if of_torch:
        streams.append(("torch", torch.get_rng_state, torch.set_rng_state, torch.equal))
    if numpy := sys.modules.get("numpy"):
        streams.append(("numpy", numpy.random.get_state, numpy.random.set_state, _same_numpy_state))
    if of_torch and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        cuda = torch.cuda
        streams.append(("cuda", cuda.get_rng_state_all, cuda.set_rng_state_all, _same_cuda_states))
    states = [get() for _, get, _, _ in streams]
    drawn: list[str] = []
    try:
        yield drawn
    finally:
        for (name, get, restore, same), state in zip(streams, states, strict=True):
            if not same(get(), state):
                restore(state)
                drawn.append(name)


def _same_numpy_state(a: Any, b: Any) -> bool:
    return a[2:] == b[2:] and bool((a[1] == b[1]).all())


def _same_cuda_states(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, a, b))
