"""What is fixed in a traced graph: whether it trains, and whether it is quantized."""

import re

import torch
from torch import fx, nn

from .flat import is_interpreter
from .operations import argument, is_a, op_name
from .traced import all_graphs, gate_of


def trains(module: nn.Module) -> bool:
    """Whether a traced model trains: by what its graph says, else by the mode of the layers that it calls.

    >>> trains(fx.symbolic_trace(nn.Sequential(nn.Dropout())).eval())
    False
    """
    graphs = all_graphs(module)
    said = [mode for traced in graphs for node in traced.graph.nodes if (mode := _mode(node)) is not None]
    if said:
        return any(said)
    calls = ((n, traced.owner) for traced in graphs for n in traced.graph.nodes if n.op == "call_module")
    layers = (n for n, owner in calls if not is_interpreter(owner) and n.name != "_guards_fn")  # export's own
    return module.training and any(layers)


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
        return any(_is_of_quantization(cls) for cls in classes)
    if isinstance(node.target, torch._ops.OpOverload):
        return "quant" in node.target.namespace or "quantize" in node.target._opname
    return node.op == "call_function" and node.target in (torch.quantize_per_tensor, torch.quantize_per_channel)


def _is_of_quantization(cls: type) -> bool:
    """Whether a class is an observer or a quantized layer of torch's, or of torchao's."""
    is_theirs = cls.__module__.startswith(("torch.ao.", "torchao."))
    is_observer = re.search(r"Observer(Base)?$|FakeQuantize(Base)?$", cls.__name__) is not None
    return is_theirs and (is_observer or "quantized" in cls.__module__)


def _has_statistics(node: fx.Node) -> bool:
    return _argument(node, "running_mean", 1) is not None


def _mode(node: fx.Node) -> bool | None:
    """The mode that a norm or a dropout was traced in; None where it is not said."""
    name = op_name(node)
    if name.endswith("_no_training"):
        return False
    if not (is_a("norm", node) or is_a("dropout", node)) or node.op == "call_module":
        return None
    mode = _argument(node, "training", 5 if is_a("norm", node) else 2)
    mode = _argument(node, "train", 2) if mode is None else mode
    return mode if isinstance(mode, bool) else None


def _argument(node: fx.Node, name: str, position: int) -> object:
    """An argument of an operator, or of one of torch's functions, which have it at a position."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return argument(node, position, name)
    positions = [i for i, known in enumerate(node.target._schema.arguments) if known.name == name]
    return argument(node, positions[0], name) if positions else None
