"""Which inputs of an operation must be multiplied by a power of 2 for its result to be so, to the bit."""

from typing import Any

import torch
from torch import fx
from torch.nn import functional

from ..tracing import value_proxy
from .operations import argument, is_in_place, op_name

_JOINS = frozenset("cat concat concatenate stack".split())
_SUMS = frozenset("add iadd add_ sub isub sub_ maximum minimum".split())
_PRODUCTS = frozenset("mul imul mul_ multiply multiply_ matmul bmm".split())
_QUOTIENTS = frozenset("div div_ truediv itruediv divide".split())
_FIRST = frozenset(
    "relu relu_ leaky_relu leaky_relu_ prelu rrelu abs neg dropout dropout1d dropout2d dropout3d feature_dropout"
    " max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d"
    " adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d"
    " pad interpolate upsample pixel_shuffle pixel_unshuffle channel_shuffle fold unfold mean sum amax amin"
    " chunk split tensor_split split_with_sizes unbind getitem narrow select roll flip repeat tile"
    " clone contiguous to float bfloat16 double type_as detach alias"
    " view view_as reshape reshape_as flatten unflatten squeeze unsqueeze permute transpose swapaxes movedim t"
    " expand expand_as rearrange".split()
)
# float16 lacks the range, and integers and float8 the bits.
_EXACT = frozenset({torch.float32, torch.float64, torch.bfloat16})
# Where the weight and the bias of a function are; functions of one name may differ.
_WEIGHTS: dict[Any, tuple[int, int]] = {
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d, functional.linear), (1, 2)),
    **dict.fromkeys((torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d), (1, 2)),
    **dict.fromkeys((functional.batch_norm, functional.instance_norm), (3, 4)),
    **dict.fromkeys((functional.layer_norm, functional.group_norm, functional.rms_norm), (2, 3)),
    **dict.fromkeys((torch.layer_norm, torch.group_norm, torch.rms_norm), (2, 3)),
    **dict.fromkeys((torch.batch_norm, torch.instance_norm), (1, 2)),
}


def ways_to_scale(node: fx.Node) -> list[list[Any]]:
    """The inputs that must be multiplied for the result to be so; alternatives, the first one to be preferred.

    None where nothing does it exactly. Numbers may be among the inputs.

    >>> graph = fx.Graph()
    >>> x, y = graph.placeholder("x"), graph.placeholder("y")
    >>> ways_to_scale(graph.call_function(torch.add, (x, y)))
    [[x, y]]
    >>> ways_to_scale(graph.call_function(torch.mul, (x, y)))
    [[x], [y]]
    >>> ways_to_scale(graph.call_function(torch.sigmoid, (x,)))
    []
    """
    if "out" in node.kwargs or not (node.op == "call_method" or _is_known(node)):
        return []
    name = op_name(node)
    if node.op == "call_function" and node.target in _WEIGHTS:
        at = _WEIGHTS[node.target]
        weight, bias = argument(node, at[0], "weight"), argument(node, at[1], "bias")
        return [] if weight is None else [[weight] if bias is None else [weight, bias]]
    first = argument(node, 0, "input", "tensors", "self")
    if name in _JOINS:
        return [list(first) if isinstance(first, list | tuple) else [first]]
    if name in _SUMS:
        return [[first, argument(node, 1, "other")]]
    if name in _PRODUCTS:
        if is_in_place(node):  # what is changed is seen by all that hold it
            return [[first]]
        operands = [x for x in (first, argument(node, 1, "other", "mat2")) if isinstance(x, fx.Node)]
        return [[x] for x in sorted(operands, key=_is_of_inputs)]
    if name in _QUOTIENTS:
        return [] if "rounding_mode" in node.kwargs else [[first]]
    return [[first]] if name in _FIRST and _is_linear(node) else []


def _is_known(node: fx.Node) -> bool:
    """Whether a function is torch's or Python's, or a pattern of einops, and not another one of the same name."""
    module = getattr(node.target, "__module__", None) or "torch"
    is_pattern = op_name(node) == "rearrange" and "opaque" not in node.meta
    return module == value_proxy.__name__ or module.partition(".")[0] in ("torch", "_operator") or is_pattern


def _is_linear(node: fx.Node) -> bool:
    """Whether options leave an operation what its name says."""
    if op_name(node) == "pad":
        return argument(node, 2, "mode", default="constant") != "constant" or not argument(node, 3, "value")
    options = (*node.args[1:], *node.kwargs.values())
    kinds = [x for x in options if isinstance(x, torch.dtype) or (isinstance(x, fx.Node) and _has_dtype(x))]
    if op_name(node) == "view":  # as another type, which reads other numbers in the same bits
        return not kinds
    if op_name(node) in ("to", "type_as"):
        kinds += [x for x in options if isinstance(x, fx.Node) and not _is_place(x)]
    return all(kind in _EXACT if isinstance(kind, torch.dtype) else _is_a_features(kind, node) for kind in kinds)


def _has_dtype(value: fx.Node) -> bool:
    return op_name(value) == "getattr" and bool(value.args[1] == "dtype")


def _is_place(value: fx.Node) -> bool:
    return op_name(value) == "getattr" and value.args[1] in ("device", "layout")


def _is_a_features(kind: fx.Node, node: fx.Node) -> bool:
    """Whether a type is that of a forward's first input, of a layer's result, or of before; others may be integers."""
    value: Any = kind.args[0] if _has_dtype(kind) else kind
    is_made_by_layer = value.op == "call_module" or value.target in _WEIGHTS
    is_first_input = value.op == "placeholder" and value is next(iter(node.graph.nodes))
    return is_made_by_layer or is_first_input or value is argument(node, 0, "input", "self")


def _is_of_inputs(value: fx.Node) -> bool:
    """Whether a value depends on what the forward is given, and not on weights alone."""
    seen, todo = {value}, [value]
    for node in todo:
        if node.op in ("placeholder", "call_module"):
            return True
        todo += [source for source in node.all_input_nodes if source not in seen]
        seen.update(node.all_input_nodes)
    return False
