"""A 1x1 convolution and the gate after it, with one backward, in place of making the convolution's output again.

The gradient of a gate's scale is the sum over positions of the gate's input times a gradient. Where a convolution made
that input, which is linear in the convolution's weight, the gradient of the weight by each sample tells the sum:

    sum over p of g[n, c, p] * y[n, c, p]  =  sum over k of W[c, k] * dW[n, c, k]  +  b[c] * sum over p of g[n, c, p]

The convolution's own node makes only the sum over samples, and only when the gate's backward is done. So gradients go
past that node, to what the convolution took, unless somebody may ask for the gradient of what it made.
"""

import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

from .affine import affine, dot, positions
from .made_again import Node, bias_of, made_by_convolution

_PASSES = 8  # over a weight: they take about as long as its product with one position
_PRODUCTS = 2**22  # by sample: fewer take less time than the calls


def can_be_passed_by(node: Node, output: Tensor) -> bool:
    """Whether a node is that of a 1x1 convolution whose output costs more to make than gradients by sample do.

    On a GPU the calls for each sample would.
    """
    x, weight, bias = node._raw_saved_input, node._raw_saved_weight, bias_of(node)
    if not output.is_cpu or output.dtype not in (torch.float32, torch.float64) or node._saved_transposed:
        return False
    if x.unpack_hook is not None or weight.unpack_hook is not None or not node._saved_weight.requires_grad:
        return False
    if {*weight.data.shape[2:], *node._saved_stride, node._saved_groups} != {1} or any(node._saved_padding):
        return False
    if node._saved_bias_sym_sizes_opt not in (None, (0,)) and (bias is None or bias.dtype is not output.dtype):
        return False  # a frozen one, which nobody tells, or one that was cast
    features, places = node._saved_input.shape[1], output[0, 0].numel()
    return bool(features <= _PASSES * places and output[0].numel() * features >= _PRODUCTS)


class Pointwise:
    """What a 1x1 convolution made; it is one of the kinds of ``Kept``."""

    is_unwatched = False

    def __init__(self, node: Node, output: Tensor) -> None:
        self.channels = output.shape[1]
        self.value = made_by_convolution(node, output)
        self._node = node
        bias = bias_of(node)
        self._bias = None if bias is None else bias.detach().clone()  # as it was
        self._output = weakref.ref(output)
        output.register_hook(_none).remove()  # type: ignore[no-untyped-call]  # has the dict for later ones now
        self._hooks = output._backward_hooks

    def inputs(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the convolution took: input, weight and bias, with their history."""
        return self._node._saved_input, self._node._saved_weight, bias_of(self._node)

    def is_held(self) -> bool:
        """Whether somebody still has the output, or a hook waits for its gradient, so that it must have one."""
        return bool(self._hooks) or self._output() is not None

    def dot(self, gradient: Tensor) -> Tensor:
        """The sums over positions of the output times a gradient, ``(N, C)``."""
        return dot(gradient, self.value())

    def by_sample(self, gradient: Tensor, scale: Tensor) -> "BySample":
        """The same and more, where ``gradient`` is that of ``scale`` times the output, whose own nobody asks for."""
        return BySample(self._node, self._bias, gradient, scale)


def _none(gradient: Tensor) -> None:
    """A hook that does nothing."""


class BySample:
    """The gradients of a convolution's weight by each sample, and what they tell."""

    def __init__(self, node: Node, bias: Tensor | None, gradient: Tensor, scale: Tensor) -> None:
        self._x, self._weight, self._gradient, self._scale = node._saved_input, node._saved_weight, gradient, scale
        w, dots, self._of_weight = self._weight, [], torch.zeros_like(self._weight)
        for x, g, s in zip(*(torch.split(t, 1) for t in (self._x, gradient, scale)), strict=True):
            of_weight = _backward(g, x, w, [False, True])[1]
            self._of_weight.addcmul_(of_weight, s.view(-1, *[1] * (w.dim() - 1)))
            dots.append(of_weight.mul_(w).flatten(1).sum(1))
        self.dot = torch.stack(dots)
        if bias is not None:
            self._total = gradient.sum(positions(gradient))
            self.dot = torch.addcmul(self.dot, bias, self._total)

    def gradients(self, of_mean: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        """Those of input, weight and bias; ``of_mean``, ``(N, C)``, is the output's through the gate's mean."""
        found: list[Tensor | None] = [None, None, None]
        if wanted[0]:
            of_output = affine(self._gradient, self._scale, of_mean)
            found[0] = _backward(of_output, self._x, self._weight, [True, False])[0]
        if wanted[1]:
            through_mean = of_mean.T @ self._x.sum(positions(self._x))
            found[1] = self._of_weight.add_(through_mean.view_as(self._of_weight))
        if wanted[2]:
            found[2] = torch.addcmul(of_mean * self._gradient[0, 0].numel(), self._scale, self._total).sum(0)
        return found


def _backward(gradient: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of a 1x1 convolution's input and weight, as far as wanted."""
    rank = x.dim() - 2
    ways = [1] * rank, [0] * rank, [1] * rank, False, [0] * rank, 1
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, *ways, [*wanted, False]
    )
    return found
