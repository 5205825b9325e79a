"""Normalization layers whose running statistics are held: they stay in eval mode, whatever the model is told."""

import functools
import types
from typing import Any

from torch import nn

from ..source.subclass import QuietSubclass, reduce_to


class HeldNorm(QuietSubclass):
    """What a held normalization layer's generated class adds to the layer's own class."""

    def train(self, mode: bool = True) -> Any:
        """Stay in eval mode; children, such as the dropout of a fused layer, follow."""
        super().train(mode)  # type: ignore[misc]
        self.training = False
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        original = type(self).__bases__[1]
        return reduce_to(original, super().__reduce_ex__(max(int(protocol), 2)), _restore, original)


@functools.cache
def held_class(original: Any) -> type[nn.Module]:
    """The subclass of a layer's class that stays in eval mode.

    >>> held_class(nn.BatchNorm2d)
    <class 'torch.nn.modules.batchnorm.HeldBatchNorm2d'>
    """
    body = {"__module__": original.__module__, "__doc__": original.__doc__}
    return types.new_class(f"Held{original.__name__}", (HeldNorm, original), {}, lambda ns: ns.update(body))


def release(module: nn.Module) -> None:
    """Give a held layer its own class again; other modules stay as they are."""
    original = type(module).__bases__[-1]
    if isinstance(module, HeldNorm) and type(module) is held_class(original):
        module.__class__ = original


def _restore(original: type[nn.Module], *arguments: Any, **keywords: Any) -> nn.Module:
    cls = held_class(original)  # type: ignore[arg-type]
    return cls.__new__(cls, *arguments, **keywords)
