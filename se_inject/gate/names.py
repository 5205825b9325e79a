"""What gates are called: ``se`` in their block, or ``se.0``, ``se.1`` where a block has several."""

import itertools
from collections.abc import Collection, Iterator
from typing import Any

from torch import nn


def numbered(name: str, count: int) -> list[str]:
    """The names of a block's gates.

    >>> numbered("se", 1), numbered("se", 2)
    (['se'], ['se.0', 'se.1'])
    """
    return [name] if count == 1 else [f"{name}.{i}" for i in range(count)]


def free_name(
    cls: type[nn.Module], state: dict[str, Any], suffix: str = "", reads: Collection[str] = frozenset()
) -> str:
    """``se``, unless the block has something of that name; an attribute that is None and not read makes way."""
    taken: Collection[str] = {*state["_modules"], *state["_parameters"], *state["_buffers"]}
    taken = {*taken, *reads, *(name for name, value in state.items() if value is not None)}
    return next(name for name in _names(suffix) if name not in taken and not hasattr(cls, name))


def free_name_among(taken: Collection[str], path: str, suffix: str = "") -> str:
    """The same for the block at ``path`` of a traced model, of whose modules ``taken`` are the paths.

    >>> free_name_among({"layer1.se"}, "layer1"), free_name_among({"layer1.se"}, "")
    ('se_gate', 'se')
    """
    prefix = f"{path}." if path else ""
    return next(name for name in _names(suffix) if prefix + name not in taken)


def _names(suffix: str) -> Iterator[str]:
    yield f"se{suffix}"
    yield f"se_gate{suffix}"
    yield from (f"se_gate{suffix}_{i}" for i in itertools.count(2))
