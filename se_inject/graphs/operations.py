"""What an operation is called and what it does: one table for functions, methods, aten operators and layers.

The site rules speak of kinds ("add", "convolution", "norm" ...); a row says what is of a kind. Names of in-place
variants (``add_``) are of the same kind.
"""

import types
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn import modules

from .layers import flatten


class Operation(NamedTuple):
    """The names that one kind of operation has."""

    kind: str
    functions: str  # of torch, torch.nn.functional, operator and Tensor
    aten: str = ""  # spellings that only aten has
    layers: tuple[type[nn.Module], ...] = ()


_TABLE = (
    Operation("add", "add iadd add_"),
    Operation("subtract", "sub isub sub_"),
    Operation("multiply", "mul imul mul_ multiply multiply_"),
    Operation("divide", "div div_ truediv itruediv divide"),
    Operation("extremum", "maximum minimum"),
    Operation("concat", "cat concat concatenate"),
    Operation(
        "convolution",
        "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
        "convolution _convolution",
    ),
    Operation("linear", "linear", "addmm", (nn.Linear,)),
    Operation(
        "norm",
        "batch_norm instance_norm layer_norm group_norm rms_norm local_response_norm",
        "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_functional"
        " _native_batch_norm_legit_no_training cudnn_batch_norm native_layer_norm native_group_norm",
        (modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm),
    ),
    Operation(
        "activation",
        "relu relu6 gelu silu mish elu selu celu leaky_relu prelu rrelu hardtanh hardswish hardsigmoid softplus"
        " sigmoid tanh clamp softmax",
        "_softmax _prelu_kernel",
    ),
    Operation(
        "dropout",
        "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout feature_dropout drop_path"
        " stochastic_depth",
        "native_dropout",
    ),
    Operation(
        "attention",
        "matmul bmm einsum softmax scaled_dot_product_attention",
        "_softmax _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention"
        " _scaled_dot_product_efficient_attention",
        (nn.Softmax, nn.Softmax2d),
    ),
    Operation(
        "interpolation",
        "interpolate upsample",
        "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d"
        " upsample_trilinear3d upsample_bicubic2d _upsample_nearest_exact1d _upsample_nearest_exact2d"
        " _upsample_nearest_exact3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa",
    ),
    Operation(
        "unpooling",
        "pixel_shuffle conv_transpose1d conv_transpose2d conv_transpose3d max_unpool1d max_unpool2d max_unpool3d",
    ),
    Operation(
        "pool",
        "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d"
        " adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d lp_pool1d lp_pool2d",
        "max_pool2d_with_indices max_pool3d_with_indices _adaptive_avg_pool2d _adaptive_avg_pool3d",
    ),
    Operation("split", "chunk split tensor_split unbind split_with_sizes"),
    Operation("copy", "alias contiguous clone detach to float half double bfloat16 type type_as", "_to_copy"),
    Operation("elementwise", "abs neg exp sqrt"),
    # These read a value's shape or type, not its numbers: no data flows through them.
    Operation(
        "shape",
        "size dim ndimension numel stride new_empty new_zeros new_ones new_full new_tensor"
        " empty_like zeros_like ones_like full_like rand_like randn_like",
        "sym_size sym_stride sym_numel sym_storage_offset",
    ),
    # The arguments after the first are a shape.
    Operation("reshape", "view reshape expand unflatten new_zeros new_ones new_empty", "_unsafe_view"),
    Operation(
        "view",
        "getitem view reshape flatten unflatten squeeze unsqueeze permute transpose contiguous to float expand detach"
        " movedim swapaxes t view_as type_as",
        "_unsafe_view slice select alias",
    ),
    Operation("arithmetic", "add sub mul floordiv truediv getitem int", "sym_size"),
    Operation("reduction", "mean amax amin sum norm vector_norm"),
)
_NAMES = {row.kind: f"{row.functions} {row.aten}".split() for row in _TABLE}
_BY_KIND = {kind: frozenset([*names, *(f"{name}_" for name in names)]) for kind, names in _NAMES.items()}
_LAYERS = {row.kind: row.layers for row in _TABLE}

ADD = _BY_KIND["add"]
MUL = _BY_KIND["multiply"]
DIV = _BY_KIND["divide"]
CAT = _BY_KIND["concat"]
SPLITS = _BY_KIND["split"]
ACTIVATIONS = _BY_KIND["activation"]
SHAPE_ATTRIBUTES = frozenset("shape ndim dtype device layout requires_grad is_cuda".split())


def is_a(kind: str, node: fx.Node) -> bool:
    """Whether a node calls a function, method or operator of a kind.

    >>> x = fx.Graph().placeholder("x")
    >>> is_a("activation", x.graph.call_function(torch.ops.aten.relu_.default, (x,)))
    True
    """
    return op_name(node) in _BY_KIND[kind]


def layers(kind: str) -> tuple[type[nn.Module], ...]:
    """The layers of torch of a kind.

    >>> nn.Linear in layers("linear")
    True
    """
    return _LAYERS[kind]


def op_name(node: fx.Node) -> str:
    """The bare name of the function, method or operator that a node calls; empty for other nodes."""
    if node.op == "call_method":
        return str(node.target)
    if node.op != "call_function":
        return ""
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._opname
    return getattr(node.target, "__name__", "")


def unread(node: fx.Node) -> str | None:
    """The name of a function that a node calls and that is none of torch's: one of ``fx.wrap``, or ``torch.cond``.

    >>> unread(fx.Graph().placeholder("x"))
    """
    if node.op != "call_function":
        return None
    if isinstance(node.target, torch._ops.HigherOrderOperator):
        return str(node.target.__name__)
    is_pythons = isinstance(node.target, types.FunctionType) and not node.target.__module__.startswith("torch.")
    takes_weights = any(source.op == "get_attr" for source in node.all_input_nodes)
    return node.target.__name__ if is_pythons and takes_weights else None  # type: ignore[union-attr]


def is_crop(node: fx.Node) -> bool:
    """Whether a node takes a part of all positions, of all channels: ``x[:, :, 1:]`` or ``x[..., 1:]``."""
    index: Any = node.args[1] if op_name(node) == "getitem" else None
    if isinstance(index, tuple) and len(index) == 2 and index[0] is ...:
        return isinstance(index[1], slice)
    whole = (slice(None), slice(None))
    return isinstance(index, tuple) and index[:2] == whole and all(isinstance(i, slice) for i in index)


def first_channels(node: fx.Node) -> int | None:
    """The n of ``x[:, :n]``, of all positions or some; None for any other item."""
    index = node.args[1] if op_name(node) == "getitem" else None
    if not isinstance(index, tuple) or len(index) < 2 or not all(isinstance(i, slice) for i in index):
        return None
    rows, columns = index[:2]
    is_first = rows == slice(None) and columns.start is None and columns.step is None
    return columns.stop if is_first and isinstance(columns.stop, int) and columns.stop > 0 else None


def is_in_place(node: fx.Node) -> bool:
    """Whether a call of a function or method changes its first input."""
    name = op_name(node)
    in_place_operator = node.op == "call_function" and name in {
        "iadd",
        "isub",
        "imul",
        "itruediv",
        "setitem",
        "setattr",
    }
    by_position = name in ACTIVATIONS and any(arg is True for arg in node.args[1:])  # F.relu(x, True)
    return in_place_operator or name.endswith("_") or by_position or bool(node.kwargs.get("inplace"))


def argument(node: fx.Node, position: int, *names: str, default: Any = None) -> Any:
    """An argument of a call by its position or by one of its names."""
    if len(node.args) > position:
        return node.args[position]
    return next((node.kwargs[name] for name in names if name in node.kwargs), default)


def is_part_of_split(node: fx.Node) -> bool:
    """Whether a node takes a value apart."""
    if op_name(node) == "getitem":
        # What a child returns beside other values, or the forward gets in a tuple, is no part of one value.
        is_one_of_several = node.args[0].op in ("call_module", "placeholder")  # type: ignore[union-attr]
        return not is_one_of_several and any(isinstance(index, int) for index in flatten(node.args[1]))
    return op_name(node) in SPLITS
