"""Networks without memory for their weights, to learn their layers' names and shapes."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn

from ..errors import SettingsError


def skeleton(build: Callable[..., nn.Module], *arguments: Any) -> nn.Module:
    """The network that ``build`` makes of ``arguments``, of any size, as its parameters are on the meta device.

    Raises what ``build`` raises.

    >>> skeleton(nn.Linear, 8, 1_000_000_000).weight.shape
    torch.Size([1000000000, 8])
    """
    with suppress(NotImplementedError, SettingsError), torch.device("meta"):
        return build(*arguments)
    with init_empty_weights():  # for torchvision's RegNets, which compute with tensors while they are built
        return build(*arguments)
