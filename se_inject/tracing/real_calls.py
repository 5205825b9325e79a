"""Calls that get nothing of the run: they are made, so that caches hold real things, unless they have effects."""

import contextlib
import types
import warnings
from typing import Any

from .errors import UntraceableError
from .randomness import no_randomness
from .torch_calls import is_torch_function

_Arguments = tuple[Any, ...]
_Keywords = dict[str, Any]

_DRAWS = frozenset("rand randn randint randperm bernoulli normal multinomial rand_like randn_like empty".split())
PURE = frozenset("builtins math operator _operator functools itertools typing collections".split())


def without_values(run: Any, function: types.FunctionType, args: _Arguments, kwargs: _Keywords) -> Any:
    """A function that gets nothing of the run is called, so that caches hold real things, unless it has effects."""
    if run.reachable(function, *args, *kwargs.values()).has_effects:
        with contextlib.suppress(UntraceableError):
            return copy_of(run, function, args, kwargs)
    return as_it_is(run, function, args, kwargs)


def copy_of(run: Any, function: Any, args: _Arguments, kwargs: _Keywords) -> Any:
    """What an instrumented copy returns, which keeps to itself what the function writes."""
    nodes, evaluations = len(run.graph.nodes), len(run.evaluations)
    if isinstance(function, types.MethodType):
        function, args = function.__func__, (function.__self__, *args)
    try:
        return run.instrument(function, args, kwargs)
    except UntraceableError:
        run.forget(nodes, evaluations)
        raise


def as_it_is(run: Any, function: Any, args: _Arguments, kwargs: _Keywords) -> Any:
    """The real result of a call that gets nothing of the run; unknown where it draws random numbers."""
    name, is_torchs = getattr(function, "__name__", ""), is_torch_function(function)
    if is_torchs and name in _DRAWS:
        return run.unknown()
    if getattr(function, "__module__", None) in PURE:
        return run.own(function(*args, **kwargs))
    with no_randomness(run.reachable(function, *args, *kwargs.values())) as drawn, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = function(*args, **kwargs)
    if is_torchs and isinstance(result, bool) and not args and name != "is_scripting":
        return run.expect(f"{name}()", result)
    return run.unknown() if drawn else run.own(result)
