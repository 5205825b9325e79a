"""Products and sums by sample and channel, in the fastest form for a memory format."""

import torch
from torch import Tensor


def spread(values: Tensor, x: Tensor) -> Tensor:
    """``values`` of shape ``(N, C)``, to be spread over the positions of ``x`` of shape ``(N, C, *)``.

    >>> spread(torch.ones(2, 8), torch.ones(2, 8, 4, 4)).shape
    torch.Size([2, 8, 1, 1])
    """
    return values.view(*values.shape, *[1] * (x.dim() - 2))


def affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``x * scale + shift`` for ``x`` of shape ``(N, C, *)``, with ``scale`` and ``shift`` of shape ``(N, C)``.

    >>> affine(torch.ones(1, 8, 5), torch.full((1, 8), 2.0), torch.ones(1, 8)).unique()
    tensor([3.])
    """
    if x.is_contiguous():  # one pass is slower here: its inner loop is over positions, where neither factor changes
        return (x * spread(scale, x)).add_(spread(shift, x))
    return torch.addcmul(spread(shift, x), x, spread(scale, x))


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The sums over positions of the product of two tensors of shape ``(N, C, *)``, ``(N, C)``.

    >>> dot(torch.ones(1, 2, 5), torch.ones(1, 2, 5))
    tensor([[5., 5.]])
    """
    if a.is_contiguous() and b.is_contiguous():
        rows = a.shape[0] * a.shape[1]
        return torch.bmm(a.view(rows, 1, -1), b.view(rows, -1, 1)).view(a.shape[:2])
    return (a * b).sum(positions(a))


def positions(x: Tensor) -> tuple[int, ...]:
    """The dimensions of ``x`` of shape ``(N, C, *)`` after the channels.

    >>> positions(torch.ones(1, 8, 4, 4))
    (2, 3)
    """
    return tuple(range(2, x.dim()))
