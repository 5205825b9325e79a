"""Products and sums by sample and channel, in the fastest form for a device and a memory format."""

import math
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

_BY_KERNELS = (torch.float32, torch.float16, torch.bfloat16)
_WORTHWHILE = 2**24  # values: fewer take a GPU less time than Python takes to launch a kernel of Triton


def spread(values: Tensor, x: Tensor) -> Tensor:
    """``values`` of shape ``(N, C)``, to be spread over the positions of ``x`` of shape ``(N, C, *)``.

    >>> spread(torch.ones(2, 8), torch.ones(2, 8, 4, 4)).shape
    torch.Size([2, 8, 1, 1])
    """
    return values.view(*values.shape, *[1] * (x.dim() - 2))


def scaled(x: Tensor, scale: Tensor) -> Tensor:
    """``x * scale`` for ``x`` of shape ``(N, C, *)``, with ``scale`` of shape ``(N, C)`` and of its dtype.

    >>> scaled(torch.ones(1, 8, 5), torch.full((1, 8), 2.0)).unique()
    tensor([2.])
    """
    kernels = kernels_for(x)
    return x * spread(scale, x) if kernels is None else kernels.scale_and_shift(x, scale, None, torch.empty_like(x))


def scaled_(x: Tensor, scale: Tensor) -> Tensor:
    """The same in place.

    >>> scaled_(torch.ones(1, 8, 5), torch.full((1, 8), 2.0)).unique()
    tensor([2.])
    """
    kernels = kernels_for(x)
    return x.mul_(spread(scale, x)) if kernels is None else kernels.scale_and_shift(x, scale, None, x)


def affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``x * scale + shift`` for ``x`` of shape ``(N, C, *)``, with ``scale`` and ``shift`` of shape ``(N, C)``.

    >>> affine(torch.ones(1, 8, 5), torch.full((1, 8), 2.0), torch.ones(1, 8)).unique()
    tensor([3.])
    """
    if x.is_contiguous() and not x.is_cuda:
        # A CPU is slower in one pass here: its inner loop is over positions, where neither factor changes.
        return (x * spread(scale, x)).add_(spread(shift, x))
    return _affine(x, scale, shift, torch.empty_like(x))


def affine_(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The same in place.

    >>> x = torch.ones(1, 8, 5)
    >>> affine_(x, torch.full((1, 8), 2.0), torch.ones(1, 8)) is x, x.unique()
    (True, tensor([3.]))
    """
    if x.is_contiguous() and not x.is_cuda:
        return x.mul_(spread(scale, x)).add_(spread(shift, x))
    return _affine(x, scale, shift, x)


def _affine(x: Tensor, scale: Tensor, shift: Tensor, out: Tensor) -> Tensor:
    kernels = kernels_for(x)
    if kernels is None:
        return torch.addcmul(spread(shift, x), x, spread(scale, x), out=out)
    return kernels.scale_and_shift(x, scale, shift, out)  # type: ignore[no-any-return]


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The sums over positions of the product of two tensors of shape ``(N, C, *)``, ``(N, C)``.

    >>> dot(torch.ones(1, 2, 5), torch.ones(1, 2, 5))
    tensor([[5., 5.]])
    """
    kernels = kernels_for(a, b)
    if kernels is not None:
        return kernels.sums(a, b)[0]  # type: ignore[no-any-return]
    exact = _exact(a)
    if a.dtype is not exact:  # products of half precision overflow, and sums of them lose what large ones leave
        return torch.addcmul(a.new_zeros([1] * a.dim(), dtype=exact), a, b).sum(positions(a))
    if a.is_contiguous() and b.is_contiguous() and not a.is_cuda:
        rows = a.shape[0] * a.shape[1]
        return torch.bmm(a.view(rows, 1, -1), b.view(rows, -1, 1)).view(a.shape[:2])
    return (a * b).sum(positions(a))


def dot_and_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """``dot`` of two tensors, and the sums over positions of the first one, each ``(N, C)``.

    >>> dot_and_sum(torch.full((1, 2, 5), 2.0), torch.ones(1, 2, 5))
    (tensor([[10., 10.]]), tensor([[10., 10.]]))
    """
    kernels = kernels_for(a, b)
    if kernels is not None:
        return kernels.sums(a, b)  # type: ignore[no-any-return]
    return dot(a, b), a.sum(positions(a), dtype=_exact(a))


def _exact(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def positions(x: Tensor) -> tuple[int, ...]:
    """The dimensions of ``x`` of shape ``(N, C, *)`` after the channels.

    >>> positions(torch.ones(1, 8, 4, 4))
    (2, 3)
    """
    return tuple(range(2, x.dim()))


def kernels_for(x: Tensor, *others: Tensor) -> ModuleType | None:
    """The kernels, where they are worthwhile and take these tensors: of one shape and memory format, without gaps.

    >>> kernels_for(torch.ones(1, 8, 4, 4)) is None
    True
    """
    if not x.is_cuda or x.dtype not in _BY_KERNELS or x.numel() == 0:
        return None
    if x.numel() < _WORTHWHILE and not torch.cuda.is_current_stream_capturing():  # to replay it without Python
        return None
    if not all(map(is_in_memory, (x, *others))) or any(other.stride() != x.stride() for other in others):
        return None
    of_last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim(), torch.contiguous_format)
    if not (x.is_contiguous() or x.is_contiguous(memory_format=of_last)):
        return None
    if x.shape[0] >= 2**16 or math.prod(x.shape[1:]) >= 2**31 - 2**16:  # more than a launch can count
        return None
    return _kernels(x.device, x.dtype)


def is_in_memory(x: Tensor) -> bool:
    """Whether a kernel can read it: what ``torch.func.vmap`` and batches of gradients make has no memory of its own.

    >>> is_in_memory(torch.ones(1))
    True
    """
    return type(x) is Tensor and torch._C._has_storage(x)


@cache
def _kernels(device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    """The kernels, if they run: Triton may miss, or a C compiler, or the GPU may be too old for Triton or the dtype."""
    try:
        from . import kernels

        x, factors = torch.ones(1, 8, 8, dtype=dtype, device=device), torch.ones(1, 8, device=device)
        kernels.scale_and_shift(x, factors, factors, x)
        kernels.sums(x, x)
    except Exception:  # of Triton's compiler, of the C compiler, of the driver: torch's operations do the same
        return None
    return kernels
