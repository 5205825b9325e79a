"""Triton kernels for what gates do to whole features on a GPU, each in one pass over them.

torch's own operations take half as long again where a factor is spread over positions, twice as long where dtypes are
mixed, and several passes for a sum of products.
"""

import math

import torch
import triton  # comes with torch where it has GPUs
import triton.language as tl
from torch import Tensor


def scale_and_shift(x: Tensor, scale: Tensor, shift: Tensor | None, out: Tensor) -> Tensor:
    """``out = x * scale + shift`` for ``x`` of shape ``(N, C, *)`` with factors of shape ``(N, C)``, in their dtype."""
    (samples, channels), positions = x.shape[:2], math.prod(x.shape[2:])
    grid = (triton.cdiv(channels * positions, _BLOCK), samples)
    added = scale if shift is None else shift
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        _scale_and_shift[grid](
            *(x, scale, added, out, channels, positions, *scale.stride(), *added.stride()),
            **{"last": not x.is_contiguous(), "shifts": shift is not None, "block": _BLOCK},
        )
    return out


def sums(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The sums over positions of ``a * b`` and of ``a``, both ``(N, C)`` in float32, for ``(N, C, *)``."""
    (samples, channels), positions = a.shape[:2], math.prod(a.shape[2:])
    last = not a.is_contiguous()
    inner = min(128, triton.next_power_of_2(channels)) if last else min(1024, triton.next_power_of_2(positions))
    outer = max(1, _TILE // inner)
    of_channels, of_positions = (inner, outer) if last else (outer, inner)
    part = min(_PART, triton.next_power_of_2(positions))
    parts = triton.cdiv(positions, part)
    found = torch.empty(2, parts, samples, channels, dtype=torch.float32, device=a.device)
    grid = (parts * triton.cdiv(channels, of_channels), samples)  # a GPU takes more than 2^16 in the first place only
    with torch.cuda.device_of(a):  # type: ignore[no-untyped-call]
        _sums[grid](
            *(a, b, found[0], found[1], channels, positions),
            **{"last": last, "in_part": part, "of_channels": of_channels, "of_positions": of_positions},
        )
    products, values = found[:, 0] if parts == 1 else found.sum(1)
    return products, values


_BLOCK = 1024
_TILE = 2048
_PART = 1024  # positions of a channel that one program sums up


@triton.jit  # type: ignore[untyped-decorator]
def _scale_and_shift(  # type: ignore[no-untyped-def]
    x,
    scale,
    shift,
    out,
    channels,
    positions,
    scale_sample,
    scale_channel,
    shift_sample,
    shift_channel,
    last: tl.constexpr,
    shifts: tl.constexpr,
    block: tl.constexpr,
):
    sample = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * block + tl.arange(0, block)
    inside = i < channels * positions
    channel = i % channels if last else i // positions
    here = sample * channels * positions + i
    value = tl.load(x + here, inside).to(tl.float32)
    value *= tl.load(scale + sample * scale_sample + channel * scale_channel, inside)
    if shifts:
        value += tl.load(shift + sample * shift_sample + channel * shift_channel, inside)
    tl.store(out + here, value, inside)


@triton.jit  # type: ignore[untyped-decorator]
def _sums(  # type: ignore[no-untyped-def]
    a,
    b,
    products,
    values,
    channels,
    positions,
    last: tl.constexpr,
    in_part: tl.constexpr,
    of_channels: tl.constexpr,
    of_positions: tl.constexpr,
):
    blocks = tl.cdiv(channels, of_channels)
    channel = tl.program_id(0) % blocks * of_channels + tl.arange(0, of_channels)
    sample, part = tl.program_id(1).to(tl.int64), tl.program_id(0) // blocks
    first = sample * channels * positions
    product = tl.zeros((of_channels, of_positions), tl.float32)
    value = tl.zeros((of_channels, of_positions), tl.float32)
    for step in range(0, in_part, of_positions):
        position = part * in_part + step + tl.arange(0, of_positions)
        inside = (channel < channels)[:, None] & (position < positions)[None]
        if last:
            here = first + position[None] * channels + channel[:, None]
        else:
            here = first + channel[:, None] * positions + position[None]
        of_a = tl.load(a + here, inside, 0.0).to(tl.float32)
        product += of_a * tl.load(b + here, inside, 0.0).to(tl.float32)
        value += of_a
    to = (part * tl.num_programs(1) + sample) * channels + channel
    tl.store(products + to, tl.sum(product, 1), channel < channels)
    tl.store(values + to, tl.sum(value, 1), channel < channels)
