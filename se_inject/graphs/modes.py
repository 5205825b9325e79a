"""What is fixed in a traced graph: whether it trains, and whether it is quantized."""

import re
from collections.abc import Iterator

import torch
from torch import fx, nn

from .operations import is_a
from .traced import all_graphs, gate_of


def trains(module: nn.Module) -> bool:
    """Whether a traced model trains: a norm updates its statistics or a dropout drops, by what its graph says.

    >>> trains(fx.symbolic_trace(nn.Dropout()).eval())
    False
    """
    said = [value for traced in all_graphs(module) for node in traced.graph.nodes if (value := _mode(node)) is not None]
    return any(said) if said else module.training


def updates_statistics(module: nn.Module) -> fx.Node | None:
    """A norm, not in a gate, that updates its running statistics, by what the graph says; None if there is none.

    >>> updates_statistics(fx.symbolic_trace(nn.Sequential(nn.BatchNorm2d(8))))
    """
    nodes = ((node, traced.owner) for traced in all_graphs(module) for node in traced.graph.nodes if is_a("norm", node))
    own = (node for node, owner in nodes if gate_of(node, owner) is None)
    return next((node for node in own if _mode(node) and _has_statistics(node)), None)


def quantization(module: nn.Module) -> fx.Node | None:
    """A node of a traced model that observes values for quantization or quantizes them; None if there is none.

    >>> quantization(fx.symbolic_trace(nn.ReLU()))
    """
    nodes = ((node, traced.owner) for traced in all_graphs(module) for node in traced.graph.nodes)
    return next((node for node, owner in nodes if _quantizes(node, owner)), None)


def _quantizes(node: fx.Node, owner: nn.Module) -> bool:
    if node.op == "call_module":
        classes = type(owner.get_submodule(str(node.target))).__mro__
        # By name, as torchao has observers of its own.
        return any(
            re.search(r"Observer(Base)?$|FakeQuantize(Base)?$|^torch\.ao\.nn\..*quantized", name)
            for cls in classes
            for name in (cls.__name__, cls.__module__)
        )
    return node.op == "call_function" and re.search(r"(de)?quantize_|quantized", str(node.target)) is not None


def _has_statistics(node: fx.Node) -> bool:
    return any(argument.name == "running_mean" and value is not None for argument, value in _arguments(node))


def _mode(node: fx.Node) -> bool | None:
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    said = [value for argument, value in _arguments(node) if argument.name in ("training", "train")]
    return bool(said[0]) if said else None


def _arguments(node: fx.Node) -> Iterator[tuple[torch.Argument, object]]:
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    for position, argument in enumerate(schema):
        given = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
        yield argument, given
