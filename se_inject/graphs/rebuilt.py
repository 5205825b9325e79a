"""Layers rebuilt from the operations that they run, so that the rules ask a layer, whatever traced it.

A convolution, norm or linear map whose weights are constants of the graph is the layer of torch that has such weights,
on the meta device.
"""

import functools
from collections.abc import Callable
from typing import Any

from torch import fx, nn

from .operations import argument, is_a, op_name

IsConstant = Callable[[Any], bool]


def rebuilt(node: fx.Node, is_constant: IsConstant) -> tuple[fx.Node, nn.Module] | None:
    """The value that goes into a layer, and the layer; None where a node is none, or its size is not told."""
    if node.op != "call_function":
        return None
    if is_a("convolution", node):
        return _convolution(node, is_constant)
    if is_a("norm", node):
        return _norm(node)
    if is_a("linear", node) or op_name(node) == "mm":
        return _linear(node, is_constant)
    return None


def shape_of(value: Any) -> tuple[Any, ...] | None:
    """The shape that a traced value has had, if its tracer noted it."""
    if not isinstance(value, fx.Node):
        return None
    for key in ("tensor", "value", "val", "example_value", "tensor_meta"):
        shape = getattr(value.meta.get(key), "shape", None)
        if shape is not None:
            return tuple(shape)
    return None


def enlarges_by_index(node: fx.Node) -> bool:
    """Whether an index takes positions more than once, as decomposition writes an interpolation.

    >>> enlarges_by_index(fx.Graph().placeholder("x"))
    False
    """
    if op_name(node) not in ("index", "_unsafe_index"):
        return False
    sizes, before = shape_of(node) or (), shape_of(node.all_input_nodes[0]) or ()
    return len(sizes) == len(before) > 3 and all(a > b for a, b in zip(sizes[2:], before[2:], strict=True))


def _convolution(node: fx.Node, is_constant: IsConstant) -> tuple[fx.Node, nn.Module] | None:
    source, weight = argument(node, 0, "input"), argument(node, 1, "weight")
    shape = shape_of(weight)
    if not is_constant(weight) or shape is None or len(shape) not in (3, 4, 5):
        return None
    name = op_name(node)
    is_general = name in ("convolution", "_convolution")
    is_transposed = bool(argument(node, 6, "transposed")) if is_general else "transpose" in name
    groups = argument(node, 8 if is_general else 6, "groups", default=1)
    stride = argument(node, 3, "stride", default=1)
    inputs, outputs = (shape[0], shape[1] * groups) if is_transposed else (shape[1] * groups, shape[0])
    cls = getattr(nn, f"Conv{'Transpose' if is_transposed else ''}{len(shape) - 2}d")
    bias = argument(node, 2, "bias") is not None
    stride = tuple(stride) if isinstance(stride, list | tuple) else stride
    stride = stride * (len(shape) - 2) if isinstance(stride, tuple) and len(stride) == 1 else stride
    return source, _bare(cls)(inputs, outputs, tuple(shape[2:]), stride, groups=groups, bias=bias, device="meta")


def _norm(node: fx.Node) -> tuple[fx.Node, nn.Module] | None:
    name, source = op_name(node), argument(node, 0, "input")
    shape = shape_of(source)
    if shape is None or len(shape) < 2:
        return None
    is_atens = not str(getattr(node.target, "__module__", "")).startswith("torch.nn")
    if "batch_norm" in name or name == "instance_norm":
        has_weight = argument(node, 1 if is_atens else 3, "weight") is not None
        cls = getattr(nn, f"{'Batch' if 'batch' in name else 'Instance'}Norm{max(len(shape) - 2, 1)}d", None)
        if cls is None or not isinstance(shape[1], int):
            return None
        return source, cls(shape[1], affine=has_weight, track_running_stats=False, device="meta")
    if "group_norm" in name:
        groups = argument(node, 6, "group") if name.startswith("native") else argument(node, 1, "num_groups")
        is_known = isinstance(shape[1], int) and isinstance(groups, int)
        return (source, nn.GroupNorm(groups, shape[1], device="meta")) if is_known else None
    if "layer_norm" in name or "rms_norm" in name:
        normalized = argument(node, 1, "normalized_shape")
        if isinstance(normalized, list | tuple) and all(isinstance(size, int) for size in normalized):
            return source, (nn.LayerNorm if "layer" in name else nn.RMSNorm)(list(normalized), device="meta")
    return None


def _linear(node: fx.Node, is_constant: IsConstant) -> tuple[fx.Node, nn.Module] | None:
    is_plain = op_name(node) == "linear"  # else the matrix is handed over transposed
    position = 1 if op_name(node) == "addmm" else 0
    source = argument(node, position, "mat1" if position else "input")
    matrix = argument(node, position + 1, "weight", "mat2")
    shape = shape_of(matrix)
    if not is_constant(matrix) or is_constant(source) or shape is None or len(shape) != 2:
        return None
    outputs, inputs = shape if is_plain else reversed(shape)
    return source, _bare(nn.Linear)(inputs, outputs, device="meta")


@functools.cache
def _bare(cls: Any) -> Callable[..., nn.Module]:
    """A layer's constructor that draws no random weights."""
    quiet = type(cls.__name__, (cls,), {"reset_parameters": lambda self: None})

    def make(*args: Any, **kwargs: Any) -> nn.Module:
        layer: nn.Module = quiet(*args, **kwargs)
        layer.__class__ = cls
        return layer

    return make
