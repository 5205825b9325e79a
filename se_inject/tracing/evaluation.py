"""What the expressions of a text were evaluated to, on one way through a forward."""

from typing import NamedTuple

from ..source.function_text import FunctionText, Span


class Expression(NamedTuple):
    """A place in the text of a function; ``of_block`` if that runs on the block itself, not on a module below."""

    text: FunctionText
    span: Span
    of_block: bool


Attr = tuple[str | None, str]  # the path of a module below the block, and the name of an attribute


class Evaluation(NamedTuple):
    """What an expression was evaluated to, if that is a value, and, if it is a call, with which values; by name."""

    expression: Expression
    value: str | None
    arguments: tuple[str, ...]
    turn: int  # in which round of the innermost loop around it
