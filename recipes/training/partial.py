"""Training a part of a network: which parameters learn, while the rest runs as it would in evaluation."""

from collections.abc import Sequence
from typing import Literal

from torch import nn

import se_inject

from ..errors import SettingsError

Trained = Literal["gates", "gates+norm", "norm", "head", "all"]
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def trained_modules(network: nn.Module, trained: Trained, head: Sequence[str] = ()) -> list[nn.Module]:
    """The modules that learn: the kinds that ``trained`` names and, with each, those that ``head`` names.

    Raises ``SettingsError`` if the network has none of a kind, or no module of such a name.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))
    >>> trained_modules(network, "norm", head=["3"])
    [Linear(in_features=8, out_features=2, bias=True), BatchNorm2d(8, ...)]
    """
    named = dict(network.named_modules())
    unknown = [name for name in head if name not in named]
    if unknown:
        raise SettingsError(
            f"the network has no module {unknown[0]!r} to be its head; its last one is {[*named][-1]!r}"
        )
    if trained == "all":
        return [network]
    kinds = {
        "head": [named[name] for name in head],
        "gates": [gate for _, gate in se_inject.gates(network)],
        "norm": [module for module in network.modules() if isinstance(module, _NORMS)],
    }
    for kind in trained.split("+"):
        if not any(True for module in kinds[kind] for _ in module.parameters()):
            what = {"head": "no head is named", "gates": "the network has no gates", "norm": "no norm has parameters"}
            raise SettingsError(f"there is nothing to train: {what[kind]}; choose another --train than {trained}")
    return kinds["head"] + [module for kind in trained.split("+") if kind != "head" for module in kinds[kind]]


def freeze_rest(network: nn.Module, trained: Trained, head: Sequence[str] = ()) -> None:
    """Let gradients reach what is trained alone; ``"all"`` changes nothing.

    Raises ``SettingsError`` as ``trained_modules`` does.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))
    >>> freeze_rest(network, "norm")
    >>> [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    ['1.weight', '1.bias']
    """
    modules = trained_modules(network, trained, head)
    if trained != "all":
        network.requires_grad_(False)
        for module in modules:
            module.requires_grad_()


def training_mode(network: nn.Module, trained: Trained, head: Sequence[str] = ()) -> None:
    """Put what is trained into training mode and the rest into evaluation mode.

    So the statistics of frozen norms stay as they are, and frozen layers drop nothing.

    >>> network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Linear(3, 2)))
    >>> training_mode(network, "head", head=["2"])
    >>> network[0].training, network[1].training, network[2][0].training
    (False, False, True)
    """
    network.eval()
    for module in trained_modules(network, trained, head):
        module.train()


def what_changes(network: nn.Module) -> tuple[int, int]:
    """The number of parameters that learn, and the bytes of these and of statistics that move, in training mode.

    >>> what_changes(nn.Sequential(nn.Conv2d(3, 8, 1).requires_grad_(False), nn.BatchNorm2d(8)))
    (16, 136)
    """
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    moving = [buffer for module in network.modules() if module.training for buffer in module.buffers(recurse=False)]
    return sum(p.numel() for p in learning), sum(tensor.nbytes for tensor in (*learning, *moving))
