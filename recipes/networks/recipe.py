"""A recipe: how one network of the paper is made from its plain base."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

import se_inject

from ..data.transforms import IMAGENET_MEAN, IMAGENET_STD
from ..errors import SettingsError
from .paper import Published

Kinds = tuple[Literal["residual", "inception", "plain"], ...]
PAPERS_KINDS: Kinds = ("residual", "inception")


@dataclass(frozen=True)
class Recipe:
    """One network: ``build`` makes it, with gates or plain, from one definition.

    ``size`` is the side of the paper's input images in pixels, ``classes`` their number of classes; ``twin`` is the
    timm model that has the same outputs with the same weights, if there is one. ``mean`` and ``std`` normalize inputs.
    ``kinds`` are those of the sites that get gates; there are none in a network without sites.

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
    kinds: Kinds = PAPERS_KINDS

    def build(self, *, se: bool = True, num_classes: int | None = None, reduction: int = 16) -> nn.Module:
        """The network, randomly initialized: images ``(N, 3, H, W)`` to logits ``(N, num_classes)``.

        Gates have the standard form, the paper's sigmoid (section 3.2). ``se=False`` is the plain base.

        Raises ``SettingsError`` for gates where the network has no sites, and
        ``se_inject.errors.InvalidArgumentError`` or ``ArgumentTypeError`` for a bad ``reduction``.

        >>> import recipes, torch
        >>> network = recipes.get("se_resnet20").build(num_classes=10, reduction=4)
        >>> len(list(se_inject.gates(network))), network(torch.zeros(1, 3, 32, 32)).shape
        (9, torch.Size([1, 10]))
        """
        network = self.base(self.classes if num_classes is None else num_classes)
        return self.add_gates(network, reduction) if se else network

    def add_gates(
        self,
        network: nn.Module,
        reduction: int = 16,
        init: Literal["identity", "standard"] = "standard",
        kinds: Sequence[str] = (),
        **options: Any,
    ) -> nn.Module:
        """Put gates into ``network``, this recipe's plain base, in place, and return it. Raises as ``build`` does.

        ``kinds`` are other ones than this recipe's, ``options`` others of ``se_inject.apply``.

        >>> import recipes
        >>> recipes.get("densenet161").add_gates(nn.Identity())
        Traceback (most recent call last):
        ...
        recipes.errors.SettingsError: densenet161 has no sites for gates: its concatenations ...; build it plain
        """
        wanted: Any = kinds or self.kinds
        if not wanted:
            raise SettingsError(
                f"{self.name} has no sites for gates: its concatenations contain their own input; build it plain"
            )
        return se_inject.apply(network, reduction, init=init, kinds=wanted, **options)
