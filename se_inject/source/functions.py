"""Functions behind decorators: found, and exchanged with the decorators kept."""

import functools
import types
from collections.abc import Iterator
from typing import Any


def functions_in(value: Any, seen: frozenset[int] = frozenset()) -> Iterator[types.FunctionType]:
    """A function and all that it is around, as a decorator's is; decorators may be objects, and partial methods.

    >>> def decorated(function):
    ...     return lambda: function() + 1
    >>> def plain(): return 1
    >>> [function.__name__ for function in functions_in(decorated(plain))]
    ['<lambda>', 'plain']
    """
    if isinstance(value, types.FunctionType):
        yield value
    for inner in _inside(value):
        if id(inner) not in seen:
            yield from functions_in(inner, seen | {id(value)})


def exchanged(value: Any, old: types.FunctionType, new: types.FunctionType, seen: frozenset[int] = frozenset()) -> Any:
    """``value`` with ``new`` in the place of ``old``, which it may be or be around; None where ``old`` is not found.

    None, too, where a decorator is an object: it may have a state, which a copy would not share.

    >>> def decorated(function):
    ...     return lambda: function() + 1
    >>> one, two = lambda: 1, lambda: 2
    >>> exchanged(decorated(one), one, two)()
    3
    """
    if value is old:
        return new
    if id(value) in seen:
        return None
    seen = seen | {id(value)}
    if isinstance(value, functools.partial | functools.partialmethod):
        inner = exchanged(value.func, old, new, seen)
        return None if inner is None else type(value)(inner, *value.args, **value.keywords)
    if not isinstance(value, types.FunctionType):
        return None
    contents = [None if is_empty(cell) else cell.cell_contents for cell in value.__closure__ or ()]
    replacements = [exchanged(content, old, new, seen) for content in contents]
    if all(replacement is None for replacement in replacements):
        return None
    pairs = zip(value.__closure__ or (), replacements, strict=True)
    cells = tuple(cell if replacement is None else types.CellType(replacement) for cell, replacement in pairs)
    copy = types.FunctionType(value.__code__, value.__globals__, value.__name__, value.__defaults__, cells)
    return like(copy, value, wrapped=exchanged(getattr(value, "__wrapped__", None), old, new, seen))


def _inside(value: Any) -> Iterator[Any]:
    """What functools.wraps noted on a function, what it closes over, or what an object holds."""
    wrapped = getattr(value, "__wrapped__", None)
    if isinstance(wrapped, types.FunctionType):
        yield wrapped
    if isinstance(value, types.FunctionType):
        held = closed_over(value)
    elif isinstance(value, functools.partial | functools.partialmethod):
        held = [value.func]
    else:
        held = list(getattr(value, "__dict__", {}).values())
    kinds = (types.FunctionType, functools.partial, functools.partialmethod)
    yield from (item for item in held if isinstance(item, kinds) and item is not wrapped)


def names_in(code: types.CodeType) -> Iterator[str]:
    """The globals and attributes that a code names, and those that functions inside it do."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names_in(constant)


def closed_over(function: types.FunctionType) -> list[Any]:
    """What a function closes over, but for variables that have no value yet."""
    return [cell.cell_contents for cell in function.__closure__ or () if not is_empty(cell)]


def is_empty(cell: types.CellType) -> bool:
    """Whether a variable that a function closes over has no value yet.

    >>> is_empty(types.CellType()), is_empty(types.CellType(1))
    (True, False)
    """
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False


def like(new: types.FunctionType, function: types.FunctionType, wrapped: Any = None) -> types.FunctionType:
    """A function with all that another one has besides its code."""
    new.__kwdefaults__ = function.__kwdefaults__
    new.__qualname__, new.__module__, new.__doc__ = function.__qualname__, function.__module__, function.__doc__
    new.__annotations__ = function.__annotations__
    new.__dict__.update(function.__dict__)
    if wrapped is not None and "__wrapped__" in new.__dict__:
        new.__dict__["__wrapped__"] = wrapped
    return new
