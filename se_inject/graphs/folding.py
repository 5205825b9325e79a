"""A flat graph folded along the calls of modules that it was traced from: the nodes of each call become one call.

The layers of a block are then calls in the block's graph, as they are in the graph of its class.
"""

import itertools
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn
from torch.fx.node import map_arg

from .flat import FlatGraph
from .folded import Folded, folded_class
from .scopes import Call, Stack, stacks


@dataclass(eq=False)
class _Segment:
    """The nodes of one call, in order, and those of the calls inside it."""

    call: Call
    items: list["fx.Node | _Segment"] = field(default_factory=list)

    def nodes(self) -> Iterator[fx.Node]:
        for item in self.items:
            if isinstance(item, fx.Node):
                yield item
            else:
                yield from item.nodes()


def folded(flat: FlatGraph) -> Folded:
    """The whole graph as one call, with the calls inside as its children."""
    root = _segments(flat, stacks(flat))
    return _fold(root, flat, flat.graph.output_node())


def calls(whole: Folded) -> Iterator[Folded]:
    """A folded call and all inside it, in the order of execution.

    >>> [call.path for call in calls(Folded("layer1", fx.Graph()))]
    ['layer1']
    """
    yield whole
    for child in whole.children():
        if isinstance(child, Folded):
            yield from calls(child)


def _segments(flat: FlatGraph, around: dict[fx.Node, Stack]) -> _Segment:
    root = _Segment(Call("", ""))
    opened = [root]
    for node in flat.data:
        stack = around[node]
        if node.op == "placeholder":
            continue
        depth = next(
            (i for i, (a, b) in enumerate(zip(opened[1:], stack, strict=False)) if a.call.key != b.key),
            min(len(opened) - 1, len(stack)),
        )
        del opened[depth + 1 :]
        for call in stack[depth:]:
            opened.append(_Segment(call))
            opened[-2].items.append(opened[-1])
        opened[-1].items.append(node)
        node.meta |= {"scope": opened[-1].call.path, "scope_class": opened[-1].call.cls}
    return _simplified(root)


def _simplified(segment: _Segment) -> _Segment:
    """Without the calls of one node, such as those of layers: the node stands for itself."""
    items: list[fx.Node | _Segment] = []
    for item in segment.items:
        simple = item if isinstance(item, fx.Node) else _simplified(item)
        items.append(simple.items[0] if isinstance(simple, _Segment) and len(simple.items) == 1 else simple)
    return _Segment(segment.call, items)


def _fold(segment: _Segment, flat: FlatGraph, output: fx.Node | None = None) -> Folded:
    """One call as a module. ``output`` is that of the whole graph."""
    inside = dict.fromkeys(segment.nodes())
    graph = fx.Graph()
    call: Folded = folded_class(segment.call.cls)(segment.call.path, graph)
    copies: dict[fx.Node, Any] = {}
    inputs = [node for node in flat.data if node.op == "placeholder"] if output else _inputs(inside, flat)
    for value in inputs:
        copies[value] = graph.create_node("placeholder", value.name, name=value.name)
        copies[value].meta = dict(value.meta)
        call.values[copies[value].name] = value

    def copied(value: fx.Node) -> Any:
        if value not in copies:  # a constant: it comes from outside of the graph
            copies[value] = graph.create_node("get_attr", value.name, name=value.name)
            copies[value].meta = dict(value.meta)
            if isinstance(value.meta.get("tensor"), nn.Parameter):
                call.register_parameter(f"constant_{value.name}", _like(value.meta["tensor"]))
        return copies[value]

    for item in segment.items:
        if isinstance(item, fx.Node):
            copy = graph.create_node(
                item.op, item.target, map_arg(item.args, copied), map_arg(item.kwargs, copied), name=item.name
            )
            copy.meta = dict(item.meta)
            if item.op == "call_module":
                path = item.meta["scope"] if item.meta["scope"] != call.path else f"{call.path}.{item.name}".strip(".")
                copy.target = _add_child(call, flat.layers[str(item.target)], path)
            copies[item] = copy
            call.values[copy.name], call.members[copy.name] = item, {item}
        else:
            _call_child(call, item, flat, copies, copied)
    if output is not None:
        call.members["output"] = {output}
        graph.output(map_arg(output.args[0], copied))
    else:
        returned = [copies[value] for value in _outputs(inside, flat)]
        graph.output(returned[0] if len(returned) == 1 else tuple(returned))
    return call


def _call_child(call: Folded, segment: _Segment, flat: FlatGraph, copies: dict[fx.Node, Any], copied: Any) -> None:
    """Fold a call inside another one, and call it."""
    child = _fold(segment, flat)
    inside = dict.fromkeys(segment.nodes())
    name = _add_child(call, child, segment.call.path)
    args = tuple(copied(value) for value in _inputs(inside, flat))
    node = call.graph.create_node("call_module", name, args, name=name)
    call.members[node.name] = set(inside)
    outputs = _outputs(inside, flat)
    for i, value in enumerate(outputs):
        copies[value] = node if len(outputs) == 1 else call.graph.call_function(operator.getitem, (node, i))
        call.values[copies[value].name] = value
        call.members.setdefault(copies[value].name, set())


def _inputs(inside: dict[fx.Node, None], flat: FlatGraph) -> list[fx.Node]:
    """The data from outside that a call takes."""
    sources = (source for node in inside for source in node.all_input_nodes)
    return list(dict.fromkeys(source for source in sources if source in flat.data and source not in inside))


def _outputs(inside: dict[fx.Node, None], flat: FlatGraph) -> list[fx.Node]:
    """The values of a call whose numbers are used outside, not their sizes alone."""
    return [node for node in inside if any(_takes(user, flat) and user not in inside for user in node.users)]


def _takes(user: fx.Node, flat: FlatGraph) -> bool:
    return user in flat.data or user.op == "output"


def _like(tensor: Any) -> nn.Parameter:
    return nn.Parameter(tensor.detach().to("meta"), requires_grad=False)


def _add_child(call: Folded, child: nn.Module, path: str) -> str:
    """Make a layer or a call inside a child, under its last name, and note its qualified name."""
    last = path.rpartition(".")[2]
    name = next(name for name in _numbered(last) if name not in call._modules)
    call._modules[name], call.paths[name] = child, path
    return name


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}@{i}" for i in itertools.count(1))
