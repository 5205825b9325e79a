"""Making a value again from what the node that made it keeps in autograd's graph."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .affine import spread

Node = Any  # of autograd's graph; torch makes the class, and with it the attributes, of each operation


def made_by_max_pool(node: Node) -> Tensor:
    """What a 2-D maximum pooling made; it keeps where the maxima were."""
    places = node._saved_result1
    made: Tensor = node._saved_self.flatten(2).gather(2, places.flatten(2)).view(places.shape)
    return made


def made_by_average_pool(node: Node) -> Tensor:
    """What a 2-D average pooling made."""
    return functional.avg_pool2d(
        node._saved_self,
        node._saved_kernel_size,
        node._saved_stride,
        node._saved_padding,
        node._saved_ceil_mode,
        node._saved_count_include_pad,
        node._saved_divisor_override,
    )


def made_by_convolution(node: Node, output: Tensor) -> Callable[[], Tensor]:
    """A function that makes what a convolution made."""
    bias = bias_of(node)
    has_bias = node._saved_bias_sym_sizes_opt not in (None, (0,))
    then = at_first_position(output) if bias is None else bias.detach().clone()

    def make() -> Tensor:
        made: Tensor = torch.ops.aten.convolution(
            node._saved_input,
            node._saved_weight,
            None,
            node._saved_stride,
            node._saved_padding,
            node._saved_dilation,
            node._saved_transposed,
            node._saved_output_padding,
            node._saved_groups,
        )
        if not has_bias:
            return made
        if bias is None:  # a frozen one, which any position tells
            return made + spread(then - at_first_position(made), made)
        return made + spread((bias + (then - bias.detach()))[None], made)

    return make


def bias_of(node: Node) -> Tensor | None:
    """The bias of a convolution's or a norm's node, if it learns.

    Raises ``AttributeError`` where it is computed, as no node keeps it.
    """
    accumulated = node.next_functions[2][0]
    if type(accumulated).__name__ == "ToCopyBackward0":  # autocast's
        accumulated = accumulated.next_functions[0][0]
    bias: Tensor | None = None if accumulated is None else accumulated.variable
    return bias


def at_first_position(x: Tensor) -> Tensor:
    """The values of all channels at the first position of each sample of ``x``, a copy without history.

    >>> at_first_position(torch.ones(2, 8, 4, 4)).shape
    torch.Size([2, 8])
    """
    return x.detach().flatten(2)[:, :, 0].clone()
