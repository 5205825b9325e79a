"""How the methods of a block are reached: an edit shows only where a method is found by its name, or by super()."""

import types
from collections.abc import Callable
from typing import Any

from torch import nn

from ..source.edits import Reach
from ..source.function_text import FunctionText
from ..source.functions import functions_in


class Methods:
    """The part of a run that notes it."""

    def __init__(self, block_class: type[nn.Module]) -> None:
        self.reached: dict[FunctionText, set[Reach | None]] = {}  # None: in a way that an edit would not show in
        self._block_class = block_class
        self._bound: dict[int, tuple[types.MethodType, Reach]] = {}
        self._reach: Reach | None = ("forward", False)

    def bind(self, method: types.MethodType, name: str, by_super: bool) -> types.MethodType:
        """A method that was found by its name on the block."""
        self._bound[id(method)] = method, (name, by_super)
        return method

    def reaching(self, function: Any, run: Callable[[], Any]) -> Any:
        """What ``run`` returns, with a note of how ``function`` was found: by a name, in what was so found, or not."""
        before = self._reach
        if isinstance(function, types.MethodType):
            self._reach = self._bound.get(id(function), (function, None))[1]
        elif before is not None and not self._is_within(function, before[0]):
            self._reach = None
        try:
            return run()
        finally:
            self._reach = before

    def _is_within(self, function: types.FunctionType, name: str) -> bool:
        return any(
            function is f for c in self._block_class.__mro__ if name in vars(c) for f in functions_in(vars(c)[name])
        )
