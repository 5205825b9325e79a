"""The ways through a forward that a graph cannot hold: each one is traced, to see where a value comes from.

The forward itself stays as it is; a gate then goes on the output of the child that makes the value.
"""

import inspect
from typing import Any

import torch
from torch import fx
from torch.overrides import TorchFunctionMode

from .proxy import UntraceableError

_MAX_PATHS = 64


class DeadEnd(Exception):  # noqa: N818 - it is no error: such inputs do not occur
    """This way ends in an error of the forward's own, as where an assert on a shape fails."""


class Paths:
    """The branches that a forward takes, one way after the other, depth first.

    >>> paths, ways = Paths(), []
    >>> while paths.start():
    ...     ways.append((paths.choose(), paths.choose()))
    >>> ways
    [(True, True), (True, False), (False, True), (False, False)]
    """

    def __init__(self) -> None:
        self._choices: list[bool] | None = None
        self._taken = 0
        self._number = 0
        self._remembered: dict[str, bool] = {}

    def start(self) -> bool:
        """Begin the next way; False when all have been walked. Raises ``UntraceableError`` for too many."""
        if self._choices is None:
            self._choices = []
        else:
            while self._choices and not self._choices[-1]:
                self._choices.pop()
            if not self._choices:
                return False
            self._choices[-1] = False
        self._taken, self._remembered = 0, {}
        self._number += 1
        if self._number > _MAX_PATHS:
            raise UntraceableError(f"there are more than {_MAX_PATHS} ways through it")
        return True

    def choose(self) -> bool:
        """Where the next branch goes on this way."""
        assert self._choices is not None
        if self._taken == len(self._choices):
            self._choices.append(True)
        self._taken += 1
        return self._choices[self._taken - 1]

    def choose_always(self, question: str) -> bool:
        """The same answer each time that this question is asked on this way."""
        if question not in self._remembered:
            self._remembered[question] = self.choose()
        return self._remembered[question]

    def arguments(self, parameters: list[inspect.Parameter], compared: set[str]) -> dict[str, Any]:
        """Values for the optional arguments on this way: flags are True or False, others may be None."""
        fixed: dict[str, Any] = {}
        for parameter in parameters:
            if isinstance(parameter.default, bool):
                fixed[parameter.name] = self.choose()
            elif (parameter.default is None or parameter.name in compared) and self.choose():
                fixed[parameter.name] = None
        return fixed


def unknown() -> None:
    """Stands in a graph for a tensor that the forward makes without its inputs, such as a random one."""


class Unknowns(TorchFunctionMode):
    """Turns every tensor that torch makes from nothing into a value of the graph, so that nothing branches on it."""

    def __init__(self, tracer: fx.Tracer) -> None:
        super().__init__()
        self._tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            made = func(*args, **(kwargs or {}))
        except UntraceableError as error:
            if "random" not in str(error):
                raise
            return self._tracer.create_proxy("call_function", unknown, (), {})
        if isinstance(made, torch.Tensor) and not isinstance(made, fx.Proxy):
            return self._tracer.create_proxy("call_function", unknown, (), {})
        return made
