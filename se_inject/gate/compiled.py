"""The gate for torch.compile: in operations that a compiler fuses with each other.

A compiler calls a library for each convolution and each matrix product. That takes longer than a gate's small products,
which it can compute, as sums, together with what is around them.
"""

import torch
from torch import Tensor, nn


def is_compiled_for_inference() -> bool:
    """Whether torch.compile is at work, without gradients; exported programs keep layers, which other tools look for.

    >>> is_compiled_for_inference()
    False
    """
    if not torch.compiler.is_compiling() or torch.is_grad_enabled():
        return False
    is_exporting = getattr(torch.compiler, "is_exporting", lambda: True)  # which torch 2.6 does not tell
    return not is_exporting()


def excited(mean: Tensor, w1: Tensor, b1: Tensor, fc2: nn.Conv2d) -> Tensor:
    """``sigmoid(fc2(relu(w1 @ mean + b1)))``, ``(N, C)``.

    >>> excited(torch.ones(1, 8), torch.ones(4, 8), torch.ones(4), nn.Conv2d(4, 8, 1)).shape
    torch.Size([1, 8])
    """
    assert fc2.bias is not None
    hidden = torch.relu(_product(mean.to(w1.dtype), w1) + b1)
    return torch.sigmoid(_product(hidden, fc2.weight.flatten(1)) + fc2.bias)


def _product(x: Tensor, weight: Tensor) -> Tensor:
    return (x[:, None] * weight).sum(2)
