"""What a function can reach without being given it: whether it writes anywhere, or draws random numbers."""

import ast
import functools
import inspect
import random
import re
import sys
import types
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..source.function_text import text_of
from ..source.functions import closed_over, names_in

_DRAWS = re.compile(r"rand|normal|bernoulli|multinomial|dropout|uniform|exponential_|gumbel|seed|noise|shuffle")
_DEPTH = 4


def is_library(module: str | None) -> bool:
    """Whether a module is of Python's own library, NumPy's or torch's.

    >>> is_library("collections.abc"), is_library("torch.nn"), is_library("timm.layers")
    (True, True, False)
    """
    top = (module or "").partition(".")[0]
    return top in sys.stdlib_module_names or top in ("torch", "numpy")


def is_generator(value: Any) -> bool:
    """Whether a value is a random generator, of Python, NumPy or torch.

    >>> is_generator(random.Random())
    True
    """
    is_numpys = type(value).__module__.startswith("numpy.random") and hasattr(value, "random")
    return is_numpys or isinstance(value, random.Random | torch.Generator | torch.quasirandom.SobolEngine)


@dataclass
class Reach:
    """What functions name, close over and hold, and what the functions among that do."""

    functions: list[types.FunctionType] = field(default_factory=list)
    generators: list[Any] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    libraries: set[str] = field(default_factory=set)
    _seen: dict[int, Any] = field(default_factory=dict)

    @staticmethod
    def of(*code: Any) -> "Reach":
        """What these functions, and functions that objects among these have, can reach.

        >>> def draw(): return random.random()
        >>> reach = Reach.of(draw)
        >>> reach.may_draw_from("random"), reach.may_draw_from("torch"), reach.has_effects
        (True, False, True)
        """
        reach = Reach()
        reach._follow(code, _DEPTH)
        return reach

    def may_draw_from(self, stream: str) -> bool:
        """Whether a global random stream is in reach: "random", "numpy", "torch" or "cuda"."""
        return stream.replace("cuda", "torch") in self.libraries

    @property
    def has_effects(self) -> bool:
        """Whether the functions write anywhere but to their own variables, or draw random numbers."""
        draws = not self.libraries.isdisjoint(("random", "numpy", "torch")) and any(map(_DRAWS.search, self.names))
        return draws or bool(self.generators) or any(map(writes, self.functions))

    def _follow(self, values: Iterable[Any], depth: int) -> None:
        for value in values:
            if id(value) not in self._seen and depth:
                self._seen[id(value)] = value
                self._follow_one(value, depth)

    def _follow_one(self, value: Any, depth: int) -> None:
        if is_generator(value):
            self.generators.append(value)
        elif isinstance(value, types.MethodType):
            self._follow((value.__self__, value.__func__), depth)
        elif isinstance(value, types.BuiltinFunctionType):
            self._note_library(value.__module__)
            self._follow((value.__self__,), depth)
        elif isinstance(value, functools.partial):
            self._follow((value.func, *value.args, *value.keywords.values()), depth)
        elif isinstance(value, types.FunctionType):
            self._follow_function(value, depth)
        elif isinstance(value, types.ModuleType):
            self._note_library(value.__name__)
            if value is random:
                self.generators.append(random._inst)  # type: ignore[attr-defined]
            if not is_library(value.__name__):
                self._follow([vars(value)[name] for name in self.names if name in vars(value)], depth - 1)
        elif isinstance(value, dict | list | tuple):
            self._follow(value.values() if isinstance(value, dict) else value, depth - 1)
        elif not isinstance(value, torch.Tensor | nn.Module):
            self._follow(_attributes(value, self.names), depth - 1)

    def _follow_function(self, function: types.FunctionType, depth: int) -> None:
        self._note_library(function.__module__)
        if is_library(function.__module__):
            return
        self.functions.append(function)
        names = set(names_in(function.__code__))
        self.names |= names
        held = [function.__globals__[name] for name in names if name in function.__globals__]
        self._follow((*held, *closed_over(function), *(function.__defaults__ or ())), depth - 1)

    def _note_library(self, module: str | None) -> None:
        self.libraries.add((module or "").partition(".")[0])


def _attributes(value: Any, names: set[str]) -> list[Any]:
    """What an object holds, and what its class has of these names, asked of neither."""
    cls = value if isinstance(value, type) else type(value)
    if is_library(cls.__module__) or cls.__module__ == "builtins":
        return []
    of_class = [found for name in names if (found := inspect.getattr_static(cls, name, None)) is not None]
    slots = [item for item in of_class if isinstance(item, types.MemberDescriptorType)]
    held = [] if isinstance(value, type) else [slot.__get__(value) for slot in slots if hasattr(value, slot.__name__)]
    return [*held, *of_class, *(() if isinstance(value, type) else getattr(value, "__dict__", {}).values())]


@functools.lru_cache(maxsize=4096)
def writes(function: types.FunctionType) -> bool:
    """Whether a function sets more than variables of its own, or calls anything for its effect."""
    text = text_of(function)
    return text is not None and any(map(_is_effect, ast.walk(text.node)))


def _is_effect(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute | ast.Subscript):
        return not isinstance(node.ctx, ast.Load)
    return isinstance(node, ast.Global | ast.Nonlocal) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    )
