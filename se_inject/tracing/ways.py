"""The ways through a forward: each answer to a question that only real inputs could settle is tried."""

from typing import Any

from .errors import UntraceableError

TRAINING = "training of "  # how the question begins whether a module is

_MAX_PATHS = 128
_MAX_CHOICES = 200  # on one way, where a loop asks again and again
_MAX_CALLS = 100_000  # on all ways, of which the longest forwards of the zoos make a hundredth


class Paths:
    """The branches that a forward takes, one way after the other, depth first.

    >>> paths, ways = Paths(), []
    >>> while paths.start():
    ...     ways.append((paths.choose("a"), paths.choose("b"), paths.choose("a")))
    >>> ways
    [(True, True, True), (True, False, True), (False, True, False), (False, False, False)]
    """

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}  # what holds on all ways
        self._calls = 0
        self._ways = 0
        self._choices: list[tuple[bool, bool]] = []  # the answers, and whether both have been tried
        self._answers: dict[str, bool] = {}

    def start(self) -> bool:
        """Begin the next way; False when all have been walked. Raises ``UntraceableError`` for too many."""
        if self._ways:
            while self._choices and self._choices[-1][1]:
                self._choices.pop()
            if not self._choices:
                return False
            self._choices[-1] = not self._choices[-1][0], True
        self._answers = {}
        self._ways += 1
        if self._ways > _MAX_PATHS:
            raise UntraceableError(f"there are more than {_MAX_PATHS} ways through it")
        return True

    def count_call(self) -> None:
        """Count a call. Raises ``UntraceableError`` for too many, which would take minutes."""
        self._calls += 1
        if self._calls > _MAX_CALLS:
            raise UntraceableError(f"the ways through it make more than {_MAX_CALLS:,} calls")

    @property
    def taken(self) -> int:
        """How many questions were asked on this way."""
        return len(self._answers)

    @property
    def modes(self) -> dict[str, bool]:
        """What was answered on this way where the forward asked whether a module is in training."""
        return {question: answer for question, answer in self._answers.items() if question.startswith(TRAINING)}

    def choose(self, question: str, first: bool = True) -> bool:
        """The answer on this way, the same each time that the question is asked; ``first`` is tried first."""
        if question in self._answers:
            return self._answers[question]
        if self.taken == len(self._choices):
            if self.taken == _MAX_CHOICES:
                raise UntraceableError(f"it branches more than {_MAX_CHOICES} times on values known only at run time")
            self._choices.append((first, False))
        answer = self._answers[question] = self._choices[self.taken][0]
        return answer
