"""Where in a function's syntax tree the run on stand-ins has a say."""

import ast
from typing import Any

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


def _around(helper: str, node: ast.expr, *more: ast.expr) -> ast.Call:
    return ast.copy_location(_call(helper, node, *more), node)


def _assign(name: str, value: ast.expr) -> ast.Assign:
    return ast.Assign([ast.Name(name, ast.Store())], value)


def _reads_its_caller(call: ast.Call) -> bool:
    """Whether a builtin looks at the variables of the function that calls it: no helper can call it in its place."""
    name = getattr(call.func, "id", None)
    return name in ("eval", "exec") or (name in ("super", "locals", "vars", "dir", "globals") and not call.args)


def _shape(target: ast.expr) -> ast.expr:
    """How many items a target takes: a number, or a tuple where there are targets in it; -1 for any number."""
    if not isinstance(target, ast.Tuple | ast.List):
        return ast.Constant(-1 if isinstance(target, ast.Starred) else 0)
    return ast.Tuple([_shape(item) for item in target.elts], ast.Load())


def put_helpers_into(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, class_name: str | None) -> None:
    """Put calls that the run answers into a function's syntax tree, in place."""
    _Instrument(class_name).generic_visit(function)
    if function.args.kwarg and not isinstance(function, ast.Lambda):
        name = function.args.kwarg.arg
        keywords = _assign(name, _call("keywords", _name(name)))
        function.body.insert(0, ast.copy_location(keywords, function.body[0]))


class _Instrument(ast.NodeTransformer):
    """Puts calls of helpers where a function asks, loads, stores or calls; every node keeps its place."""

    def __init__(self, class_name: str | None) -> None:
        self._class_name = class_name

    def visit(self, node: ast.AST) -> Any:
        """What takes the place of a node."""
        new = super().visit(node)
        for replacement in new if isinstance(new, list) else [new]:
            ast.copy_location(replacement, node)
        return new

    def visit_Call(self, node: ast.Call) -> ast.Call:
        return self._visit_call(node, "call")

    def _visit_call(self, node: ast.Call, helper: str) -> ast.Call:
        self.generic_visit(node)
        if _reads_its_caller(node):
            return node
        for keyword in node.keywords:
            if keyword.arg is None:
                keyword.value = _call("mapping", keyword.value)
        return ast.copy_location(ast.Call(_name(f"__se_{helper}__"), [node.func, *node.args], node.keywords), node)

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        if isinstance(node.value, ast.Call):
            node.value = self._visit_call(node.value, "effect")
        else:
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
            return _call("load", node.value, name)
        return ast.Subscript(_call("attributes", node.value), name, node.ctx)

    def _mangled(self, name: str) -> str:
        is_private = name.startswith("__") and not name.endswith("__") and self._class_name is not None
        return f"_{self._class_name.lstrip('_')}{name}" if is_private else name  # type: ignore[union-attr]

    def visit_Subscript(self, node: ast.Subscript) -> ast.Subscript:
        self.generic_visit(node)
        node.value = _call("items" if isinstance(node.ctx, ast.Load) else "places", node.value)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        """``a is b is c`` becomes ``a is b and b is c``, where ``b`` is the same both times."""
        self.generic_visit(node)
        if not any(type(op) in _COMPARISONS for op in node.ops):
            return node
        operands = [node.left, *node.comparators]
        parts: list[ast.expr] = []
        for left, op, right in zip(operands, node.ops, operands[1:], strict=False):
            helper = _COMPARISONS.get(type(op))
            parts.append(_call(helper, left, right) if helper else ast.Compare(left, [op], [right]))
        return parts[0] if len(parts) == 1 else ast.BoolOp(ast.And(), parts)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.expr:
        self.generic_visit(node)
        return _call("text", *node.values)

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.expr:
        self.generic_visit(node)
        spec = node.format_spec or ast.Constant("")
        return ast.Tuple([node.value, ast.Constant(node.conversion), spec], ast.Load())

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant) and isinstance(node.left.value, str):
            return _call("percent", node.left, node.right)
        return node

    def visit_Starred(self, node: ast.Starred) -> ast.Starred:
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Load):
            node.value = _call("spread", node.value)
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        self.generic_visit(node)
        taken_apart = next((t for t in node.targets if isinstance(t, ast.Tuple | ast.List)), None)
        if taken_apart is not None:
            node.value = _around("unpack", node.value, _shape(taken_apart))
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.stmt | list[ast.stmt]:
        self.generic_visit(node)
        if not isinstance(node.target, ast.Name):
            return node
        name = node.target.id
        return [_assign(name, _call("augmented", _name(name))), node]

    def visit_For(self, node: ast.For) -> ast.For:
        self.generic_visit(node)
        node.iter = _around("rounds", node.iter)
        if isinstance(node.target, ast.Tuple | ast.List):
            unpack = ast.Assign([node.target], _call("unpack", _name("__se_item__"), _shape(node.target)))
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
            item.context_expr = _around("enter", item.context_expr)
        return node

    def visit_Try(self, node: ast.Try) -> ast.stmt:
        """Whether each handler runs instead of what is tried, is asked first."""
        self.generic_visit(node)
        if not node.handlers:
            return node
        stop = ast.ExceptHandler(_name("__se_stop__"), None, [ast.Raise()])
        explored: ast.stmt = ast.Try(node.body, [stop, *node.handlers], node.orelse, [])
        for handler in reversed(node.handlers):
            bound = [_assign(handler.name, _call("caught"))] if handler.name else []
            explored = ast.If(_call("fails"), [*bound, *handler.body], [explored])
        return ast.Try([explored], [], [], node.finalbody) if node.finalbody else explored

    def visit_Match(self, node: ast.Match) -> ast.Match:
        self.generic_visit(node)
        node.subject = _around("subject", node.subject)
        return node

    def visit_MatchValue(self, node: ast.pattern) -> ast.pattern:
        return node  # patterns hold names only

    visit_MatchClass = visit_MatchMapping = visit_MatchValue  # noqa: N815

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        return ast.Pass() if node.value is None else self.visit_Assign(ast.Assign([node.target], node.value))
