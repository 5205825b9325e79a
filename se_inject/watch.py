"""Noticing that code changed what attributes hold: containers at any depth, and the attributes of plain objects."""

import copy
import operator
import types
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def snapshot(value: Any) -> Any:
    """A copy of containers, at any depth, and of what other plain objects hold.

    >>> snapshot({"a": (1, 2)})
    {'a': [1, 2]}
    """
    if isinstance(value, dict):
        return dict(zip(value, map(snapshot, dict.values(value)), strict=True))
    if isinstance(value, list | tuple | set | deque):
        return [snapshot(item) for item in value]
    if _is_plain_object(value):
        return value, list(_containers(vars(value), set()))
    return value


def _containers(value: Any, seen: set[int]) -> Iterator[tuple[Any, Any]]:
    """A container and those inside, at any depth, each with a copy."""
    if isinstance(value, dict | list | tuple | set | deque) and id(value) not in seen:
        seen.add(id(value))
        yield value, copy.copy(value)
        for item in _items(value):
            yield from _containers(item, seen)


def _items(container: Any) -> list[Any]:
    return list(dict.values(container) if isinstance(container, dict) else container)


def _is_plain_object(value: Any) -> bool:
    return hasattr(value, "__dict__") and not isinstance(value, nn.Module | torch.Tensor | type | types.FunctionType)


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
    if _is_plain_object(value):
        if not (isinstance(before, tuple) and value is before[0]):
            return False
        put_back = [_put_back(*held) for held in before[1]]  # each of them, not only the first
        return not any(put_back)
    return value is before


def _put_back(container: Any, before: Any) -> bool:
    """Whether a container had to be given its old items again."""
    same_items = len(container) == len(before) and all(map(operator.is_, _items(container), _items(before)))
    if same_items and (not isinstance(container, dict) or list(container) == list(before)):
        return False
    container.clear()
    (container.update if isinstance(container, dict | set) else container.extend)(before)
    return True
