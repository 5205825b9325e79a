"""The gate for torch.compile: in operations that a compiler fuses with each other.

A compiler calls a library for each convolution and each matrix product. That takes longer than a gate's small products,
which it can compute, as sums, together with what is around them.
"""

import torch
from torch import Tensor, nn

from .affine import positions, spread


def is_compiled_for_inference() -> bool:
    """Whether torch.compile is at work, without gradients; exported programs keep layers, which other tools look for.

    >>> is_compiled_for_inference()
    False
    """
    if not torch.compiler.is_compiling() or torch.is_grad_enabled():
        return False
    is_exporting = getattr(torch.compiler, "is_exporting", lambda: True)  # which torch 2.6 does not tell
    return not is_exporting()


def fused(x: Tensor, fc1: nn.Conv2d, fc2: nn.Conv2d, factor: float) -> Tensor:
    """``x * factor * sigmoid(fc2(relu(fc1(mean of x))))`` for ``x`` of shape ``(N, C, *)``.

    >>> fused(torch.ones(1, 8, 5), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), 2.0).shape
    torch.Size([1, 8, 5])
    """
    assert fc1.bias is not None
    return x * spread(factor * excited(x, fc1.weight.flatten(1), fc1.bias, fc2), x).to(x.dtype)


def excited(x: Tensor, w1: Tensor, b1: Tensor, fc2: nn.Conv2d) -> Tensor:
    """``sigmoid(fc2(relu(w1 @ mean + b1)))``, ``(N, C)``, of the mean over positions of ``x``.

    >>> excited(torch.ones(1, 8, 5), torch.ones(4, 8), torch.ones(4), nn.Conv2d(4, 8, 1)).shape
    torch.Size([1, 8])
    """
    assert fc2.bias is not None
    hidden = torch.relu(_product(x.mean(positions(x)).to(w1.dtype), w1) + b1)
    return torch.sigmoid(_product(hidden, fc2.weight.flatten(1)) + fc2.bias)


def _product(x: Tensor, weight: Tensor) -> Tensor:
    return (x[:, None] * weight).sum(2)
