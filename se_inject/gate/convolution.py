"""A convolution and the gate after it, with one backward.

The gradient of a gate's scale is the sum over positions of the gate's input times a gradient. Where a convolution made
that input, and no norm keeps it, the gradient of the convolution's weight by each sample tells the sum, as the output
is linear in the weight:

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

_PASSES = 8  # over the weight by sample, about, which the same number of products by position costs


def takes_gradients_at_once(node: Node, output: Tensor) -> bool:
    """Whether a convolution's node can be passed by, at little cost: a GPU would wait for Python at each sample."""
    if not output.is_cpu or output.dtype not in (torch.float32, torch.float64) or node._saved_transposed:
        return False
    if bias_of(node) is None and node._saved_bias_sym_sizes_opt not in (None, (0,)):
        return False  # a frozen one, which nobody tells
    weights: int = node._saved_weight[0].numel()
    return weights <= _PASSES * output[0, 0].numel()


class Convolved:
    """What a convolution made; it is one of the kinds of ``Kept``."""

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
        self._node, self._gradient, self._scale = node, gradient, scale
        w, groups, dots, windows = node._saved_weight, node._saved_groups, [], []
        self._of_weight = torch.zeros_like(w)
        ones = gradient.new_ones(1, groups, *gradient.shape[2:])
        for x, g, s in zip(*(torch.split(t, 1) for t in (node._saved_input, gradient, scale)), strict=True):
            of_weight = _backward(node, g, x, w, [False, True])[1]
            windows.append(_backward(node, ones, x, w[:: len(w) // groups], [False, True])[1])
            self._of_weight.addcmul_(of_weight, s.view(-1, *[1] * (w.dim() - 1)))
            dots.append(of_weight.mul_(w).flatten(1).sum(1))
        self._windows = torch.stack(windows)  # the sums over positions of what each weight is multiplied with
        self.dot = torch.stack(dots)
        if bias is not None:
            self._total = gradient.sum(positions(gradient))
            self.dot = torch.addcmul(self.dot, bias, self._total)

    def gradients(self, of_mean: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        """Those of input, weight and bias; ``of_mean``, ``(N, C)``, is the output's through the gate's mean."""
        x, w = self._node._saved_input, self._node._saved_weight
        found: list[Tensor | None] = [None, None, None]
        if wanted[0]:
            of_output = affine(self._gradient, self._scale, of_mean)
            found[0] = _backward(self._node, of_output, x, w, [True, False])[0]
        if wanted[1]:
            of_groups = of_mean.view(len(of_mean), self._node._saved_groups, -1)
            through_mean = torch.einsum("ngc,ngk->gck", of_groups, self._windows.flatten(2))
            found[1] = self._of_weight.add_(through_mean.reshape(w.shape))
        if wanted[2]:
            found[2] = torch.addcmul(of_mean * self._gradient[0, 0].numel(), self._scale, self._total).sum(0)
        return found


def _backward(node: Node, gradient: Tensor, x: Tensor, w: Tensor, wanted: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of a convolution's input and weight, as far as wanted."""
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        *(gradient, x, w, None, node._saved_stride, node._saved_padding, node._saved_dilation),
        *(node._saved_transposed, node._saved_output_padding, node._saved_groups, [*wanted, False]),
    )
    return found
