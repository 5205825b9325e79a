"""What a node of a graph is called and what it does, read off the node alone."""

from typing import Any

from torch import fx

from .layers import flatten

ADD = frozenset({"add", "iadd", "add_"})
MUL = frozenset({"mul", "imul", "mul_", "multiply", "multiply_"})
DIV = frozenset({"div", "div_", "truediv", "itruediv", "divide"})
CAT = frozenset({"cat", "concat", "concatenate"})
# These read a value's shape or type, not its numbers: no data flows through them.
SHAPE_ONLY = frozenset(
    "size dim ndimension numel stride new_empty new_zeros new_ones new_full new_tensor"
    " empty_like zeros_like ones_like full_like rand_like randn_like".split()
)
SHAPE_ATTRIBUTES = frozenset("shape ndim dtype device layout requires_grad is_cuda".split())
SPLITS = frozenset("chunk split tensor_split unbind split_with_sizes".split())
ACTIVATIONS = frozenset(
    "relu relu6 gelu silu mish elu selu celu leaky_relu prelu rrelu hardtanh hardswish hardsigmoid softplus sigmoid"
    " tanh clamp softmax".split()
)
ATTENTION = frozenset("matmul bmm einsum softmax scaled_dot_product_attention".split())
UPSAMPLING = frozenset(
    "interpolate upsample pixel_shuffle conv_transpose1d conv_transpose2d conv_transpose3d"
    " max_unpool1d max_unpool2d max_unpool3d".split()
)
# Methods whose arguments after the first are a shape.
SHAPING = frozenset("view reshape expand unflatten new_zeros new_ones new_empty".split())
ARITHMETIC = frozenset("add sub mul floordiv truediv getitem int".split())


def op_name(node: fx.Node) -> str:
    """The bare name of the function or method that a node calls; empty for other nodes."""
    if node.op == "call_method":
        return str(node.target)
    return getattr(node.target, "__name__", "") if node.op == "call_function" else ""


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
