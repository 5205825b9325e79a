"""Noticing, and undoing, that code changed what attributes hold: containers, arrays and the attributes of objects."""

import copy
import operator
import types
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

MAX_DEPTH = 4  # objects inside of objects


def snapshot(value: Any) -> Any:
    """A copy of containers, at any depth, and of what other objects hold.

    >>> snapshot({"a": (1, 2)})
    {'a': [1, 2]}
    """
    if isinstance(value, dict):
        return dict(zip(value, map(snapshot, dict.values(value)), strict=True))
    if isinstance(value, list | tuple | set | deque):
        return [snapshot(item) for item in value]
    if _is_object(value):
        return value, list(containers(value, set()))
    return value


def _is_object(value: Any) -> bool:
    """Whether a value is an array or an object with attributes, which cannot be copied for each trace."""
    uncopied = nn.Module | torch.Tensor | type | types.FunctionType | types.MethodType | types.ModuleType
    return _is_array(value) or (
        hasattr(value, "__dict__")
        and not isinstance(value, uncopied)
        and not type(value).__module__.startswith("torch.")
    )


def _is_array(value: Any) -> bool:
    return type(value).__module__ == "numpy" and type(value).__name__ == "ndarray"


def containers(value: Any, seen: set[int], depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """The containers at or below a value, with a copy of each: an object's are its attributes."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, dict | list | tuple | set | deque) or _is_array(value):
        yield value, copy.copy(value)
        inside = [] if _is_array(value) else _items(value)
    elif _is_object(value) and depth < MAX_DEPTH:
        inside, depth = [vars(value)], depth + 1
    else:
        return
    for item in inside:
        yield from containers(item, seen, depth)


def _items(container: Any) -> list[Any]:
    return list(dict.values(container) if isinstance(container, dict) else container)


def is_same(value: Any, before: Any) -> bool:
    """Whether a value holds what it held at its snapshot; a plain object that does not is put back.

    >>> items = [1, [2]]
    >>> before = snapshot(items)
    >>> items[1].append(3)
    >>> is_same(items, before)
    False
    """
    if isinstance(value, dict) and isinstance(before, dict):
        return list(value) == list(before) and all(map(is_same, dict.values(value), before.values()))
    if isinstance(value, list | tuple | set | deque):
        return isinstance(before, list) and len(value) == len(before) and all(map(is_same, value, before))
    if _is_object(value):
        return isinstance(before, tuple) and value is before[0] and not put_back(before[1])
    return value is before


def put_back(held: list[tuple[Any, Any]]) -> bool:
    """Give containers the items that their copies have; whether any had others."""
    changed = [(container, before) for container, before in held if not _has_same_items(container, before)]
    for container, before in changed:
        if _is_array(container):
            container[...] = before
        else:
            container.clear()
            (container.update if isinstance(container, dict | set) else container.extend)(before)
    return bool(changed)


def _has_same_items(container: Any, before: Any) -> bool:
    if _is_array(container):
        return bool(container.tobytes() == before.tobytes())
    is_same_order = not isinstance(container, dict) or list(container) == list(before)
    same = len(container) == len(before) and all(map(operator.is_, _items(container), _items(before)))
    return is_same_order and same
