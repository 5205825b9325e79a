"""The optimizer and its parameter groups."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

import se_inject

from .settings import Settings


def make_optimizer(network: nn.Module, settings: Settings, head: Sequence[str] = ()) -> torch.optim.Optimizer:
    """The optimizer of the parameters that are trained, as ``settings`` say; ``head`` names the modules of a new head.

    >>> make_optimizer(nn.Linear(2, 2), Settings(optimizer="adamw")).param_groups[0]["lr"]
    0.6
    """
    groups = parameter_groups(network, settings, head)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups)
    return torch.optim.SGD(groups, momentum=settings.momentum)


def parameter_groups(network: nn.Module, settings: Settings, head: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The trained parameters: the backbone's, the head's, the gates' weights and, without weight decay, their biases.

    >>> network = nn.Sequential(nn.Linear(4, 16), se_inject.SqueezeExcitation(16), nn.Linear(16, 2))
    >>> groups = parameter_groups(network, Settings(lr=0.1, gate_lr=0.3, head_lr=0.5), head=["2"])
    >>> [(len(group["params"]), group["lr"], group["weight_decay"]) for group in groups]
    [(2, 0.1, 0.0001), (2, 0.5, 0.0001), (2, 0.3, 0.0001), (2, 0.3, 0.0)]
    """
    part = {parameter: "head" for name in head for parameter in network.get_submodule(name).parameters()}
    for _, gate in se_inject.gates(network):
        for name, parameter in gate.named_parameters():
            part[parameter] = "gate biases" if name.endswith("bias") else "gates"
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gate_lr = settings.lr if settings.gate_lr is None else settings.gate_lr
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if part.get(p, "backbone") == name], "lr": lr, "weight_decay": decay}
        for name, lr, decay in (
            ("backbone", settings.lr, settings.weight_decay),
            ("head", settings.lr if settings.head_lr is None else settings.head_lr, settings.weight_decay),
            ("gates", gate_lr, settings.weight_decay),
            ("gate biases", gate_lr, 0.0),
        )
    ]
    return [group for group in groups if group["params"]]
