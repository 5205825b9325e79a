"""Which network: one that a name means, plain or with gates, and with how many outputs."""

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

import se_inject

from ..data.transforms import Preprocess, check_memory
from ..errors import SettingsError
from .base import build_base, is_recipe, own_preprocess
from .heads import find_head, replace_head
from .recipe import PAPERS_KINDS
from .registry import get


@dataclass(frozen=True)
class Model:
    """A network's description, enough to build it again.

    ``name`` is one that ``build_base`` knows; ``gates`` the form of the gates that are added, if any. ``reduction``,
    ``gate``, ``kinds`` and ``position`` are those of ``se_inject.apply``; no kinds are those of the paper. ``head``
    names the layers that make the logits, in a network that is not told the number of classes when it is made.
    """

    name: str
    gates: Literal["none", "identity", "standard"]
    num_classes: int
    reduction: int = 16
    gate: str = "se"
    kinds: tuple[str, ...] = ()
    position: str = "standard"
    head: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("kinds", "head"):  # lists, where they come from JSON
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def build(self) -> nn.Module:
        """The network, randomly initialized: images ``(N, 3, H, W)`` to logits ``(N, num_classes)``.

        Raises ``UnknownNameError``, ``SettingsError`` and the errors of ``se_inject.apply``.

        >>> sum(1 for _ in se_inject.gates(Model("se_resnet20", "standard", 10).build()))
        9
        """
        network = build_base(self.name, None if self.head else self.num_classes)
        if self.head:
            replace_head(network, self.head, self.num_classes)
        return self.add_gates(network)

    def add_gates(self, network: nn.Module) -> nn.Module:
        """``network``, the plain one of this name, with this description's gates, in place.

        Raises the errors of ``se_inject.apply``.

        >>> model = Model("timm/resnet18", "standard", 10)
        >>> sum(1 for _ in se_inject.gates(model.add_gates(build_base(model.name, 10))))
        8
        """
        if self.gates == "none":
            return network
        options: dict[str, Any] = {"gate": self.gate, "position": self.position}
        if is_recipe(self.name):
            return get(self.name).add_gates(network, self.reduction, self.gates, self.kinds, **options)
        kinds: Any = self.kinds or PAPERS_KINDS
        return se_inject.apply(network, self.reduction, init=self.gates, kinds=kinds, **options)

    def head_layers(self) -> tuple[str, ...]:
        """The names of the layers that make the logits.

        Raises ``SettingsError`` if they are not found.

        >>> Model("timm/resnet18", "none", 10).head_layers()
        ('fc',)
        """
        return self.head or find_head(self.name)

    def preprocess(self, native: int | None, size: int | None = None) -> Preprocess:
        """How its inputs are made, of images that are ``native`` pixels a side, or of any size; ``size`` overrides.

        >>> Model("se_resnet50", "none", 1000).preprocess(native=None)
        Preprocess(size=224, resize=256, interpolation='bilinear', mean=(0.485, ...), std=(0.229, ...))
        """
        own, wanted = own_preprocess(self.name), size or native
        return own.at(wanted, native is not None) if wanted and (native or wanted != own.size) else own


def check_input(network: nn.Module, model: Model, size: int, batch: int = 2, training: bool = True) -> None:
    """Raise ``SettingsError`` unless ``network`` makes logits of ``batch`` images of ``size`` pixels.

    Also if such a batch does not fit into this machine's memory.

    >>> model = Model("se_bn_inception", "none", 10)
    >>> check_input(model.build(), model, 8)
    Traceback (most recent call last):
    ...
    recipes.errors.SettingsError: se_bn_inception cannot train on 2 images of 8 pixels at once ...
    """
    check_memory(batch, size)
    task, remedy = (f"train on {batch} images", "--size or --device-batch") if training else ("take images", "--size")
    failures = (RuntimeError, ValueError, TypeError, AssertionError)
    own = next((value.device for value in network.state_dict().values()), torch.device("cpu"))
    try:
        try:
            logits = _logits(network, batch, size, training, torch.device("meta"))
        except failures:  # also where a forward looks at values, or makes tensors on a device that it names
            logits = _logits(network, batch, size, training, own)
    except failures as error:
        text = str(error).splitlines()[0]
        at_once = " at once" if training else ""
        raise SettingsError(
            f"{model.name} cannot {task} of {size} pixels{at_once} ({text}); try another {remedy}"
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (batch, model.num_classes):
        what = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        mode = "training" if training else "evaluation"
        raise SettingsError(f"{model.name} must return logits (N, {model.num_classes}) in {mode}, but returns {what}")


def _logits(network: nn.Module, batch: int, size: int, training: bool, device: torch.device) -> Any:
    probe = copy.deepcopy(network).to(device).train(training)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return probe(torch.zeros(batch, 3, size, size, device=device))
