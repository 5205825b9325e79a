"""What calling something means while a forward runs on stand-ins, by what is called."""

import contextlib
import functools
import inspect
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from .attributes import Keywords
from .builtin_calls import ANSWERS
from .errors import UntraceableError
from .instrument import is_instrumented
from .kinds_of_calls import closes_over_modules, involves, is_mode, only_tells, writes_files
from .lazy import Lazy
from .module_methods import module_method
from .module_proxies import is_shadow
from .randomness import no_randomness
from .reachable import is_generator, is_library, writes
from .real_calls import PURE, as_it_is, copy_of, without_values
from .torch_calls import SPECIAL, autograd, is_of_torch, is_torch_function
from .value_proxy import Value

_Arguments = tuple[Any, ...]
_Keywords = dict[str, Any]

_UNPREDICTABLE = frozenset("random time secrets uuid subprocess socket".split())
_UNBOUND = types.MethodDescriptorType | types.WrapperDescriptorType
_CHANGING = frozenset("pop popitem clear update setdefault append extend insert remove add discard".split())


def perform(run: Any, function: Any, args: _Arguments, kwargs: _Keywords) -> Any:
    """The result of ``function(*args, **kwargs)``, as a value where it depends on one."""
    run.paths.count_call()
    run.note_classes(*args)
    if isinstance(function, Value | nn.Module):
        return run.own(function)(*args, **kwargs)
    if isinstance(function, types.MethodType):
        return _method(run, function, args, kwargs)
    if isinstance(function, types.FunctionType):
        return _function(run, function, args, kwargs)
    answer = ANSWERS.get(id(function))
    if answer is not None:
        return answer(run, *args, **kwargs)
    if isinstance(function, functools.partial):
        return perform(run, run.own(function.func), (*run.own(function.args), *args), {**function.keywords, **kwargs})
    if isinstance(function, type):
        return _class(run, function, args, kwargs)
    if isinstance(function, _UNBOUND) and args and isinstance(args[0], Value):
        return getattr(args[0], function.__name__)(*args[1:], **kwargs)  # torch.Tensor.mul(x, y)
    if isinstance(function, types.BuiltinFunctionType | types.MethodWrapperType | types.BuiltinMethodType):
        return _builtin(run, function, args, kwargs)
    return _object(run, function, args, kwargs)


def effect(run: Any, function: Any, args: _Arguments, kwargs: _Keywords) -> None:
    """Run a call whose result nobody uses, if it can do something to a value of the run, or to what rules its way."""
    if isinstance(function, functools.partial):
        effect(run, run.own(function.func), (*run.own(function.args), *args), {**function.keywords, **kwargs})
    elif _belongs_to_run(run, function) or _may_reach_values(run, function, args, kwargs):
        perform(run, function, args, kwargs)
    elif _is_of_author(run, function):
        with contextlib.suppress(UntraceableError, Exception):  # what it does to its own things, if that can be told
            copy_of(run, function, args, kwargs)


def _belongs_to_run(run: Any, function: Any) -> bool:
    owner = getattr(function, "__self__", None)
    is_local = isinstance(function, types.FunctionType) and is_instrumented(function.__code__)
    on_stand_in = any(isinstance(x, Value) or is_shadow(x) for x in (function, owner))
    return on_stand_in or is_local or run.shadows.is_own(owner) or function is setattr


def _may_reach_values(run: Any, function: Any, args: _Arguments, kwargs: _Keywords) -> bool:
    is_lazy = any(isinstance(arg, Iterator) for arg in args)  # list(map(function, values))
    return is_lazy or (_may_change_values(run, function) and involves(args, kwargs))


def _may_change_values(run: Any, function: Any) -> bool:
    if isinstance(function, types.MethodType):
        return _is_of_author(run, function)
    if isinstance(function, types.FunctionType):
        return is_torch_function(function) or not only_tells(function)
    is_operators = (getattr(function, "__module__", None) or "").endswith("operator")
    is_callable_object = isinstance(inspect.getattr_static(type(function), "__call__", None), types.FunctionType)
    return is_torch_function(function) or is_operators or is_callable_object


def _is_of_author(run: Any, function: Any) -> bool:
    code = getattr(function, "__func__", function)
    return isinstance(code, types.FunctionType) and run.is_own_code(code) and not only_tells(code)


def _method(run: Any, method: types.MethodType, args: _Arguments, kwargs: _Keywords) -> Any:
    owner, function = method.__self__, method.__func__
    if isinstance(owner, Value):  # x.__setitem__(0, 1)
        return method(*args, **kwargs)
    if is_shadow(owner):
        return run.reaching(method, lambda: module_method(run, owner, function, args, kwargs))
    if _is_autograd(owner, function):
        return autograd(run, owner, args)
    if is_generator(owner) or writes_files(function):
        return run.unknown()
    if isinstance(owner, Keywords | Lazy):
        return method(*args, **kwargs)
    if not isinstance(function, types.FunctionType):
        return perform(run, function, (owner, *args), kwargs)
    # A class method may ask what its class is, which a gate changes.
    involved = involves(args, kwargs) or (isinstance(owner, type) and owner in run.classes)
    if not (involved or isinstance(owner, type) or is_of_torch(function.__code__.co_filename)) and writes(function):
        with contextlib.suppress(UntraceableError):
            return copy_of(run, method, args, kwargs)
    if function.__name__ in _CHANGING and is_library(function.__module__):
        return run.unknown()  # frozen modules of Python's, such as that of mappings, have no text
    return _function(run, function, (owner, *args), kwargs, involved=involved)


def _function(
    run: Any, function: types.FunctionType, args: _Arguments, kwargs: _Keywords, involved: bool = False
) -> Any:
    if is_instrumented(function.__code__):
        return function(*args, **kwargs)
    if args and is_shadow(args[0]):
        path = vars(args[0]).get("_se_path")
        if path and function is inspect.getattr_static(type(args[0]), "forward", None):
            run.asked.add(path)  # it runs the forward of that class, not that of one with gates
            return run.call_shadow(args[0], args[1:], kwargs)
        return run.reaching(function, lambda: _plain_function(run, function, args, kwargs, involved))
    return _plain_function(run, function, args, kwargs, involved)


def _plain_function(run: Any, function: types.FunctionType, args: _Arguments, kwargs: _Keywords, involved: bool) -> Any:
    special = SPECIAL.get((function.__module__, function.__name__))
    if special is not None:
        return special(run, args, kwargs)
    if writes_files(function):
        return run.unknown()
    if not (involved or involves(args, kwargs) or closes_over_modules(function)):
        return without_values(run, function, args, kwargs)
    wrapped = getattr(function, "__wrapped__", None)
    if is_of_torch(function.__code__.co_filename):
        if isinstance(wrapped, types.FunctionType) and not is_of_torch(wrapped.__code__.co_filename):
            return _function(run, wrapped, args, kwargs, involved=True)  # its modes are for effect alone
        return _native(run, function, args, kwargs)
    return _look_inside(run, function, args, kwargs)


def _look_inside(run: Any, function: types.FunctionType, args: _Arguments, kwargs: _Keywords) -> Any:
    try:
        return copy_of(run, function, args, kwargs)
    except UntraceableError as error:
        if run.is_own_code(function):
            raise
        return run.opaque(function.__name__, str(error), *args, **kwargs)


def _class(run: Any, cls: type, args: _Arguments, kwargs: _Keywords) -> Any:
    if is_library(cls.__module__) and is_mode(cls):
        return contextlib.nullcontext()  # set_grad_enabled sets the mode when it is made
    if cls.__module__ in _UNPREDICTABLE or writes_files(cls):
        return run.unknown()
    if issubclass(cls, contextlib._GeneratorContextManager):
        return cls(*args, **kwargs)  # nothing runs before it is entered
    if not involves(args, kwargs):
        with no_randomness(run.reachable(cls, inspect.getattr_static(cls, "__init__"), *args, *kwargs.values())):
            return run.own(cls(*args, **kwargs))
    return _native(run, cls, args, kwargs)


def _is_autograd(owner: Any, function: Any) -> bool:
    """Whether a call is of ``apply`` of a ``torch.autograd.Function``; newer torch has it as a builtin."""
    return isinstance(owner, type) and issubclass(owner, torch.autograd.Function) and function.__name__ == "apply"


def _builtin(run: Any, function: Any, args: _Arguments, kwargs: _Keywords) -> Any:
    owner = getattr(function, "__self__", None)
    if _is_autograd(owner, function):
        return autograd(run, owner, args)
    if is_generator(owner) or getattr(function, "__module__", None) in _UNPREDICTABLE or writes_files(function):
        return run.unknown()
    if type(owner).__module__ == "_thread":
        return True  # as if the lock were free
    if run.shadows.is_own(owner):
        return _of_container(run, function, args, kwargs)
    if isinstance(owner, str) and involves(args, kwargs):
        run.note_text(*args, *kwargs.values())
        return run.symbol("text", *args, **kwargs)
    if involves(args, kwargs):
        is_foreign = owner is not None and not isinstance(owner, type | types.ModuleType | tuple)
        if is_foreign and not is_torch_function(function):
            return run.opaque(function.__name__, "it would change an object from outside the forward", *args, **kwargs)
        return _native(run, function, args, kwargs)
    return as_it_is(run, function, args, kwargs)


def _of_container(run: Any, method: Any, args: _Arguments, kwargs: _Keywords) -> Any:
    """A method of a list, dictionary or the like; keys that are values are looked up as items are."""
    if method.__name__ in ("get", "pop", "setdefault") and args and isinstance(args[0], Value):
        is_there = run.paths.choose(f"{args[0].node.name} is a key")
        return run.items(method.__self__)[args[0]] if is_there else (*args, None)[1]
    return method(*args, **kwargs)


def _object(run: Any, function: Any, args: _Arguments, kwargs: _Keywords) -> Any:
    scripted = getattr(function, "_torchdynamo_inline", None)
    if isinstance(scripted, types.FunctionType):
        return perform(run, scripted, args, kwargs)
    call = inspect.getattr_static(type(function), "__call__", None)
    wrapped = getattr(function, "__wrapped__", None)  # of a function that caches its results
    if isinstance(wrapped, types.FunctionType) and involves(args, kwargs):
        return _look_inside(run, wrapped, args, kwargs)
    if not involves(args, kwargs):
        return as_it_is(run, function, args, kwargs)
    if isinstance(call, types.FunctionType) and not is_of_torch(call.__code__.co_filename):
        return _look_inside(run, call, (function, *args), kwargs)
    return _native(run, function, args, kwargs)


def _native(run: Any, function: Any, args: _Arguments, kwargs: _Keywords) -> Any:
    """Run code as it is on values: functions of torch make values of them, others may fail."""
    nodes, evaluations = len(run.graph.nodes), len(run.evaluations)
    name = getattr(function, "__name__", type(function).__name__)
    run.native += 1
    try:
        result = function(*map(run.answering, args), **kwargs)
        return run.paths.choose(f"{name} of {args}") if isinstance(result, bool) else result
    except UntraceableError as error:
        why = str(error)
    except Exception as error:  # code of others on objects that it does not expect
        why = f"{type(error).__name__}: {error}"
    finally:
        run.native -= 1
    run.forget(nodes, evaluations)
    if getattr(function, "__module__", None) in PURE:
        return run.symbol(name, *args, **kwargs)
    return run.opaque(name, why, *args, **kwargs)
