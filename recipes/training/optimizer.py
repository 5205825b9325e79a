"""The optimizer's parameter groups."""

from typing import Any

from torch import nn

import se_inject

from .settings import Settings


def parameter_groups(network: nn.Module, settings: Settings) -> list[dict[str, Any]]:
    """The trainable parameters for SGD: the backbone's, the gates' weights and, without weight decay, their biases.

    >>> groups = parameter_groups(se_inject.SqueezeExcitation(16), Settings(lr=0.1, gate_lr=0.3))
    >>> [(len(group["params"]), group["lr"], group["weight_decay"]) for group in groups]
    [(2, 0.3, 0.0001), (2, 0.3, 0.0)]
    """
    of_gates = {
        id(parameter): name.endswith("bias")
        for _, gate in se_inject.gates(network)
        for name, parameter in gate.named_parameters()
    }
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gate_lr = settings.lr if settings.gate_lr is None else settings.gate_lr
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if of_gates.get(id(p)) is is_bias], "lr": lr, "weight_decay": decay}
        for is_bias, lr, decay in (
            (None, settings.lr, settings.weight_decay),
            (False, gate_lr, settings.weight_decay),
            (True, gate_lr, 0.0),
        )
    ]
    return [group for group in groups if group["params"]]
