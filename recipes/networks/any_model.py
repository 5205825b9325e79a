"""Which network: a recipe, or a model of timm or torchvision, plain or with gates."""

import copy
from dataclasses import dataclass
from typing import Literal

import timm
import torch
import torchvision
from torch import nn

import se_inject

from ..data.transforms import Preprocess, check_memory, shorter_edge
from ..errors import SettingsError, UnknownNameError
from .registry import get


@dataclass(frozen=True)
class Model:
    """A network's description, enough to build it again.

    ``name`` is a recipe's, or ``timm/NAME`` or ``torchvision/NAME``; ``gates`` the form of the gates, if it has any.
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
        network = _base(self.name, self.num_classes)
        return network if self.gates == "none" else se_inject.apply(network, self.reduction, init=self.gates)

    def preprocess(self, native: int | None, size: int | None = None) -> Preprocess:
        """How its inputs are made, of images that are ``native`` pixels a side, or of any size; ``size`` overrides.

        >>> Model("se_resnet50", "none", 1000).preprocess(native=None)
        Preprocess(size=224, resize=256, interpolation='bilinear', mean=(0.485, ...), std=(0.229, ...))
        """
        own, wanted = _own_preprocess(self.name), size or native
        return own.at(wanted, native is not None) if wanted and (native or wanted != own.size) else own


def _base(name: str, num_classes: int) -> nn.Module:
    library, _, rest = name.partition("/")
    if not rest:
        return get(name).build(se=False, num_classes=num_classes)
    network: nn.Module
    if library == "timm" and timm.is_model(rest):
        network = timm.create_model(rest, num_classes=num_classes)
    elif library == "torchvision" and rest in torchvision.models.list_models(module=torchvision.models):
        network = torchvision.models.get_model(rest, num_classes=num_classes)
    else:
        raise UnknownNameError(
            f"{name}: no such model; give timm/NAME or torchvision/NAME of a classifier, or a name of "
            "recipes.list_networks()"
        )
    return network


def _own_preprocess(name: str) -> Preprocess:
    library, _, rest = name.partition("/")
    if library == "timm":
        c = timm.data.resolve_data_config(timm.get_pretrained_cfg(rest).to_dict())
        size = c["input_size"][-1]
        return Preprocess(size, int(size / c["crop_pct"]), c["interpolation"], tuple(c["mean"]), tuple(c["std"]))
    if library == "torchvision":
        size = 299 if rest == "inception_v3" else 224
        return Preprocess(size, shorter_edge(size))
    recipe = get(name)
    return Preprocess(recipe.size, shorter_edge(recipe.size), mean=recipe.mean, std=recipe.std)


def check_input(network: nn.Module, model: Model, size: int, batch: int = 2) -> None:
    """Raise ``SettingsError`` unless ``network`` makes logits of ``batch`` images of ``size`` pixels in training mode.

    Also if such a batch does not fit into this machine's memory.

    >>> model = Model("se_bn_inception", "none", 10)
    >>> check_input(model.build(), model, 8)
    Traceback (most recent call last):
    ...
    recipes.errors.SettingsError: se_bn_inception cannot train on 2 images of 8 pixels at once ...
    """
    check_memory(batch, size)
    probe = copy.deepcopy(network).to("meta").train()
    try:
        logits = probe(torch.empty(batch, 3, size, size, device="meta"))
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        text = str(error).splitlines()[0]
        raise SettingsError(
            f"{model.name} cannot train on {batch} images of {size} pixels at once ({text}); try another --size or "
            "--device-batch"
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (batch, model.num_classes):
        what = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise SettingsError(f"{model.name} must return logits (N, {model.num_classes}) in training, but returns {what}")
