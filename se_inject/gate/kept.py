"""What autograd keeps of a value anyway: enough to do without the value itself in backward.

A gate that multiplies its input would keep it for the gradient of the scale, which makes SE-ResNet-50 keep a quarter
more than ResNet-50 does. But that gradient needs only the sum of the value times a gradient, by sample and channel; and
the value is mostly a batch norm's output, an affine map of the norm's input, or a concat of what ReLUs return, and
those are kept by the norm and the ReLUs for themselves.
"""

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

Node = Any  # of autograd's graph; torch makes the class, and with it the attributes, of each operation


class Kept(Protocol):
    """Some channels of a value, which can be told from what its node keeps."""

    channels: int

    def dot(self, gradient: Tensor) -> Tensor:
        """The sums over positions of the value times a gradient, ``(N, C)``."""

    def value(self) -> Tensor:
        """The value itself with its history, so that it can be derived twice."""


def kept_of(x: Tensor) -> list[Kept] | None:
    """What is kept of a value, in the order of its channels; None if autograd does not keep enough, or it is not known.

    >>> y = torch.nn.BatchNorm2d(8)(torch.randn(2, 8, 4, 4))
    >>> gradient = torch.randn_like(y)
    >>> kept = kept_of(y)
    >>> kept is None or torch.allclose(kept[0].dot(gradient), (y * gradient).sum((2, 3)), atol=1e-4)
    True
    """
    node: Node = x.grad_fn
    try:
        if type(node).__name__ == "NativeBatchNormBackward0" and _is_there(node._raw_saved_input, x):
            return [_Norm(node, x)]
        if type(node).__name__ == "CatBackward0" and node._saved_dim in (1, 2**64 + 1 - x.dim()):
            return _of_concat(node, x)
    except (AttributeError, RuntimeError):  # another torch, or changed in place since, which backward will tell
        return None
    return None


def _of_concat(node: Node, x: Tensor) -> list[Kept] | None:
    parts: list[Kept] = []
    for part, _ in node.next_functions:
        if type(part).__name__ != "ReluBackward0" or not _is_there(part._raw_saved_result, x):
            return None
        parts.append(_Relu(part))
    return parts if sum(part.channels for part in parts) == x.shape[1] else None


class _Norm:
    """A batch norm's output, by its input, its statistics and its weights."""

    def __init__(self, node: Node, output: Tensor) -> None:
        self.channels = output.shape[1]
        self._node = node
        bias = node.next_functions[2][0]
        # A bias that is frozen is not in autograd's graph, and one that is computed is not served.
        self._bias: Tensor | None = None if bias is None else bias.variable
        known = _at_first_position(output) if self._bias is None else self._bias
        self._known = known.detach().clone()  # as it is now: unlike a weight, a bias may change before backward

    def dot(self, gradient: Tensor) -> Tensor:
        mean, scale = self._statistics()
        if self._node._saved_weight is not None:
            scale = scale * self._node._saved_weight
        shift = self._bias_then(mean, scale) - mean * scale
        return scale * _dot(gradient, self._node._saved_input) + shift * gradient.flatten(2).sum(2)

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
        return self._known - scale * (_at_first_position(self._node._saved_input) - mean)  # any position tells it


class _Relu:
    """What a ReLU returned, and keeps."""

    def __init__(self, node: Node) -> None:
        self.channels: int = node._raw_saved_result.data.shape[1]
        self._node = node

    def dot(self, gradient: Tensor) -> Tensor:
        return _dot(gradient, self.value())

    def value(self) -> Tensor:
        result: Tensor = self._node._saved_result
        return result


def _is_there(saved: Any, like: Tensor) -> bool:
    """Whether a tensor that is kept is kept as such: hooks may have moved it away, or dropped it.

    Those of torch's checkpointing count the tensors, in the first run and when it runs again.
    """
    data, hook = saved.data, saved.unpack_hook
    if (getattr(hook, "__module__", None) or "").startswith("torch."):
        return False
    if not isinstance(data, Tensor) or (data.dtype, data.device) != (like.dtype, like.device):
        return False
    return data.shape[:1] + data.shape[2:] == like.shape[:1] + like.shape[2:]


def _at_first_position(x: Tensor) -> Tensor:
    return x[0].flatten(1)[:, 0]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    if a.is_contiguous() and b.is_contiguous():
        rows = a.shape[0] * a.shape[1]
        return torch.bmm(a.view(rows, 1, -1), b.view(rows, -1, 1)).view(a.shape[:2])
    return (a * b).flatten(2).sum(2)
