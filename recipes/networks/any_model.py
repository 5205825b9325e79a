"""Which network: a recipe, or a model of timm, torchvision or pytorchcv, plain or with gates."""

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

import se_inject

from ..data.transforms import Preprocess, shorter_edge
from ..errors import SettingsError
from . import libraries
from .registry import get


@dataclass(frozen=True)
class Model:
    """A network's description, enough to build it again.

    ``name`` is a recipe's, or ``timm/NAME``, ``torchvision/NAME`` or ``pytorchcv/NAME``; ``gates`` the form of the
    gates that are added, if any.
    """

    name: str
    gates: Literal["none", "identity", "standard"]
    num_classes: int
    reduction: int = 16

    def build(self) -> nn.Module:
        """The network, randomly initialized: images ``(N, 3, H, W)`` to logits ``(N, num_classes)``.

        Raises ``UnknownNameError``.

        >>> sum(1 for _ in se_inject.gates(Model("se_resnet20", "standard", 10).build()))
        9
        """
        return self.add_gates(_base(self.name, self.num_classes))

    def add_gates(self, network: nn.Module) -> nn.Module:
        """``network``, the plain one of this name, with this description's gates, in place.

        >>> model = Model("timm/resnet18", "standard", 10)
        >>> sum(1 for _ in se_inject.gates(model.add_gates(libraries.build(model.name, 10))))
        8
        """
        if self.gates == "none":
            return network
        if "/" not in self.name:
            return get(self.name).add_gates(network, self.reduction, self.gates)
        return se_inject.apply(network, self.reduction, init=self.gates)

    def preprocess(self, native: int | None, size: int | None = None) -> Preprocess:
        """How its inputs are made, of images that are ``native`` pixels a side, or of any size; ``size`` overrides.

        >>> Model("se_resnet50", "none", 1000).preprocess(native=None)
        Preprocess(size=224, resize=256, interpolation='bilinear', mean=(0.485, ...), std=(0.229, ...))
        """
        own, wanted = _own_preprocess(self.name), size or native
        return own.at(wanted, native is not None) if wanted and (native or wanted != own.size) else own


def _base(name: str, num_classes: int) -> nn.Module:
    if "/" in name:
        return libraries.build(name, num_classes)
    return get(name).build(se=False, num_classes=num_classes)


def _own_preprocess(name: str) -> Preprocess:
    if "/" in name:
        return libraries.inputs(name)
    recipe = get(name)
    return Preprocess(recipe.size, shorter_edge(recipe.size), mean=recipe.mean, std=recipe.std)


def check_input(network: nn.Module, model: Model, size: int, batch: int = 2, training: bool = True) -> None:
    """Raise ``SettingsError`` unless ``network`` makes logits of ``batch`` images of ``size`` pixels.

    >>> model = Model("se_bn_inception", "none", 10)
    >>> check_input(model.build(), model, 8)
    Traceback (most recent call last):
    ...
    recipes.errors.SettingsError: se_bn_inception cannot train on 2 images of 8 pixels at once ...
    """
    probe = copy.deepcopy(network).to("meta").train(training)
    task, remedy = (f"train on {batch} images", "--size or --device-batch") if training else ("take images", "--size")
    try:
        with torch.no_grad():
            logits = probe(torch.empty(batch, 3, size, size, device="meta"))
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        text = str(error).splitlines()[0]
        at_once = " at once" if training else ""
        raise SettingsError(
            f"{model.name} cannot {task} of {size} pixels{at_once} ({text}); try another {remedy}"
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (batch, model.num_classes):
        what = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        mode = "training" if training else "evaluation"
        raise SettingsError(f"{model.name} must return logits (N, {model.num_classes}) in {mode}, but returns {what}")
