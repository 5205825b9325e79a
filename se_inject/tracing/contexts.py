"""Context managers in a forward: the author's own are entered, as what they set may rule the way."""

import ast
import contextlib
import inspect
import types
from collections.abc import Iterator
from typing import Any

from ..source.function_text import text_of
from ..source.functions import functions_in
from .reachable import is_library
from .value_proxy import Value, unknown


class Entered:
    """A context as a forward enters it; those of libraries are for effects alone, and stay as they are."""

    def __init__(self, run: Any, context: Any) -> None:
        self._run = run
        self._context = context
        self._generator: Iterator[Any] | None = None

    def __enter__(self) -> Any:
        run, context = self._run, self._context
        if isinstance(context, contextlib._GeneratorContextManager) and run.is_own_code(context.func):
            self._generator = run.instrument(context.func, context.args, context.kwds)
            return next(self._generator)  # type: ignore[arg-type]
        enter = self._own("__enter__")
        if enter is not None:
            return run.perform(enter, (context,), {})
        result = getattr(context, "enter_result", None)  # of contextlib.nullcontext
        return run.unknown() if result is None else result

    def __exit__(self, kind: Any, *_: object) -> None:
        leave = self._own("__exit__")
        if kind is not None:
            return
        if self._generator is not None:
            next(self._generator, None)
        elif leave is not None:
            self._run.perform(leave, (self._context, None, None, None), {})

    def _own(self, name: str) -> types.FunctionType | None:
        function = inspect.getattr_static(type(self._context), name, None)
        return function if isinstance(function, types.FunctionType) and self._run.is_own_code(function) else None


def may_suppress(context: Any) -> bool:
    """Whether a context may suppress an error, as ``contextlib.suppress`` does.

    >>> may_suppress(contextlib.suppress(KeyError)), may_suppress(contextlib.nullcontext())
    (True, False)
    """
    if isinstance(context, Value):
        return context.node.target is not unknown
    if isinstance(context, contextlib.suppress | contextlib.ExitStack):
        return True
    if isinstance(context, contextlib._GeneratorContextManager):
        return any(_holds(function, ast.ExceptHandler) for function in functions_in(context.func))
    leave = inspect.getattr_static(type(context), "__exit__", None)
    return isinstance(leave, types.FunctionType) and not is_library(leave.__module__) and _holds(leave, ast.Return)


def _holds(function: types.FunctionType, kind: type[ast.AST]) -> bool:
    """Whether a function has a statement of a kind, but for a return of nothing."""
    text = text_of(function)
    nodes = [] if text is None else ast.walk(text.node)
    return text is None or any(isinstance(n, kind) and not _returns_nothing(n) for n in nodes)


def _returns_nothing(node: ast.AST) -> bool:
    value = getattr(node, "value", None) if isinstance(node, ast.Return) else node
    return value is None or (isinstance(value, ast.Constant) and not value.value)
