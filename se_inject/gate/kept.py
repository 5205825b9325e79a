"""What autograd keeps of a value anyway: enough to do without the value itself in backward.

A gate that multiplies its input would keep it for the gradient of the scale, which makes SE-ResNet-50 keep a quarter
more than ResNet-50 does. But that gradient needs only the sum of the value times a gradient, by sample and channel; and
the value is mostly a batch norm's output, an affine map of the norm's input, or a concat of what ReLUs and poolings
return, and those are kept, or can be made of what is kept, by the norm, the ReLUs and the poolings for themselves.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from .affine import dot, dot_and_sum, spread
from .made_again import (
    Node,
    at_first_position,
    bias_of,
    made_by_average_pool,
    made_by_convolution,
    made_by_max_pool,
)
from .pointwise import Pointwise, can_be_passed_by


class Kept(Protocol):
    """Some channels of a value, which can be told from what its node keeps."""

    channels: int
    is_unwatched: bool  # whether autograd does not tell if it was changed in place

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
        if type(node).__name__ in _NORMS and _is_there(node._raw_saved_input, x):
            return [_Norm(node, x)]
        if recompute and _is(node, "Convolution") and _is_there(node._raw_saved_input, x, resized=True):
            weight = node._raw_saved_weight.data
            if isinstance(weight, Tensor) and weight.untyped_storage().nbytes() == 0:
                return None  # it is sharded again, until the convolution's own backward
            if can_be_passed_by(node, x):
                return [Pointwise(node, x)]
            return [_Made(x.shape[1], made_by_convolution(node, x))]
        known = list(_of_parts(node, x))
        if not _are_as_made(x, known):
            return None
    except (AttributeError, RuntimeError):  # another torch, or changed in place since, which backward will tell
        return None
    return known


def dots(parts: list[Kept], gradient: Tensor) -> Tensor:
    """The sums over positions of a value, of which these parts are kept, times a gradient, ``(N, C)``."""
    if len(parts) == 1:
        return parts[0].dot(gradient)
    own = torch.split(gradient, [part.channels for part in parts], 1)
    return torch.cat([part.dot(channels) for part, channels in zip(parts, own, strict=True)], 1)


def _are_as_made(x: Tensor, parts: list[Kept]) -> bool:
    """Whether channels are what poolings made, which nobody tells: a ReLU's node would tell of a change."""
    if sum(part.channels for part in parts) != x.shape[1]:
        return False
    if not any(part.is_unwatched for part in parts):
        return True
    if x.device.type != "cpu":  # asking would wait for the device
        return False
    with torch.no_grad():
        own = torch.split(x, [part.channels for part in parts], 1)
        return all(torch.equal(p.value(), channels) for p, channels in zip(parts, own, strict=True) if p.is_unwatched)


def _of_parts(node: Node, like: Tensor) -> Iterator[Kept]:
    """The results of ReLUs and poolings, one or a concat of them, as far as they are known."""
    if _is(node, "Cat") and node._saved_dim in (1, 2**64 + 1 - like.dim()):
        for part, _ in node.next_functions:
            yield from _of_parts(part, like)
    elif _is(node, "Relu") and _is_there(node._raw_saved_result, like):
        yield _Made(node._raw_saved_result.data.shape[1], lambda: node._saved_result)
    elif type(node).__name__ in _POOLS and like.dim() == 4 and _is_there(node._raw_saved_self, like, resized=True):
        make = partial(_POOLS[type(node).__name__], node)
        yield _Made(node._raw_saved_self.data.shape[1], make, is_unwatched=True)


_NORMS = {"NativeBatchNormBackward0": "_saved_eps", "CudnnBatchNormBackward0": "_saved_epsilon"}
_POOLS = {"MaxPool2DWithIndicesBackward0": made_by_max_pool, "AvgPool2DBackward0": made_by_average_pool}


def _is(node: Node, operation: str) -> bool:
    return type(node).__name__ == f"{operation}Backward0"


class _Made:
    """A value that a function makes again."""

    def __init__(self, channels: int, make: Callable[[], Tensor], *, is_unwatched: bool = False) -> None:
        self.channels, self.is_unwatched = channels, is_unwatched
        self.value = make

    def dot(self, gradient: Tensor) -> Tensor:
        return dot(gradient, self.value())


class _Norm:
    """A batch norm's output, by its input, its statistics and its weights.

    As they were: unlike the weight, of which autograd would tell, the others may change before backward.
    """

    is_unwatched = False

    def __init__(self, node: Node, output: Tensor) -> None:
        self.channels = output.shape[1]
        self._node = node
        self._eps: float = getattr(node, _NORMS[type(node).__name__])
        self._bias = bias_of(node)
        self._known = at_first_position(output) if self._bias is None else self._bias.detach().clone()[None]
        if not node._saved_training:
            mean, variance = node._saved_running_mean, node._saved_running_var
            self._running = mean.clone(), torch.rsqrt(variance + self._eps)

    def dot(self, gradient: Tensor) -> Tensor:
        mean, scale = self._mean_and_scale()
        shift = torch.addcmul(self._bias_then(mean, scale), mean, scale, value=-1)
        product, total = dot_and_sum(gradient, self._node._saved_input)
        return torch.addcmul(scale * product, shift, total)

    def value(self) -> Tensor:
        node, h = self._node, self._node._saved_input
        if node._saved_training:
            normalized = functional.batch_norm(h, None, None, node._saved_weight, None, True, eps=self._eps)
        else:
            mean, scale = self._running
            normalized = (h - spread(mean[None], h)) * spread(scale[None], h)
            if node._saved_weight is not None:
                normalized = normalized * spread(node._saved_weight[None], h)
        bias = self._bias_then(*self._mean_and_scale())
        if self._bias is not None:
            bias = self._bias + (bias - self._bias.detach())
        return normalized + spread(bias, normalized)

    def _mean_and_scale(self) -> tuple[Tensor, Tensor]:
        """The means, and what the differences to them are multiplied by."""
        node = self._node
        mean, scale = (node._saved_result1, node._saved_result2) if node._saved_training else self._running
        return mean, scale if node._saved_weight is None else scale * node._saved_weight.detach()

    def _bias_then(self, mean: Tensor, scale: Tensor) -> Tensor:
        """The bias, ``(1, C)`` or ``(N, C)``: if it does not learn, autograd does not have it, and a position tells."""
        if self._bias is not None:
            return self._known
        return self._known - scale * (at_first_position(self._node._saved_input) - mean)


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
