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

    def reach(self, function: Any) -> None:
        """Note how the function that runs next was found: by a name, inside what was found by one, or otherwise."""
        if isinstance(function, types.MethodType):
            known = self._bound.get(id(function))
            self._reach = None if known is None else known[1]
        elif self._reach is not None and not self._is_within(function, self._reach[0]):
            self._reach = None

    def reaching(self, function: Any, run: Callable[[], Any]) -> Any:
        """What ``run`` returns, with a note of how the function that it runs was found."""
        before = self._reach
        self.reach(function)
        try:
            return run()
        finally:
            self._reach = before

    def _is_within(self, function: types.FunctionType, name: str) -> bool:
        return any(
            function is f for c in self._block_class.__mro__ if name in vars(c) for f in functions_in(vars(c)[name])
        )
