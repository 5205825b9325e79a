"""A copy of a function in which what leaves no mark on a value is a call that the run on stand-ins answers.

The copy is compiled from the author's own text, and every node keeps its place: an instruction of the copy still tells
which expression of the text it stands for.
"""

import ast
import functools
import types
from typing import Any

from ..source.function_text import FunctionText, Span
from .transformer import put_helpers_into

# What the copy calls, and the method of the run that answers.
HELPERS = {
    f"__se_{name}__": name
    for name in (
        "call effect load attributes items is_ is_not in_ not_in equals differs text percent unpack spread enter rounds"
        " again asked_so_far places fails caught subject keywords mapping augmented stop"
    ).split()
}


@functools.lru_cache(maxsize=1024)
def instrumented(text: FunctionText) -> types.CodeType:
    """The instrumented code of a function; ``expression_at`` knows the places of its frames."""
    statement, node = text.parse(text.lines)
    put_helpers_into(node, text.class_name)
    code = text.compile(ast.fix_missing_locations(statement), text.filename)
    _register(code, text)
    return code


_registered: dict[int, tuple[types.CodeType, FunctionText, list[Any]]] = {}


def _register(code: types.CodeType, text: FunctionText) -> None:
    _registered[id(code)] = code, text, list(code.co_positions())
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _register(constant, text)


def is_instrumented(code: types.CodeType) -> bool:
    """Whether a code is an instrumented copy, or a function inside one."""
    return id(code) in _registered


def expression_at(frame: types.FrameType | None) -> tuple[FunctionText, Span] | None:
    """The expression that the innermost instrumented frame is at; None where there is none."""
    while frame is not None:
        known = _registered.get(id(frame.f_code))
        if known is not None:
            _, text, positions = known
            line, end_line, column, end_column = positions[frame.f_lasti // 2]
            return None if column is None else (text, (line, column, end_line, end_column))
        frame = frame.f_back
    return None
