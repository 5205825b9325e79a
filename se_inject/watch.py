"""Noticing that code changed what attributes hold: containers at any depth, and the attributes of plain objects."""

import operator
import types
from collections import deque
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
        return value, dict(vars(value))
    return value


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
        return isinstance(before, tuple) and value is before[0] and _has_same_attributes(value, before[1])
    return value is before


def _has_same_attributes(value: Any, before: dict[str, Any]) -> bool:
    """Whether an object holds what it held; if not, it is put back."""
    after = vars(value)
    if list(after) == list(before) and all(map(operator.is_, after.values(), before.values())):
        return True
    after.clear()
    after.update(before)
    return False
