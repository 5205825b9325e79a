"""The text of a function, proven to be what runs."""

import ast
import dis
import functools
import hashlib
import linecache
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

# First and last line, from 1, and columns in UTF-8 bytes, as of ast and of code.co_positions().
Span = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class FunctionText:
    """A function of a file: ``statement`` holds it, below nothing but ``classes``; lines and columns are the file's."""

    filename: str
    lines: tuple[str, ...]
    imports: tuple[ast.stmt, ...]  # of the file: how the compiler loads an imported name's attributes depends on them
    classes: tuple[ast.ClassDef, ...]
    statement: ast.stmt
    node: Function
    class_name: str | None  # the innermost class, for private names
    code: types.CodeType
    ordinal: int  # which of the functions of its name on its line it is, as lambdas may share one

    @functools.cached_property
    def digest(self) -> str:
        """Tells this text of the function from others."""
        return hashlib.sha256("".join(self.lines[self.first - 1 : self.node.end_lineno]).encode()).hexdigest()[:16]

    @property
    def first(self) -> int:
        """The function's first line, with its decorators."""
        return _first_line(self.node)

    @functools.cached_property
    def expressions(self) -> dict[Span, list[ast.AST]]:
        """All nodes in the function by their span, outer ones first."""
        found: dict[Span, list[ast.AST]] = {}
        for node in ast.walk(self.node):
            if hasattr(node, "lineno"):
                found.setdefault(span_of(node), []).append(node)
        return found

    @functools.cached_property
    def loops(self) -> dict[Span, ast.For]:
        """The innermost for statement around each expression in one."""
        found: dict[Span, ast.For] = {}
        for loop in ast.walk(self.node):  # outer ones first
            if isinstance(loop, ast.For):
                inside = (node for statement in loop.body for node in ast.walk(statement))
                found.update((span_of(node), loop) for node in inside if hasattr(node, "lineno"))
        return found

    def parse(self, lines: tuple[str, ...]) -> tuple[ast.stmt, Function]:
        """The function's statement, and the function in it, anew from ``lines`` that are the file's or edited ones."""
        first, column = _first_line(self.statement), self.statement.col_offset
        is_first = not self.lines[first - 1].encode()[:column].strip()
        if is_first:
            padding = "\n" * (first - 1 - (column > 0)) + "if 1:\n" * (column > 0)
            tree = ast.parse(padding + "".join(lines[first - 1 : self.statement.end_lineno]))
        else:
            tree = ast.parse("".join(lines))
        place = self.statement.lineno, column
        statements = (n for n in ast.walk(tree) if isinstance(n, type(self.statement)))
        statement = next(n for n in statements if (n.lineno, n.col_offset) == place)
        return statement, self._alike(statement)[self._alike(self.statement).index(self.node)]

    def _alike(self, statement: ast.stmt) -> list[Function]:
        """The functions of that name on that line: edits add none."""
        return [
            node
            for node in ast.walk(statement)
            if isinstance(node, Function) and (_first_line(node), _name(node)) == (self.first, _name(self.node))
        ]

    def compile(self, statement: ast.stmt, filename: str) -> types.CodeType:
        """The code of the function in ``statement``, compiled where it stands in its file."""
        module = _module(self.imports, self.classes, statement)
        return list(_of_name(compile(module, filename, "exec", dont_inherit=True), self.code))[self.ordinal]


def text_of(function: types.FunctionType) -> FunctionText | None:
    """The text of a function; None where it has none, or where its file is not what runs.

    >>> text_of(linecache.getline).node.name, text_of(eval("lambda: 1"))
    ('getline', None)
    """
    code, filename = function.__code__, function.__code__.co_filename
    linecache.checkcache(filename)
    lines = tuple(linecache.getlines(filename, function.__globals__))
    return _text(code, filename, lines) if lines else None


@functools.lru_cache(maxsize=4096)
def _text(code: types.CodeType, filename: str, lines: tuple[str, ...]) -> FunctionText | None:
    file = _parsed(filename, lines)
    if file is None:
        return None
    imports, functions = file
    for classes, statement, node, class_name in functions.get((code.co_firstlineno, code.co_name), ()):
        # A notebook compiles each statement alone.
        for known in (imports, tuple(s for s in imports if getattr(s, "module", None) == "__future__")):
            compiled = compile(_module(known, classes, statement), filename, "exec", dont_inherit=True)
            for ordinal, found in enumerate(_of_name(compiled, code)):
                if _is_of(found, node) and (_is_same(found, code) or _is_same_but_for_asserts(found, code, node)):
                    return FunctionText(filename, lines, known, classes, statement, node, class_name, found, ordinal)
    return None


def span_of(node: Any) -> Span:
    """The span of a node of ast."""
    return node.lineno, node.col_offset, node.end_lineno, node.end_col_offset


_Place = tuple[tuple[ast.ClassDef, ...], ast.stmt, Function, str | None]


@functools.lru_cache(maxsize=64)
def _parsed(
    filename: str, lines: tuple[str, ...]
) -> tuple[tuple[ast.stmt, ...], dict[tuple[int, str], list[_Place]]] | None:
    """The imports of a file and its functions by first line and name; None where it is no Python."""
    try:
        tree = ast.parse("".join(lines), filename)
    except (SyntaxError, ValueError):
        return None
    imports = tuple(s for s in _module_level(tree.body) if isinstance(s, ast.Import | ast.ImportFrom))
    functions: dict[tuple[int, str], list[_Place]] = {}
    for place in _places(tree.body, ()):
        functions.setdefault((_first_line(place[2]), _name(place[2])), []).append(place)
    return imports, functions


def _module_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        for field in ("body", "orelse", "handlers", "finalbody"):
            if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from _module_level(getattr(statement, field, []))


def _places(body: list[ast.stmt], classes: tuple[ast.ClassDef, ...]) -> Iterator[_Place]:
    for statement in body:
        if isinstance(statement, ast.ClassDef):
            yield from _places(statement.body, (*classes, statement))
        else:
            outer = classes[-1].name if classes else None
            yield from ((classes, statement, node, name) for node, name in _functions(statement, outer))


def _functions(node: ast.AST, class_name: str | None) -> Iterator[tuple[Function, str | None]]:
    if isinstance(node, Function):
        yield node, class_name
    inner = node.name if isinstance(node, ast.ClassDef) else class_name
    for child in ast.iter_child_nodes(node):
        yield from _functions(child, inner)


def _first_line(node: Any) -> int:
    decorators = getattr(node, "decorator_list", None)
    return int(decorators[0].lineno if decorators else node.lineno)


def _name(node: Function) -> str:
    return "<lambda>" if isinstance(node, ast.Lambda) else node.name


def _module(imports: tuple[ast.stmt, ...], classes: tuple[ast.ClassDef, ...], statement: ast.stmt) -> ast.Module:
    inner = statement
    for cls in reversed(classes):
        fields = {"bases": [], "keywords": [], "decorator_list": [], "type_params": getattr(cls, "type_params", [])}
        inner = ast.copy_location(ast.ClassDef(name=cls.name, body=[inner], **fields), cls)  # type: ignore[arg-type]
    return ast.Module(body=[*imports, inner], type_ignores=[])


def _of_name(code: types.CodeType, like: types.CodeType) -> Iterator[types.CodeType]:
    if (code.co_name, code.co_firstlineno) == (like.co_name, like.co_firstlineno):
        yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _of_name(constant, like)


def _is_of(code: types.CodeType, node: Function) -> bool:
    """Whether a code is that of a lambda, where a line has several of them; functions have names."""
    if not isinstance(node, ast.Lambda):
        return True
    spans = [(line, column, end, last) for line, end, column, last in code.co_positions() if column is not None]
    starts, ends = {(line, column) for line, column, _, _ in spans}, {(end, last) for _, _, end, last in spans}
    body = span_of(node.body)
    return body[:2] in starts and body[2:] in ends


def _is_same(a: types.CodeType, b: types.CodeType) -> bool:
    return a == b and list(a.co_positions()) == list(b.co_positions())


def _is_same_but_for_asserts(a: types.CodeType, b: types.CodeType, node: Function) -> bool:
    """Whether two codes do the same outside of assert statements, which pytest writes anew."""
    lines = {n: (n.lineno, n.end_lineno) for n in ast.walk(node) if isinstance(n, ast.Assert)}.values()
    return bool(lines) and _outside(a, lines) == _outside(b, lines)


def _outside(code: types.CodeType, left_out: Any) -> list[Any]:
    steps = []
    for step in dis.get_instructions(code):
        line = step.positions.lineno if step.positions else None
        if line is not None and not any(first <= line <= last for first, last in left_out):
            is_jump = step.opcode in dis.hasjrel or step.opcode in dis.hasjabs
            value = step.argval if not isinstance(step.argval, types.CodeType) else step.argval.co_name
            steps.append((step.opname, None if is_jump else repr(value), step.positions))
    return steps
