"""The arms of the experiments: which gates a network gets and where, and what of it is trained."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

import se_inject

from ..errors import SettingsError
from ..training.partial import Trained
from .contextual import ContextualGate
from .networks import gate_depthwise

Place = Literal["skip", "all", "early", "late", "depthwise"]


@dataclass(frozen=True)
class Arm:
    """One way of training; ``title`` is its name in tables.

    ``place`` says where gates go, if there are any, ``options`` are those of ``se_inject.apply``. Gates learn at
    ``gate_rate`` times the learning rate; rates rise for the share ``warmup`` of the training. ``rank`` is that of
    LoRA's matrices beside the 1x1 convolutions; with ``fixed_statistics``, those of norms that are trained stay as they
    were pretrained, and the network is in evaluation mode. ``wider`` asks for a plain network with about as many
    parameters as the gated one. ``against`` are the arms that it is compared with, where that is not an experiment's
    control: the same without gates, and others of its size. Records are found by an arm's name: one that is trained in
    another way needs another name.
    """

    title: str
    trained: Trained = "all"
    place: Place | None = None
    options: dict[str, Any] = field(default_factory=dict)
    gate_rate: float = 1.0
    warmup: float = 0.1
    rank: int = 0
    fixed_statistics: bool = False
    wider: bool = False
    against: tuple[str, ...] = ()

    @property
    def gates(self) -> bool:
        """Whether the network gets gates."""
        return self.place is not None

    def add(self, network: nn.Module) -> nn.Module:
        """The plain ``network`` with what this arm puts into it, in place.

        Raises the errors of ``se_inject.apply``, and ``SettingsError`` for a package that is missing.

        >>> import torchvision
        >>> count = lambda name: sum(1 for _ in se_inject.gates(ARMS[name].add(torchvision.models.mobilenet_v2())))
        >>> count("skip"), count("all"), count("late"), count("depthwise")
        (10, 17, 9, 17)
        """
        if self.place == "depthwise":
            return gate_depthwise(network, **self.options)
        if self.place is not None:
            return se_inject.apply(network, **{**_sites(network, self.place), **self.options})
        return _with_lora(network, self.rank) if self.rank else network


class MaxGate(nn.Module):
    """A gate whose squeeze is the largest value of a channel: ``(N, C, H, W)`` to the same shape.

    >>> MaxGate(8, 8)(torch.ones(2, 8, 3, 3)).shape
    torch.Size([2, 8, 3, 3])
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, width, 1), nn.Conv2d(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The gated feature."""
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(x.amax((2, 3), keepdim=True)))))


def _sites(network: nn.Module, place: Place) -> dict[str, Any]:
    """The keywords of ``se_inject.apply`` for a place."""
    if place == "skip":
        return {}  # the default
    kinds: dict[str, Any] = {"kinds": ("residual", "noskip")}
    if place == "all":
        return kinds
    sites = se_inject.find_sites(network, **kinds)
    half = len(sites) // 2
    return kinds | {"where": sites[:half] if place == "early" else sites[half:]}


def _with_lora(network: nn.Module, rank: int) -> nn.Module:
    """LoRA beside each 1x1 convolution (Hu et al., "LoRA", 2021), by peft."""
    try:
        import peft
    except ImportError as error:
        raise SettingsError("peft is not installed; pip install 'se-inject[evidence]'") from error
    names = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
    ]
    adapters = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=names)
    adapted: nn.Module = peft.inject_adapter_in_model(adapters, network)
    return adapted


ARMS: dict[str, Arm] = {
    "plain": Arm("everything, without gates"),
    "skip": Arm("everything, gates on skip blocks", place="skip"),
    "all": Arm("everything, gates on all blocks", place="all"),
    "depthwise": Arm("everything, gates after depthwise", place="depthwise", options={"reduction": 64}),
    "all, rate x0.3": Arm("everything, gates on all blocks, at 0.3 of the rate", place="all", gate_rate=0.3),
    "all, rate x10": Arm("everything, gates on all blocks, at 10 times the rate", place="all", gate_rate=10.0),
    "all, warm-up 0.5": Arm(
        "everything, gates on all blocks, rates rise for half of the time", place="all", warmup=0.5
    ),
    "head": Arm("new head alone", "head"),
    "norm": Arm("norms", "norm"),
    "norm, fixed statistics": Arm("norms, statistics fixed", "norm", fixed_statistics=True),
    "frozen gates, skip": Arm("gates on skip blocks", "gates", "skip", against=("head",)),
    "frozen gates": Arm("gates on all blocks", "gates", "all", against=("head", "norm", "norm, fixed statistics")),
    "frozen gates, depthwise": Arm("gates after depthwise", "gates", "depthwise", {"reduction": 64}, against=("head",)),
    "contextual": Arm(
        "contextual gates on all blocks",
        "gates",
        "all",
        {"gate": ContextualGate, "init": "standard"},  # as it is, which is the identity
        against=("frozen gates",),
    ),
    "gates+norm": Arm("gates on all blocks and norms", "gates+norm", "all", against=("norm",)),
    "lora": Arm("LoRA of 1x1 convolutions, rank 4", "head", rank=4),
    "r4": Arm("reduction 4", place="all", options={"reduction": 4}),
    "r64": Arm("reduction 64", place="all", options={"reduction": 64}),
    "early": Arm("gates on the first half of the blocks", place="early"),
    "late": Arm("gates on the second half of the blocks", place="late"),
    "standard": Arm("the paper's form, sigmoid", place="all", options={"init": "standard"}),
    "pre": Arm("before the branch", place="skip", options={"position": "pre"}, against=("skip",)),
    "max": Arm("squeeze by the maximum", place="all", options={"gate": MaxGate}),
    "eca": Arm("ECA", place="all", options={"gate": "eca"}),
    "scratch": Arm("plain"),
    "scratch, wider": Arm("plain, as many parameters", wider=True),
    "scratch, SE": Arm("SE", place="skip", options={"init": "standard"}, against=("scratch", "scratch, wider")),
}
