"""Dataclasses from JSON that anyone may have written: every value has its field's type, or an error names it."""

from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

_LARGEST_FLOAT = 1e300


def from_json(value: Any, wanted: Any, what: str) -> Any:
    """``value`` as ``wanted``: a dataclass, a tuple or sequence of items of one type, a ``Literal`` or a plain type.

    A boolean is no number, and a number is finite. Entries that have a default may be missing.

    Raises ``ValueError``.

    >>> from_json([1, 2.5], tuple[float, ...], "mean")
    (1, 2.5)
    >>> from_json([1, True], tuple[float, ...], "mean")
    Traceback (most recent call last):
    ...
    ValueError: mean[1] must be a finite number, got True
    """
    origin, parameters = get_origin(wanted), get_args(wanted)
    if is_dataclass(wanted):
        return _object(value, wanted, what)
    if origin in (tuple, Sequence):
        items = [from_json(item, parameters[0], f"{what}[{i}]") for i, item in enumerate(_of(value, list, what))]
        return tuple(items) if origin is tuple else items
    if origin is Literal:
        if _of(value, str, what) not in parameters:
            raise ValueError(f"{what} must be one of {', '.join(parameters)}, got {value[:80]!r}")
        return value
    if wanted is float:
        if type(value) not in (int, float) or not abs(value) < _LARGEST_FLOAT:
            raise ValueError(f"{what} must be a finite number, got {str(value)[:80]}")
        return value
    return _of(value, wanted, what)


def _object(value: Any, cls: Any, what: str) -> Any:
    entries, types = _of(value, dict, what), get_type_hints(cls)
    required = {field.name for field in fields(cls) if field.default is field.default_factory is MISSING}
    for name in required - entries.keys():
        raise ValueError(f"{what} lacks the entry {name!r}")
    for name in entries.keys() - types.keys():
        raise ValueError(f"{what} has an unknown entry {name[:80]!r}")
    return cls(**{name: from_json(entry, types[name], f"{what}.{name}") for name, entry in entries.items()})


def _of(value: Any, cls: type[Any], what: str) -> Any:
    if type(value) is not cls:
        raise ValueError(f"{what} must be of type {cls.__name__}, got {str(value)[:80]}")
    return value
