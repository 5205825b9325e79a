"""How many channels a value has, and where: read off the layers that produced it, never guessed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.modules import activation, batchnorm, dropout, instancenorm, padding, pooling, upsampling
from torch.nn.parameter import is_lazy

from .flat import attribute
from .layers import is_conv, is_sequential
from .operations import CAT, argument, first_channels, is_a, is_crop, op_name
from .rebuilt import shape_of


@dataclass(frozen=True)
class Feature:
    """A value's channels; they are its last dimension (NHWC) or, otherwise, its second one."""

    channels: int
    last: bool = False


# The graphs of a child's forward (one for each case), or nothing where it cannot be traced.
GraphsOf = Callable[[nn.Module], Iterable[fx.Graph]]

_BINARY = ("add", "subtract", "multiply", "divide", "extremum")
_ELEMENTWISE = ("elementwise", "copy", "dropout", "norm", "activation")
_ELEMENTWISE_MODULES = tuple(
    getattr(source, name)
    for source in (activation, dropout)
    for name in source.__all__
    if name not in {"GLU", "MultiheadAttention"}
)
_SPATIAL_MODULES = (
    *(getattr(pooling, name) for name in pooling.__all__),
    *(getattr(padding, name) for name in padding.__all__),
    *(getattr(upsampling, name) for name in upsampling.__all__),
)
# These tell nothing about what they get: it may be a vector (N, C), which has no place for a gate.
_TAKING_VECTORS = (nn.BatchNorm1d, nn.GroupNorm)
_KEEPING_MODULES = (nn.Identity, *_TAKING_VECTORS, *_ELEMENTWISE_MODULES, *_SPATIAL_MODULES)


def output_feature(
    graph: fx.Graph, owner: nn.Module, graphs_of: GraphsOf, inputs: list[Feature | None]
) -> Feature | None:
    """The channels of what a graph returns, given those of its inputs."""
    output = graph.output_node()
    returned = output.args[0]
    return features(graph, owner, graphs_of, inputs).get(returned) if isinstance(returned, fx.Node) else None


def features(
    graph: fx.Graph, owner: nn.Module, graphs_of: GraphsOf, inputs: list[Feature | None] | None = None
) -> dict[fx.Node, Feature | None]:
    """The channels of every value of a graph, None where the graph does not tell.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU())
    >>> graph = fx.symbolic_trace(model).graph
    >>> [feature and feature.channels for feature in features(graph, model, lambda child: ()).values()]
    [3, 8, 8, None]
    """
    known: dict[fx.Node, Feature | None] = {}
    given = iter(inputs or ())
    for node in graph.nodes:
        if node.op == "placeholder":
            known[node] = next(given, None) or _demanded(node, owner, graphs_of)
        elif node.op == "call_module":
            sources = [known.get(arg) if isinstance(arg, fx.Node) else None for arg in node.args]
            known[node] = _after_module(owner.get_submodule(str(node.target)), sources, graphs_of)
        else:
            known[node] = _after_function(node, known, owner)
    return known


def _after_module(module: nn.Module, sources: list[Feature | None], graphs_of: GraphsOf) -> Feature | None:
    source = sources[0] if sources else None
    if is_conv(module):
        return _after_conv(module, sources, graphs_of)
    if isinstance(module, _TAKING_VECTORS) and source is None:
        return None
    if isinstance(module, batchnorm._BatchNorm | instancenorm._InstanceNorm):
        return Feature(module.num_features) if module.num_features else source  # 0: lazy or without statistics
    if isinstance(module, nn.GroupNorm):
        return Feature(module.num_channels)
    if isinstance(module, nn.Linear):
        return Feature(module.out_features, last=True) if source and source.last else source
    if isinstance(module, (nn.Identity, nn.LayerNorm, nn.LocalResponseNorm, nn.RMSNorm, *_ELEMENTWISE_MODULES)):
        return source
    if isinstance(module, _SPATIAL_MODULES):
        return source if source and not source.last else None
    if is_sequential(module):
        for child in module.children():
            source = _after_module(child, [source], graphs_of)
        return source
    outputs = {output_feature(graph, module, graphs_of, sources) for graph in graphs_of(module)}
    return outputs.pop() if len(outputs) == 1 else None


def _after_conv(module: nn.Module, sources: list[Feature | None], graphs_of: GraphsOf) -> Feature | None:
    channels = getattr(module, "out_channels", None)
    if _moves_channels(module, graphs_of):
        found = {output_feature(graph, module, graphs_of, sources) for graph in graphs_of(module)}
        return found.pop() if len(found) == 1 else None
    return Feature(channels) if isinstance(channels, int) else None


def _moves_channels(module: nn.Module, graphs_of: GraphsOf) -> bool:
    """Whether a convolution's own forward moves channels (NHWC), or returns others than its convolution makes."""
    if (type(module).forward.__module__ or "").startswith("torch."):
        return False
    for graph in graphs_of(module):
        data: set[fx.Node] = set()
        made: set[fx.Node] = set()  # what depends on the convolution
        for node in graph.nodes:
            if node.op == "placeholder" or not data.isdisjoint(node.all_input_nodes):
                data.add(node)
                moves = op_name(node) in {"permute", "transpose", "movedim", "cat"} or is_a("split", node)
                if moves or (op_name(node) in _OTHER_CHANNELS and not made.isdisjoint(node.all_input_nodes)):
                    return True
            if is_a("convolution", node) or not made.isdisjoint(node.all_input_nodes):
                made.add(node)
    return False


_OTHER_CHANNELS = frozenset(
    "glu pixel_shuffle pixel_unshuffle max amax min amin sum mean view reshape flatten unflatten getitem einsum matmul"
    " bmm repeat tile unfold fold stack".split()
)


def _after_function(node: fx.Node, known: dict[fx.Node, Feature | None], owner: nn.Module) -> Feature | None:
    name = op_name(node)
    source = known.get(node.all_input_nodes[0]) if node.all_input_nodes else None
    if is_a("convolution", node):
        return _after_functional_conv(node, owner)
    if any(is_a(kind, node) for kind in _BINARY):
        return _broadcast([known.get(arg) for arg in node.args[:2] if isinstance(arg, fx.Node)])
    if any(is_a(kind, node) for kind in _ELEMENTWISE):
        return source
    if _is_spatial(node):
        return source if source and not source.last else None
    if name == "getitem" and source and not source.last and (first := first_channels(node)):
        return Feature(first) if first <= source.channels else None
    if name == "getitem" and is_crop(node):
        return source if source and not source.last else None
    if name in {"permute", "transpose"}:
        return _after_permute(node, source)
    if name in CAT and argument(node, 1, "dim", "axis", default=0) == 1:
        joined = argument(node, 0, "tensors")
        parts = [known.get(part) for part in joined] if isinstance(joined, list | tuple) else [None]
        whole = [part.channels for part in parts if part is not None and not part.last]
        return Feature(sum(whole)) if len(whole) == len(parts) else None
    return None


def _is_spatial(node: fx.Node) -> bool:
    """Whether a function works on positions, channel by channel."""
    return is_a("pool", node) or is_a("interpolation", node)


def _after_functional_conv(node: fx.Node, owner: nn.Module) -> Feature | None:
    weight: Any = argument(node, 1, "weight")
    if not (isinstance(weight, fx.Node) and weight.op == "get_attr"):
        return None
    shape = shape_of(weight)
    if shape is None:
        tensor = attribute(owner, str(weight.target))
        if not isinstance(tensor, Tensor) or is_lazy(tensor):
            return None
        shape = tuple(tensor.shape)
    if "transpose" in op_name(node):
        groups = argument(node, 6, "groups", default=1)
        return Feature(shape[1] * groups) if isinstance(groups, int) else None
    return Feature(shape[0])


def _broadcast(operands: list[Feature | None]) -> Feature | None:
    """Known channels win over unknown ones, unless they may be stretched from 1."""
    found = {operand for operand in operands if operand is not None}
    wide = {operand for operand in found if operand.channels > 1}
    if not wide and None in operands:
        return None
    return (wide or found).pop() if len(wide or found) == 1 else None


def _after_permute(node: fx.Node, source: Feature | None) -> Feature | None:
    """Follow channels from second to last place and back; any other move loses them."""
    if source is None:
        return None
    dims = argument(node, 1, "dims")
    dims = list(dims if isinstance(dims, list | tuple) else node.args[1:])
    if op_name(node) == "transpose":
        return Feature(source.channels, not source.last) if set(dims) == {1, -1} else None
    spatial = list(range(2, len(dims)))
    if not source.last and dims == [0, *spatial, 1]:
        return Feature(source.channels, last=True)
    if source.last and dims == [0, len(dims) - 1, *range(1, len(dims) - 1)]:
        return Feature(source.channels)
    return None


def _demanded(value: fx.Node, owner: nn.Module, graphs_of: GraphsOf) -> Feature | None:
    """The channels that the layers taking ``value`` ask for: a pooling path of an Inception block keeps its input's."""
    for user in value.users:
        if not user.args or user.args[0] is not value:
            continue
        if user.op == "call_module":
            module = owner.get_submodule(str(user.target))
            keeps, found = isinstance(module, _KEEPING_MODULES), _demanded_by(module, graphs_of)
        else:
            keeps, found = _is_spatial(user) or any(is_a(kind, user) for kind in _ELEMENTWISE), None
        if keeps:
            found = _demanded(user, owner, graphs_of)
        if found is not None:
            return found
    return None


def _demanded_by(module: nn.Module, graphs_of: GraphsOf) -> Feature | None:
    if is_conv(module) and not _moves_channels(module, graphs_of):
        channels = getattr(module, "in_channels", 0)
        return Feature(channels) if isinstance(channels, int) and channels else None  # 0: lazy
    if isinstance(module, batchnorm._BatchNorm):
        return _after_module(module, [], graphs_of)
    if is_sequential(module):
        for child in module.children():
            found = _demanded_by(child, graphs_of)
            if found is not None or not isinstance(child, _KEEPING_MODULES):
                return found
        return None
    firsts = [next((node for node in graph.nodes if node.op == "placeholder"), None) for graph in graphs_of(module)]
    found_by = {first and _demanded(first, module, graphs_of) for first in firsts}
    return found_by.pop() if len(found_by) == 1 else None
