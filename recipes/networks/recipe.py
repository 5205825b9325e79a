"""A recipe: how one network of the paper is made from its plain base."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

import se_inject

from ..data.transforms import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True)
class Published:
    """What the paper prints of a network and its plain base: ``(plain, SE)``, errors in per cent.

    Single centre crop on ImageNet-1k (Table 2 of the journal version; SENet-154: Table 9), or CIFAR-10 (Table 4).
    ``gflops`` are 1e9 multiply-adds.
    """

    top1: tuple[float | None, float]
    top5: tuple[float | None, float] | None = None
    gflops: tuple[float, float] | None = None


@dataclass(frozen=True)
class Recipe:
    """One network: ``build`` makes it, with gates or plain, from one definition.

    ``size`` is the side of the paper's input images in pixels, ``classes`` their number of classes; ``twin`` is the
    timm model that has the same outputs with the same weights, if there is one. ``mean`` and ``std`` normalize inputs.

    >>> recipe = Recipe("se_linear_bottleneck", lambda classes: nn.Linear(3, classes), size=32)
    >>> recipe.build(se=False, num_classes=2)
    Linear(in_features=3, out_features=2, bias=True)
    """

    name: str
    base: Callable[[int], nn.Module]
    size: int = 224
    classes: int = 1000
    twin: str | None = None
    paper: Published | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def build(self, *, se: bool = True, num_classes: int | None = None, reduction: int = 16) -> nn.Module:
        """The network, randomly initialized: images ``(N, 3, H, W)`` to logits ``(N, num_classes)``.

        Gates have the standard form, the paper's sigmoid (section 3.2). ``se=False`` is the plain base.

        Raises ``se_inject.errors.InvalidArgumentError`` or ``ArgumentTypeError`` for a bad ``reduction``.

        >>> import recipes, torch
        >>> network = recipes.get("se_resnet20").build(num_classes=10, reduction=4)
        >>> len(list(se_inject.gates(network))), network(torch.zeros(1, 3, 32, 32)).shape
        (9, torch.Size([1, 10]))
        """
        network = self.base(self.classes if num_classes is None else num_classes)
        return se_inject.apply(network, reduction, init="standard") if se else network
