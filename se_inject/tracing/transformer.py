"""Where in a function's syntax tree the run on stand-ins has a say."""

import ast
from typing import Any

_OF_FRAMES = frozenset({"super", "locals", "vars", "dir", "globals", "eval", "exec"})  # without arguments, or always

_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Is: "is_",
    ast.IsNot: "is_not",
    ast.In: "in_",
    ast.NotIn: "not_in",
    ast.Eq: "equals",
    ast.NotEq: "differs",
}


def _name(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())


def _call(helper: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(_name(f"__se_{helper}__"), list(arguments), [])


def _assign(name: str, value: ast.expr) -> ast.Assign:
    return ast.Assign([ast.Name(name, ast.Store())], value)


def _is_plain_call(node: ast.expr) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return isinstance(node, ast.Call)
    name = node.func.id
    return name not in _OF_FRAMES or (bool(node.args) and name not in ("eval", "exec"))


def _shape(target: ast.expr) -> ast.expr:
    """How many items a target takes: a number, or a tuple where there are targets in it; -1 for any number."""
    if not isinstance(target, ast.Tuple | ast.List):
        return ast.Constant(-1 if isinstance(target, ast.Starred) else 0)
    return ast.Tuple([_shape(item) for item in target.elts], ast.Load())


def put_helpers_into(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, class_name: str | None) -> None:
    """Put calls that the run answers into a function's syntax tree, in place."""
    instrument = _Instrument(class_name)
    if isinstance(function, ast.Lambda):
        function.body = instrument.visit(function.body)
        return
    function.body = instrument.visit_body(function.body)
    if function.args.kwarg:
        name = function.args.kwarg.arg
        keywords = _assign(name, _call("keywords", _name(name)))
        function.body.insert(0, ast.copy_location(keywords, function.body[0]))


class _Instrument(ast.NodeTransformer):
    """Puts calls of helpers where a function asks, loads, stores or calls; every node keeps its place."""

    def __init__(self, class_name: str | None) -> None:
        self._class_name = class_name

    def visit_body(self, body: list[ast.stmt]) -> list[ast.stmt]:
        visited: list[ast.stmt] = []
        for statement in body:
            new = self.visit(statement)
            visited += new if isinstance(new, list) else [new]
        return visited

    def visit_Call(self, node: ast.Call) -> ast.Call:
        return self._visit_call(node, "call")

    def _visit_call(self, node: ast.Call, helper: str) -> ast.Call:
        is_plain = _is_plain_call(node)
        self.generic_visit(node)
        if not is_plain:
            return node
        for keyword in node.keywords:
            if keyword.arg is None:
                keyword.value = _call("mapping", keyword.value)
        return ast.copy_location(ast.Call(_name(f"__se_{helper}__"), [node.func, *node.args], node.keywords), node)

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        if isinstance(node.value, ast.Call):
            node.value = self._visit_call(node.value, "effect")
            return node
        self.generic_visit(node)
        return node

    def visit_Dict(self, node: ast.Dict) -> ast.Dict:
        self.generic_visit(node)
        pairs = zip(node.keys, node.values, strict=True)
        node.values = [value if key is not None else _call("mapping", value) for key, value in pairs]
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        self.generic_visit(node)
        name = ast.Constant(self._mangled(node.attr))
        if isinstance(node.ctx, ast.Load):
            return ast.copy_location(_call("load", node.value, name), node)
        return ast.copy_location(ast.Subscript(_call("attributes", node.value), name, node.ctx), node)

    def _mangled(self, name: str) -> str:
        is_private = name.startswith("__") and not name.endswith("__") and self._class_name is not None
        return f"_{self._class_name.lstrip('_')}{name}" if is_private else name  # type: ignore[union-attr]

    def visit_Subscript(self, node: ast.Subscript) -> ast.Subscript:
        self.generic_visit(node)
        node.value = _call("items", node.value)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        helper = _COMPARISONS.get(type(node.ops[0]))
        if len(node.ops) > 1 and any(type(op) in _COMPARISONS for op in node.ops):
            return self._chain(node)
        if len(node.ops) > 1 or helper is None:
            return node
        return ast.copy_location(_call(helper, node.left, node.comparators[0]), node)

    def _chain(self, node: ast.Compare) -> ast.expr:
        """``a is b is c`` as ``a is b and b is c``, where ``b`` is the same both times."""
        operands = [node.left, *node.comparators]
        parts = [ast.Compare(operands[i], [op], [operands[i + 1]]) for i, op in enumerate(node.ops)]
        helpers = [(_COMPARISONS.get(type(op)), part) for op, part in zip(node.ops, parts, strict=True)]
        values: list[ast.expr] = [_call(h, p.left, p.comparators[0]) if h else p for h, p in helpers]
        return ast.copy_location(ast.BoolOp(ast.And(), values), node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.expr:
        parts: list[ast.expr] = []
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                spec = self.visit(part.format_spec) if part.format_spec else ast.Constant("")
                parts.append(
                    ast.Tuple([self.visit(part.value), ast.Constant(part.conversion), spec], ast.Load()),
                )
            else:
                parts.append(part)
        return ast.copy_location(_call("text", *parts), node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant) and isinstance(node.left.value, str):
            return ast.copy_location(_call("percent", node.left, node.right), node)
        return node

    def visit_Starred(self, node: ast.Starred) -> ast.Starred:
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Load):
            node.value = _call("spread", node.value)
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        taken_apart = next((t for t in node.targets if isinstance(t, ast.Tuple | ast.List)), None)
        shape = _shape(taken_apart) if taken_apart is not None else None
        self.generic_visit(node)
        if shape is not None:
            node.value = ast.copy_location(_call("unpack", node.value, shape), node.value)
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> list[ast.stmt]:
        name = node.target.id if isinstance(node.target, ast.Name) else None
        is_item = isinstance(node.target, ast.Subscript)
        self.generic_visit(node)
        if is_item:
            node.target.value.func.id = "__se_places__"  # type: ignore[union-attr]
        if name is None:
            return [node]
        return [ast.copy_location(_assign(name, _call("augmented", _name(name))), node), node]

    def visit_For(self, node: ast.For) -> ast.For:
        shape = _shape(node.target) if isinstance(node.target, ast.Tuple | ast.List) else None
        self.generic_visit(node)
        node.iter = ast.copy_location(_call("rounds", node.iter), node.iter)
        if shape is not None:
            unpack = ast.Assign([node.target], _call("unpack", _name("__se_item__"), shape))
            node.body.insert(0, ast.copy_location(unpack, node.target))
            node.target = ast.copy_location(ast.Name("__se_item__", ast.Store()), node.target)
        return node

    def visit_While(self, node: ast.While) -> ast.While:
        self.generic_visit(node)
        node.test = ast.copy_location(_call("again", _call("asked_so_far"), node.test), node.test)
        return node

    def visit_With(self, node: ast.With) -> ast.With:
        self.generic_visit(node)
        for item in node.items:
            item.context_expr = ast.copy_location(_call("enter", item.context_expr), item.context_expr)
        return node

    def visit_Try(self, node: ast.Try) -> ast.stmt:
        self.generic_visit(node)
        if not node.handlers:
            return node
        explored: list[ast.stmt] = []
        for handler in reversed(node.handlers):
            bound = [_assign(handler.name, _call("caught"))] if handler.name else []
            explored = [ast.If(_call("fails"), [*bound, *handler.body], explored)]
        stop = ast.ExceptHandler(_name("__se_stop__"), None, [ast.Raise()])
        tried = ast.Try(node.body, [stop, *node.handlers], node.orelse, [])
        innermost: Any = explored[0]
        while innermost.orelse:
            innermost = innermost.orelse[0]
        innermost.orelse = [tried]
        outcome: list[ast.stmt] = [ast.copy_location(s, node) for s in explored]
        return ast.copy_location(ast.Try(outcome, [], [], node.finalbody), node) if node.finalbody else outcome[0]

    def visit_Match(self, node: ast.Match) -> ast.Match:
        node.subject = ast.copy_location(_call("subject", self.visit(node.subject)), node.subject)
        for case in node.cases:  # patterns hold names only
            case.guard = self.visit(case.guard) if case.guard else None
            case.body = self.visit_body(case.body)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt | None:
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return self.visit_Assign(ast.copy_location(ast.Assign([node.target], node.value), node))
