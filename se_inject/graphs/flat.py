"""A traced model as one flat graph in the rules' words: for looking at only.

Modules that interpret graphs (``torch.export.unflatten``) and the graphs of operators (a part under ``torch.no_grad``)
are written out, layers are rebuilt from the operations that they run, constants are told from data. Each value knows
where it is in the graphs of the model itself.
"""

import functools
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from .aten import index_taken, returns_statistics
from .operations import is_a, is_in_place, op_name, unread
from .rebuilt import rebuilt


@dataclass
class FlatGraph:
    """The graph; the layers that it calls; which of its values hold numbers of the model's inputs, in order."""

    graph: fx.Graph = field(default_factory=fx.Graph)
    layers: dict[str, nn.Module] = field(default_factory=dict)
    data: dict[fx.Node, None] = field(default_factory=dict)


def is_interpreter(module: nn.Module) -> bool:
    """Whether a module interprets a graph, as those of ``torch.export.unflatten`` do.

    >>> is_interpreter(nn.ReLU())
    False
    """
    return _interprets(type(module))  # type: ignore[arg-type]


@functools.cache
def _interprets(cls: type) -> bool:
    return any(base.__module__ == "torch.export.unflatten" for base in cls.__mro__)


Constants = dict[str, tuple[str, Tensor | None]]
GateOf = Callable[[fx.Node, nn.Module], str | None]


def flattened(graph: fx.Graph, owner: nn.Module, constants: Constants, gate_of: GateOf) -> FlatGraph:
    """A graph written out, without the nodes that ``gate_of`` says are of a gate.

    ``constants`` are the qualified names and values of the parameters and buffers that placeholders stand for, by the
    names of those.
    """
    return _Flattener(constants, gate_of).run(graph, owner)


class _Flattener:
    def __init__(self, constants: Constants, gate_of: GateOf) -> None:
        self._flat = FlatGraph()
        self._gate_of = gate_of
        self._constants = constants

    def run(self, graph: fx.Graph, owner: nn.Module) -> FlatGraph:
        returned = self._write(_Level(graph, owner), None)
        output = self._flat.graph.output(returned)
        output.meta["users_at"] = {"": graph.output_node()}
        return self._flat

    def _write(self, level: "_Level", given: Iterator[Any] | None) -> Any:
        """Write out one graph, given the values of its placeholders; the result is what it returns."""
        for node in level.graph.nodes:
            if node.op == "output":
                return level.mapped(node.args[0])
            if node.op == "call_function" and not node.users and not is_in_place(node):
                continue  # what nobody uses must not count as a use
            if node.op == "placeholder" and given is not None:
                value = next(given, node.args[0] if node.args else None)
                level.known[node] = value if level.is_operators else self._seen(value, level, node)
            else:
                level.known[node] = self._node(level, node)
        return None

    def _node(self, level: "_Level", node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self._placeholder(level, node)
        if self._gate_of(node, level.owner) is not None:
            # Each of a gate's nodes stands for the value that goes into the gate.
            return next(filter(self._flat.data.__contains__, level.mapped(node.all_input_nodes)), None)
        inner = level.inner(node)
        if inner is not None:
            return self._of_inner(level, node, inner)
        source = level.mapped(node.args[0]) if op_name(node) == "getitem" else None
        if isinstance(source, list | tuple) and isinstance(node.args[1], int):  # what a written out graph returns
            return self._seen(source[node.args[1]], level, node)
        if isinstance(source, fx.Node) and returns_statistics(source):
            if node.args[1] == 0:
                source.meta["value"] = node.meta.get("val")
                return self._seen(source, level, node)
            if source.op == "call_module":  # a norm's statistics
                return self._constant(level, node, None, "")
        return self._operation(level, node)

    def _placeholder(self, level: "_Level", node: fx.Node) -> fx.Node:
        if node.name in self._constants:
            name, tensor = self._constants[node.name]
            return self._constant(level, node, tensor, name)
        copy = self._copy(level, node, "placeholder", str(node.target), (), {})
        self._flat.data[copy] = None
        return copy

    def _constant(self, level: "_Level", node: fx.Node, tensor: Any, name: str) -> fx.Node:
        constant = self._copy(level, node, "get_attr", str(node.target), (), {})
        constant.meta |= {"tensor": tensor, "weights": [tensor], "name": name}
        return constant

    def _of_inner(self, level: "_Level", node: fx.Node, inner: "_Level") -> Any:
        arguments = [arg for arg in (*node.args, *node.kwargs.values()) if not _is_submodule(arg)]
        if inner.is_operators:
            arguments = list(_operands(arguments))
        returned = self._write(inner, iter(level.mapped(arguments)))
        if inner.is_operators:
            return returned if isinstance(returned, list | tuple) else (returned,)
        if isinstance(returned, fx.Node):
            return self._seen(returned, level, node)
        return returned

    def _seen(self, value: Any, level: "_Level", node: fx.Node) -> Any:
        """Note that a value is what a node stands for."""
        if isinstance(value, fx.Node):
            value.meta["value_at"] = {**value.meta["value_at"], level.path: node}
        return value

    def _operation(self, level: "_Level", node: fx.Node) -> Any:
        args, kwargs = level.mapped(node.args), level.mapped(node.kwargs)
        operation, target = node.op, node.target
        weights: list[Any] = []
        if operation == "call_module":
            layer = level.owner.get_submodule(str(target))
            weights, target = list(layer.parameters()), self._layer(node.name, layer)
        elif operation == "get_attr":
            name = f"{level.path}.{target}" if level.path else str(target)
            return self._constant(level, node, attribute(level.owner, str(target)), name)
        elif op_name(node) in ("slice", "select") and isinstance(target, torch._ops.OpOverload):
            taken = index_taken(op_name(node), args)
            if taken == ():
                return self._seen(args[0], level, node)
            target, args = operator.getitem, (args[0], taken)
        copy = self._copy(level, node, operation, target, args, kwargs)
        copy.meta["weights"] = weights
        if hidden := unread(node):
            copy.meta["opaque"] = f"it calls {hidden}, into which se_inject cannot look"
        again = rebuilt(copy, lambda value: isinstance(value, fx.Node) and value not in self._flat.data)
        if again is not None and again[0] in self._flat.data:
            constants = [source for source in copy.all_input_nodes if source not in self._flat.data]
            copy.meta |= {"constants": constants, "weights": [c.meta.get("tensor") for c in constants]}
            copy.op, copy.target = "call_module", self._layer(copy.name, again[1])
            copy.args, copy.kwargs = (again[0],), {}
        if self._carries_data(copy):
            self._flat.data[copy] = None
        return copy

    def _carries_data(self, node: fx.Node) -> bool:
        """Whether numbers of the inputs flow into a value; a size or a running statistic is none."""
        if is_a("shape", node) or isinstance(node.meta.get("val"), int | float | torch.SymInt | torch.SymFloat):
            return False
        return any(source in self._flat.data for source in node.all_input_nodes)

    def _layer(self, name: str, layer: nn.Module) -> str:
        self._flat.layers[name] = layer
        return name

    def _copy(self, level: "_Level", node: fx.Node, operation: str, target: Any, args: Any, kwargs: Any) -> fx.Node:
        copy = self._flat.graph.create_node(operation, target, args, kwargs, name=node.name)
        copy.meta = {key: node.meta[key] for key in _KEPT if key in node.meta}
        copy.meta["value_at"] = {level.path: node}
        copy.meta["users_at"] = {**level.around, level.path: node}
        if level.is_interpreter:
            copy.meta["calls"] = level.calls
        return copy


_KEPT = ("nn_module_stack", "val", "example_value", "tensor_meta", "stack_trace", "opaque")


@dataclass
class _Level:
    """A graph that is written out: of the model, of a module that interprets it, or of an operator."""

    graph: fx.Graph
    owner: nn.Module
    path: str = ""
    around: dict[str, fx.Node] = field(default_factory=dict)  # the calls that lead here, by the graphs they are in
    calls: tuple[tuple[str, str, str], ...] = ()  # of modules that interpret graphs: key, path and class
    is_operators: bool = False
    known: dict[fx.Node, Any] = field(default_factory=dict)

    @property
    def is_interpreter(self) -> bool:
        return is_interpreter(self.owner)

    def mapped(self, value: Any) -> Any:
        return map_arg(value, lambda node: self.known[node])

    def inner(self, node: fx.Node) -> "_Level | None":
        """The graph that a node runs, if it runs one."""
        around = {**self.around, self.path: node}
        if node.op == "call_module":
            child = self.owner.get_submodule(str(node.target))
            if not is_interpreter(child) or not isinstance(getattr(child, "graph", None), fx.Graph):
                return None
            path = f"{self.path}.{node.target}" if self.path else str(node.target)
            call = (f"{path}#{node.name}", path.split("@")[0], str(getattr(child, "_ty", "") or ""))
            return _Level(child.graph, child, path, around, (*self.calls, call))  # type: ignore[arg-type]
        if not isinstance(node.target, torch._ops.HigherOrderOperator):
            return None
        targets = [str(arg.target) for arg in node.all_input_nodes if _is_submodule(arg)]
        bodies = [attribute(self.owner, target) for target in targets]
        if len(bodies) != 1 or not isinstance(bodies[0], fx.GraphModule):
            return None
        path = f"{self.path}!{targets[0]}"
        return _Level(bodies[0].graph, bodies[0], path, around, self.calls, is_operators=True)


def _is_submodule(value: Any) -> bool:
    if not isinstance(value, fx.Node) or value.op != "get_attr":
        return False
    owner = value.graph.owning_module
    return owner is not None and isinstance(attribute(owner, str(value.target)), nn.Module)


def _operands(arguments: list[Any]) -> Iterator[Any]:
    """The tensors that an operator hands to its graph; ``torch.cond`` has them in a tuple, after its condition."""
    tuples = [arg for arg in arguments if isinstance(arg, list | tuple)]
    yield from tuples[-1] if tuples else (arg for arg in arguments if isinstance(arg, fx.Node))


def attribute(owner: nn.Module, target: str) -> Any:
    """The attribute that a qualified name means, None where there is none.

    >>> attribute(nn.Sequential(nn.ReLU()), "0.inplace")
    False
    """
    value: Any = owner
    for name in target.split("."):
        value = getattr(value, name, None)
    return value
