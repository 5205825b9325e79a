"""What a layer does, read off its class: convolutions, upsampling."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy


def is_conv(module: nn.Module) -> bool:
    """Whether a module is a convolution: torch's, or any leaf with a convolution's weight, and not just a scale's.

    >>> is_conv(nn.Conv1d(3, 8, 1)), is_conv(nn.Linear(3, 8))
    (True, False)
    """
    if isinstance(module, nn.modules.conv._ConvNd):
        return True
    if isinstance(module, torch.jit.ScriptModule):
        return False  # nobody can tell what it computes
    weight = module._parameters.get("weight")
    return not module._modules and rank(weight) >= 3 and weight.numel() > max(weight.shape)  # type: ignore[union-attr]


def is_sequential(module: nn.Module) -> bool:
    """Whether a module runs its children one after the other, as ``nn.Sequential`` does.

    >>> is_sequential(nn.Sequential()), is_sequential(nn.ReLU())
    (True, False)
    """
    return getattr(type(module), "forward", None) is nn.Sequential.forward  # a scripted module's class has none


def rank(tensor: torch.Tensor | None) -> int:
    """The number of dimensions of a tensor, 0 where it is none or lazy.

    >>> rank(torch.ones(2, 3)), rank(None)
    (2, 0)
    """
    return 0 if tensor is None or is_lazy(tensor) else tensor.ndim


def is_upsampling_layer(module: nn.Module) -> bool:
    """Whether a layer enlarges a feature map; not a block that reduces it, too."""
    if is_sequential(module):
        return any(map(is_upsampling_layer, module.children()))
    if module._modules:
        below = [m for m in module.modules() if not m._modules]
        return any(map(is_upsampling_layer, below)) and not any(map(reduces, below))
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return max(module.stride) > 1
    kinds = (nn.Upsample, nn.PixelShuffle, nn.modules.pooling._MaxUnpoolNd)
    # Some libraries wrap interpolate() in a class of their own.
    return isinstance(module, kinds) or "Interpolation" in type(module).__name__


def reduces(layer: nn.Module) -> bool:
    """Whether a layer makes a feature map smaller."""
    return any(isinstance(step, int) and step > 1 for step in flatten(getattr(layer, "stride", 1))) and not isinstance(
        layer, nn.modules.conv._ConvTransposeNd | nn.modules.pooling._MaxUnpoolNd
    )


GLOBAL_POOLS = tuple(getattr(nn, f"Adaptive{kind}Pool{rank}d") for kind in ("Avg", "Max") for rank in (1, 2, 3))


def flatten(value: Any) -> Iterator[Any]:
    """The items of lists and tuples at any depth.

    >>> list(flatten((1, [2, (3,)])))
    [1, 2, 3]
    """
    if isinstance(value, list | tuple):
        for item in value:
            yield from flatten(item)
    else:
        yield value


def is_one(size: Any) -> bool:
    """Whether all extents of a size are 1.

    >>> is_one((1, 1)), is_one(7)
    (True, False)
    """
    return all(extent == 1 for extent in flatten(size))
