"""Gates written into the author's text, and the functions that come of it."""

import ast
import functools
import inspect
import itertools
import linecache
import types
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from torch import nn

from ..errors import RewriteError
from .edits import Edit, first_argument, moved
from .function_text import FunctionText, Span, span_of, text_of
from .functions import exchanged, functions_in, like


def text_for(cls: type[nn.Module], method: str, digest: str) -> tuple[types.FunctionType, FunctionText]:
    """A method's function, and its text as it was when an edit was planned. Raises ``RewriteError``."""
    file = "its file"
    for function in functions_in(inspect.getattr_static(cls, method, None)):
        text = text_of(function)
        if text is not None and text.digest == digest:
            return function, text
        file = function.__code__.co_filename
    raise RewriteError(
        f"{cls.__qualname__}.{method} has changed since the gates were planned: {file} no longer matches;"
        " rebuild the model, call se_inject.apply, and load a state_dict"
    )


_Insertion = tuple[int, int, int, str]  # line, column, order among those there, and what is written


def edited_lines(text: FunctionText, edits: Iterable[Edit]) -> tuple[str, ...]:
    """The lines of a file with gates in them; no line is added."""
    alike: dict[Edit, list[Edit]] = {}  # edits that gate the rounds of a loop stand in one place
    for edit in edits:
        alike.setdefault(replace(edit, gate="", turn=0) if edit.loop else edit, []).append(edit)
    rounds = _round_names(text, dict.fromkeys(edit.loop for edit in alike if edit.loop))
    inserted = [part for edit, gates in alike.items() for part in _gate(text, edit, gates, rounds)]
    inserted += [part for loop, name in rounds.items() for part in _count(text, loop, name)]
    lines = [text.encode() for text in text.lines]
    for line, column, _, written in sorted(inserted, reverse=True):
        lines[line - 1] = lines[line - 1][:column] + written.encode() + lines[line - 1][column:]
    return tuple(line.decode() for line in lines)


def _gate(text: FunctionText, edit: Edit, gates: list[Edit], rounds: dict[Span, str]) -> Iterator[_Insertion]:
    """The call of a gate, or of that of the loop's round."""
    block = first_argument(text)
    called = [_attribute(block, edit.gate) for edit in gates]
    if edit.loop:
        by_round = ", ".join(f"{edit.turn}: {name}" for edit, name in zip(gates, called, strict=True))
        called = [f"{{{by_round}}}.get({rounds[edit.loop]}, lambda value: value)"]
    before, after = f"{called[0]}(", ")"
    if edit.walks:
        name = edit.gate.partition(".")[0]
        before, after = "iter([module for module in ", f" if {edit.walks} is not {block}.{name}])"
    elif edit.channels_last:
        before, after = f"{called[0]}((", ").movedim(-1, 1)).movedim(1, -1)"
    span = moved(edit.span, text.first)
    if edit.assigns:
        line, column, _, end = span
        target = text.lines[line - 1].encode()[column:end].decode()
        return iter([(line, column, 0, f"{target} = {before}{target}{after}; ")])
    return _around(span, before, after)


def _attribute(block: str | None, gate: str) -> str:
    name, _, index = gate.partition(".")
    return f'{block}.{name}["{index}"]' if index else f"{block}.{name}"


def _around(span: Span, before: str, after: str) -> Iterator[_Insertion]:
    """What starts or ends at the same place is written around what is shorter."""
    line, column, end_line, end_column = span
    yield line, column, -end_line * 10**6 - end_column, before
    yield end_line, end_column, -line * 10**6 - column, after


def _round_names(text: FunctionText, loops: Iterable[Span]) -> dict[Span, str]:
    """A name for the number of each loop's round."""
    taken = {getattr(node, "id", None) or getattr(node, "arg", None) for node in ast.walk(text.node)}
    free = (name for i in itertools.count() if (name := f"se_round{i or ''}") not in taken)
    return dict(zip(loops, free, strict=False))


def _count(text: FunctionText, loop: Span, name: str) -> Iterator[_Insertion]:
    """The header of a loop, with the number of the round."""
    [statement] = (n for n in text.expressions[moved(loop, text.first)] if isinstance(n, ast.For))
    left, right = _parentheses(statement.target)
    yield from _around(span_of(statement.target), f"{name}, {left}", right)
    left, right = _parentheses(statement.iter)
    yield from _around(span_of(statement.iter), f"enumerate({left}", f"{right})")


def _parentheses(node: ast.expr) -> tuple[str, str]:
    """What a tuple needs around it, as it may have none of its own."""
    return ("(", ")") if isinstance(node, ast.Tuple) else ("", "")


def edited_method(cls: type[nn.Module], method: str, edits: tuple[Edit, ...]) -> Any:
    """A method of a class with gates in it, its decorators kept. Raises ``RewriteError``."""
    whole = inspect.getattr_static(cls, method)
    function, text = text_for(cls, method, edits[0].digest)
    if any(edit.loop for edit in edits) and _has_own_enumerate(function):
        raise RewriteError(
            f"{cls.__qualname__}.{method}: rename what hides the builtin enumerate, which its gates need"
        )
    lines = edited_lines(text, edits)
    # Under linecache the text shows in tracebacks, debuggers and inspect.getsource.
    filename = f"<se_inject {text.filename} {abs(hash(lines)):x}>"
    linecache.cache[filename] = (sum(map(len, lines)), None, list(lines), filename)
    code = _compiled(text, lines, filename)
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    new = types.FunctionType(
        code,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        tuple(cells[name] for name in code.co_freevars),
    )
    replacement = exchanged(whole, function, like(new, function))
    if replacement is None:
        raise RewriteError(f"{cls.__qualname__}.{method}: its decorators cannot be applied to the gated function")
    return replacement


@functools.lru_cache(maxsize=1024)
def _compiled(text: FunctionText, lines: tuple[str, ...], filename: str) -> types.CodeType:
    return text.compile(text.parse(lines)[0], filename)


def _has_own_enumerate(function: types.FunctionType) -> bool:
    code, name = function.__code__, "enumerate"
    is_local = name in (*code.co_varnames, *code.co_cellvars, *code.co_freevars)
    return is_local or function.__globals__.get(name, enumerate) is not enumerate
