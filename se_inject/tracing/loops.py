"""The loops of a forward: in which round it is, and where only real inputs would tell how many there are."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

from ..source.function_text import FunctionText, Span, span_of
from .instrument import expression_at
from .value_proxy import Value
from .ways import Paths

_Place = tuple[FunctionText, Span] | None


class Loops:
    """The part of a run that follows them."""

    paths: Paths
    is_partial: bool
    at: Callable[[str], str]

    def __init__(self) -> None:
        self.loops: list[str] = []  # over values: errors may come of not knowing how long they are
        self._turns: dict[_Place, int] = {}  # of each for statement, by what it goes through
        self._rounds: dict[_Place, int] = {}  # of while statements

    def note_loop(self) -> None:
        """Note where the forward loops over a value: errors may come of not knowing how often."""
        self.is_partial = True
        self.loops.append(self.at("it loops over a value, whose length is known only at run time"))

    def rounds(self, items: Any) -> Iterator[Any]:
        """What a for statement goes through, with a note of which round it is in."""
        return self._counted(expression_at(sys._getframe(1)), iter(items))

    def _counted(self, place: _Place, items: Iterator[Any]) -> Iterator[Any]:
        for self._turns[place], item in enumerate(items):
            yield item

    def turn_at(self, text: FunctionText, span: Span) -> int:
        """In which round of the innermost for statement around it an expression is."""
        loop = text.loops.get(span)
        return 0 if loop is None else self._turns.get((text, span_of(loop.iter)), 0)

    def again(self, asked: int, test: Any) -> Any:
        """What a while statement goes on for; where a value rules that, two rounds show what it does."""
        place = expression_at(sys._getframe(1))
        if not isinstance(test, Value) and self.asked_so_far() == asked:
            return test
        self._rounds[place] = self._rounds.get(place, 0) + 1
        if self._rounds[place] <= 2 and test:
            return True
        self.is_partial |= self._rounds.pop(place) > 2
        return False

    def asked_so_far(self) -> int:
        """How many questions were asked on this way."""
        return self.paths.taken
