"""What autograd keeps of a value anyway: enough to do without the value itself in backward.

A gate that multiplies its input would keep it for the gradient of the scale, which makes SE-ResNet-50 keep a quarter
more than ResNet-50 does. But that gradient needs only the sum of the value times a gradient, by sample and channel; and
the value is mostly a batch norm's output, an affine map of the norm's input, or a concat of what ReLUs return, and
those are kept by the norm and the ReLUs for themselves.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from .affine import dot
from .made_again import (
    Node,
    at_first_position,
    bias_of,
    made_by_average_pool,
    made_by_convolution,
    made_by_max_pool,
)


class Kept(Protocol):
    """Some channels of a value, which can be told from what its node keeps."""

    channels: int

    def dot(self, gradient: Tensor) -> Tensor:
        """The sums over positions of the value times a gradient, ``(N, C)``."""

    def value(self) -> Tensor:
        """The value itself with its history, so that it can be derived twice."""


def kept_of(x: Tensor, *, recompute: bool = False) -> list[Kept] | None:
    """What is kept of a value, in the order of its channels; None if autograd does not keep enough, or it is not known.

    With ``recompute``, a convolution's input is enough.

    >>> y = torch.nn.BatchNorm2d(8)(torch.randn(2, 8, 4, 4))
    >>> gradient = torch.randn_like(y)
    >>> kept = kept_of(y)
    >>> kept is None or torch.allclose(kept[0].dot(gradient), (y * gradient).sum((2, 3)), atol=1e-4)
    True
    """
    node: Node = x.grad_fn
    try:
        if _is(node, "NativeBatchNorm") and _is_there(node._raw_saved_input, x):
            return [_Norm(node, x)]
        if recompute and _is(node, "Convolution") and _is_there(node._raw_saved_input, x, resized=True):
            return [_Made(x.shape[1], made_by_convolution(node, x))]
        known = list(_of_parts(node, x))
    except (AttributeError, RuntimeError):  # another torch, or changed in place since, which backward will tell
        return None
    return known if sum(part.channels for part in known) == x.shape[1] else None


def _of_parts(node: Node, like: Tensor) -> Iterator[Kept]:
    """The results of ReLUs and poolings, one or a concat of them, as far as they are known."""
    if _is(node, "Cat") and node._saved_dim in (1, 2**64 + 1 - like.dim()):
        for part, _ in node.next_functions:
            yield from _of_parts(part, like)
    elif _is(node, "Relu") and _is_there(node._raw_saved_result, like):
        yield _Made(node._raw_saved_result.data.shape[1], lambda: node._saved_result)
    elif _is(node, "MaxPool2DWithIndices") and _is_there(node._raw_saved_self, like, resized=True):
        yield _Made(node._raw_saved_self.data.shape[1], partial(made_by_max_pool, node))
    elif _is(node, "AvgPool2D") and _is_there(node._raw_saved_self, like, resized=True):
        yield _Made(node._raw_saved_self.data.shape[1], partial(made_by_average_pool, node))


def _is(node: Node, operation: str) -> bool:
    return type(node).__name__ == f"{operation}Backward0"


class _Made:
    """A value that a function makes again."""

    def __init__(self, channels: int, make: Callable[[], Tensor]) -> None:
        self.channels = channels
        self.value = make

    def dot(self, gradient: Tensor) -> Tensor:
        return dot(gradient, self.value())


class _Norm:
    """A batch norm's output, by its input, its statistics and its weights."""

    def __init__(self, node: Node, output: Tensor) -> None:
        self.channels = output.shape[1]
        self._node = node
        self._bias = bias_of(node)
        known = at_first_position(output) if self._bias is None else self._bias
        self._known = known.detach().clone()  # as it is now: unlike a weight, a bias may change before backward

    def dot(self, gradient: Tensor) -> Tensor:
        mean, scale = self._statistics()
        if self._node._saved_weight is not None:
            scale = scale * self._node._saved_weight
        shift = self._bias_then(mean, scale) - mean * scale
        return scale * dot(gradient, self._node._saved_input) + shift * gradient.flatten(2).sum(2)

    def value(self) -> Tensor:
        node, bias = self._node, self._bias
        mean, scale = self._statistics()
        weight, training = node._saved_weight, node._saved_training
        if bias is None:
            bias = self._bias_then(mean, scale if weight is None else scale * weight).detach()
        means, variances = (None, None) if training else (node._saved_running_mean, node._saved_running_var)
        h, eps = node._saved_input, node._saved_eps
        return functional.batch_norm(h, means, variances, weight, bias, training, eps=eps)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """The means and the reciprocals of the standard deviations."""
        node = self._node
        if node._saved_training:
            return node._saved_result1, node._saved_result2
        return node._saved_running_mean, torch.rsqrt(node._saved_running_var + node._saved_eps)

    def _bias_then(self, mean: Tensor, scale: Tensor) -> Tensor:
        if self._bias is not None:
            return self._known
        return self._known - scale * (at_first_position(self._node._saved_input) - mean)  # any position tells it


def _is_there(saved: Any, like: Tensor, *, resized: bool = False) -> bool:
    """Whether a tensor that is kept is kept as such: hooks may have moved it away, or dropped it.

    Those of torch's checkpointing count the tensors, in the first run and when it runs again.
    """
    data, hook = saved.data, saved.unpack_hook
    if (getattr(hook, "__module__", None) or "").startswith("torch."):
        return False
    if not isinstance(data, Tensor) or (data.dtype, data.device) != (like.dtype, like.device):
        return False
    if resized:
        return data.dim() == like.dim() and data.shape[0] == like.shape[0]
    return data.shape[:1] + data.shape[2:] == like.shape[:1] + like.shape[2:]
