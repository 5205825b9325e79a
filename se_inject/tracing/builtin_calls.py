"""Builtin functions, answered: what they say of a stand-in must be what they will say of a real value."""

import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any

from .module_proxies import is_shadow
from .value_proxy import Value

# What these make of one value is a value; what they make of others, values in containers too, is the forward's doing.
_OF_ONE_VALUE = (str, repr, ascii, format, hash, int, float, complex, round, len, id, chr, ord, bytes)
_OF_ITEMS = (list, tuple, set, frozenset, dict, sum, max, min, sorted, reversed)
_CALLING_BACK = (any, all, zip, enumerate, map, filter, iter, next, functools.reduce, slice)


def _symbolic(function: Any) -> Callable[..., Any]:
    name = function.__name__

    def answer(run: Any, *args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], Value):
            return run.symbol(name, *args, **kwargs)
        if function is id and is_shadow(args[0]):
            return run.unknown()
        if function in (str, repr, format, ascii) and run.note_text(*args):
            return run.unknown()
        if function is sum and len(args) == 1 and isinstance(args[0], Iterable):
            items = list(args[0])
            return functools.reduce(operator.add, items) if items else 0  # not 0 + the first
        return _called_back(function)(run, *args, **kwargs)

    return answer


def _called_back(function: Any) -> Callable[..., Any]:
    def answer(run: Any, *args: Any, **kwargs: Any) -> Any:
        run.silent += 1  # what is made on the way is no expression of the text
        try:
            return function(*map(run.answering, args), **kwargs)
        finally:
            run.silent -= 1

    return answer


def _has(run: Any, owner: Any, name: str) -> bool:
    if isinstance(owner, Value):
        return bool(run.paths.choose(f"{owner.node} has {name}"))
    if is_shadow(owner):
        run.reads.add((vars(owner).get("_se_path"), name))
    return run.overlaid(owner, name) is not None or hasattr(owner, name)


def _get(run: Any, owner: Any, name: str, *default: Any) -> Any:
    if isinstance(owner, Value):
        is_there = not default or run.paths.choose(f"{owner.node} has {name}")
        return getattr(owner, name) if is_there else default[0]
    if isinstance(name, Value):
        raise run.refuse("it looks up an attribute by a name that is known only at run time")
    try:
        return run.load(owner, name)
    except AttributeError:
        if default:
            return default[0]
        raise


def _callable(run: Any, value: Any) -> bool:
    return bool(run.paths.choose(f"{value.node} is callable")) if isinstance(value, Value) else callable(value)


def _vars(run: Any, *owner: Any) -> Any:
    return run.load(owner[0], "__dict__") if owner and is_shadow(owner[0]) else dict(vars(*owner))


def _range(run: Any, *args: Any) -> Any:
    if any(isinstance(arg, Value) for arg in args):
        run.note_loop()
        return range(2)
    return range(*args)


ANSWERS: dict[int, Callable[..., Any]] = {
    **{id(function): _symbolic(function) for function in (*_OF_ONE_VALUE, *_OF_ITEMS)},
    **{id(function): _called_back(function) for function in _CALLING_BACK},
    id(isinstance): lambda run, value, classes: run.is_instance(value, classes),
    id(hasattr): _has,
    id(getattr): _get,
    id(setattr): lambda run, owner, name, value: run.attributes(owner).__setitem__(name, value),
    id(callable): _callable,
    id(type): lambda run, *args: run.class_of(args[0]) if len(args) == 1 else type(*args),
    id(bool): lambda run, *args: bool(*args),
    id(range): _range,
    id(vars): _vars,
    **{id(function): lambda run, *args, **kwargs: run.unknown() for function in (open, input)},
    id(print): lambda run, *args, **kwargs: None,
}
