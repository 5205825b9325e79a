"""Places of gates in the author's text: an edit, and what an expression offers to one."""

import ast
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from typing import Any

from torch import nn

from .function_text import FunctionText, Span, span_of, text_of
from .functions import exchanged, functions_in


@dataclass(frozen=True)
class Edit:
    """One place of a gate's call in a method of a class: around an expression, or before a statement."""

    method: str
    span: Span  # its lines counted from the method's first, which may move in its file
    digest: str  # of the method's text
    gate: str
    channels_last: bool = False
    assigns: bool = False  # whether the gate's call is a statement of its own, before the name at the span is changed
    owner: type | None = None  # the class above whose method it is, if the block's class calls that by super()
    walks: str = ""  # where children are walked through, without the gate: what an item of them is called there
    loop: Span | None = None  # the for statement around the span, if its rounds have gates of their own
    turn: int = 0  # the round of the loop that has this one


def moved(span: Span, lines: int) -> Span:
    """A span that many lines further down.

    >>> moved((1, 4, 2, 8), 10)
    (11, 4, 12, 8)
    """
    return span[0] + lines, span[1], span[2] + lines, span[3]


def by_method(edits: Iterable[Edit]) -> dict[tuple[type | None, str], tuple[Edit, ...]]:
    """Edits by the method that they are in, and by the class above that it belongs to, if so."""
    found: dict[tuple[type | None, str], tuple[Edit, ...]] = {}
    for edit in edits:
        key = edit.owner, edit.method
        found[key] = (*found.get(key, ()), edit)
    return found


Reach = tuple[str, bool]  # the name by which a method is found on a block, and whether super() finds it


def method_of(cls: type[nn.Module], reached: Set[Reach | None], text: FunctionText) -> tuple[str, type | None] | None:
    """Under which name a class finds the function of a text, and in which class above it, if by super().

    None if the function is reached in any other way too, as a bound method that is kept, where an edit would not show.
    """
    names = {reach[0] for reach in reached if reach is not None}
    if None in reached or len(names) != 1 or not _keeps_its_first_argument(text):
        return None
    [name] = names
    owners = [base for base in cls.__mro__ if name in vars(base)]
    for owner in owners:
        for function in functions_in(vars(owner)[name]):
            if text_of(function) is text and exchanged(vars(owner)[name], function, function) is not None:
                is_found_first = owner is owners[0] and (name, True) not in reached
                return (name, None if is_found_first else owner) if is_found_first or owner is not cls else None
    return None


def first_argument(text: FunctionText) -> str | None:
    """The name by which a method calls its module."""
    arguments = text.node.args
    return next((argument.arg for argument in (*arguments.posonlyargs, *arguments.args)), None)


def _keeps_its_first_argument(text: FunctionText) -> bool:
    """Whether the name of the block stands for it everywhere in a function."""
    name = first_argument(text)
    nodes = list(ast.walk(text.node))
    stored = any(isinstance(n, ast.Name) and n.id == name and not isinstance(n.ctx, ast.Load) for n in nodes)
    bound = any(name in (getattr(n, "name", None), getattr(n, "asname", None)) for n in nodes if n is not text.node)
    arguments = [n.arg for n in nodes if isinstance(n, ast.arg)]
    return name is not None and not stored and not bound and arguments.count(name) == 1


def operand(text: FunctionText, span: Span, index: int) -> tuple[Span, bool] | None:
    """The span of the expression that is an operand of what is computed at ``span``; whether that is assigned to."""
    for node in text.expressions.get(span, ()):
        operands: list[Any] = []
        if isinstance(node, ast.BinOp):
            operands = [node.left, node.right]
        elif isinstance(node, ast.AugAssign):
            operands = [node.target, node.value]
        elif isinstance(node, ast.Subscript):
            operands = [node.value]
        elif isinstance(node, ast.Call) and not any(isinstance(a, ast.Starred) for a in node.args):
            operands = list(node.args)
        if index < len(operands) and isinstance(operands[index], ast.expr):
            assigned = isinstance(node, ast.AugAssign) and index == 0
            if not assigned or isinstance(operands[index], ast.Name):
                return span_of(operands[index]), assigned
    return None


_ITEMS = {"values": "module", "children": "module", "items": "module[1]", "named_children": "module[1]"}


def walked(text: FunctionText, span: Span) -> tuple[Span, str] | None:
    """The span of what is walked through at ``span``, and which part of ``module``, its item, is a module."""
    for walk in _walks(text, span):
        if isinstance(walk, ast.Call) and isinstance(walk.func, ast.Attribute) and walk.func.attr in _ITEMS:
            return span_of(walk), _ITEMS[walk.func.attr]
    return None


def goes_through_itself(text: FunctionText, span: Span) -> bool:
    """Whether a Sequential goes through itself at a span, or asks for its own length."""
    return any(
        isinstance(walk, ast.Name) or (isinstance(walk, ast.Call) and isinstance(walk.func, ast.Name))
        for walk in _walks(text, span)
    )


def _walks(text: FunctionText, span: Span) -> Iterator[ast.AST]:
    for node in text.expressions.get(span, ()):
        loop = node.generators[0] if isinstance(node, ast.ListComp | ast.GeneratorExp) else node
        yield loop.iter if isinstance(loop, ast.For | ast.comprehension) else node


def is_expression(text: FunctionText, span: Span) -> bool:
    """Whether something can be written around a span."""
    return any(isinstance(node, ast.expr) for node in text.expressions.get(span, ()))
