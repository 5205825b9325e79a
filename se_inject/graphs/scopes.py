"""Which module call each value of a flat graph belongs to: noted by the tracer, or told by the names of the layers."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import fx

from .flat import FlatGraph


class Call(NamedTuple):
    """One call of a module: a key of its own, as a shared module may be called often; the module's path and class."""

    key: str
    path: str
    cls: str = ""


Stack = tuple[Call, ...]


def stacks(flat: FlatGraph) -> dict[fx.Node, Stack]:
    """The calls around each value, the outermost first."""
    noted = {node: _noted(node) for node in flat.data}
    names = {node: _qualified_name(node) for node in flat.data}
    # Passes lose notes; and fx, when it traces a graph again, notes layers without the modules around them.
    is_lost = any("." in name and not noted[node] for node, name in names.items())
    are_alone = all(not stack or [call.path for call in stack] == [names[node]] for node, stack in noted.items())
    return _told_by_names(flat) if is_lost or are_alone else _filled(noted)


def _noted(node: fx.Node) -> Stack | None:
    if "calls" in node.meta:
        return tuple(Call(*call) for call in node.meta["calls"])
    stack = node.meta.get("nn_module_stack")
    if not stack or any("_empty_nn_module_stack" in str(key) for key in stack):
        return None
    calls = (Call(str(key), _path(path), _class_name(cls)) for key, (path, cls) in stack.items())
    return tuple(call for call in calls if call.path)


def _filled(noted: dict[fx.Node, Stack | None]) -> dict[fx.Node, Stack]:
    """A node without a note, which a pass put there, is in all calls that the nodes before and after it share."""
    nodes = list(noted)
    after: list[Stack] = []
    following: Stack = ()
    for node in reversed(nodes):
        stack = noted[node]
        following = following if stack is None else stack
        after.append(following)
    found: dict[fx.Node, Stack] = {}
    before: Stack = ()
    for node, following in zip(nodes, reversed(after), strict=True):
        stack = noted[node]
        before = _common(before, following) if stack is None else stack
        found[node] = before
    return found


def _common(a: Stack, b: Stack) -> Stack:
    shared = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x.key != y.key), min(len(a), len(b)))
    return a[:shared]


def _path(noted: str) -> str:
    """A path as qualified names have it; dynamo notes an expression, such as ``L['self'].layer1[0]``."""
    noted = noted.removeprefix("_export_root").removeprefix(".")
    if not re.search(r"[\[(]", noted):
        return noted
    noted = re.sub(r"[LG]\['\w+'\](\.__closure__\[\d+\]\.cell_contents)?", "", noted)
    return ".".join(name for name in re.findall(r"[^\s.,()'\"\[\]]+", noted) if name not in ("_modules", "getattr"))


def _class_name(cls: Any) -> str:
    return cls if isinstance(cls, str) else f"{cls.__module__}.{cls.__qualname__}"


def _told_by_names(flat: FlatGraph) -> dict[fx.Node, Stack]:
    """Scopes where the tracer noted none: layers have qualified names, a function belongs to what it joins.

    A function of one value is in the call that made the value. One of several is in the call that all layers are in
    which make one of its operands and not the others: those of a branch, or of the paths of a concat.
    """
    owners: dict[fx.Node, list[str]] = {}
    numbered = _numbered_containers(flat)
    bit = {node: 1 << i for i, node in enumerate(flat.data)}
    ancestors = dict(bit)
    members = list(flat.data)
    for node in flat.data:
        sources = [source for source in node.all_input_nodes if source in flat.data]
        for source in sources:
            ancestors[node] |= ancestors[source]
        if _qualified_name(node):
            owners[node] = _qualified_name(node).split(".")[:-1]
            continue
        common = -1
        for source in sources:
            common &= ancestors[source]
        own = ancestors[node] & ~common & ~bit[node] if len(sources) > 1 else 0
        inside = [owners[member] for member in _members(own, members) if _qualified_name(member)]
        inside = inside or [owners[source] for source in sources if source in owners]
        owner = _shared_prefix(inside)
        while owner and tuple(owner) in numbered:
            owner = owner[:-1]
        owners[node] = owner
    return {node: _calls(owners.get(node, []), _qualified_name(node)) for node in flat.data}


def _qualified_name(node: fx.Node) -> str:
    """The name of the layer that a node runs, by its target or by that of its weight; empty for other nodes."""
    origin = node.meta.get("value_at", {}).get("")
    if origin is not None and origin.op == "call_module":
        return str(origin.target)
    names = (_name_of(constant) for constant in node.meta.get("constants", ()))
    return next((name.rpartition(".")[0] for name in names if "." in name), "")


def _name_of(constant: fx.Node) -> str:
    """The name of a weight, also where it is converted first."""
    while constant.all_input_nodes:
        constant = constant.all_input_nodes[0]
    return str(constant.meta.get("name", ""))


def _numbered_containers(flat: FlatGraph) -> set[tuple[str, ...]]:
    """The paths of containers such as ``nn.Sequential``, whose children have numbers: no function is theirs."""
    children: dict[tuple[str, ...], set[str]] = {}
    for node in flat.data:
        names = _qualified_name(node).split(".")
        for i, name in enumerate(names):
            children.setdefault(tuple(names[:i]), set()).add(name)
    return {path for path, names in children.items() if path and all(name.isdigit() for name in names)}


def _members(mask: int, nodes: list[fx.Node]) -> Iterator[fx.Node]:
    while mask:
        low = mask & -mask
        yield nodes[low.bit_length() - 1]
        mask ^= low


def _shared_prefix(paths: list[list[str]]) -> list[str]:
    if not paths:
        return []
    shortest = min(map(len, paths))
    length = next((i for i in range(shortest) if len({path[i] for path in paths}) > 1), shortest)
    return paths[0][:length]


def _calls(owner: list[str], layer: str) -> Stack:
    paths = [".".join(owner[: i + 1]) for i in range(len(owner))] + ([layer] if layer else [])
    return tuple(Call(path, path) for path in paths)
