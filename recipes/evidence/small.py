"""Networks for images of 28 to 32 pixels, of any width, that two cores can train.

``width`` multiplies the channels of every layer, each rounded by itself, so that small steps of it give a network with
any number of parameters, nearly.
"""

from collections import OrderedDict

from torch import nn

from ..networks.bn_inception import InceptionModule, conv_bn
from ..networks.resnet import small_resnet, with_classifier


def resnet(depth: int, classes: int, width: float = 1) -> nn.Sequential:
    """The ResNet of ``6n + 2`` layers of the recipes: ``(N, 3, H, W)`` to ``(N, classes)``.

    >>> sum(p.numel() for p in resnet(20, 10).parameters()), sum(p.numel() for p in resnet(20, 10, 1.01).parameters())
    (269722, 275837)
    """
    first, second, third = (round(width * channels) for channels in (16, 32, 64))
    return small_resnet(depth, classes, (first, second, third))


def inception(classes: int, width: float = 1) -> nn.Sequential:
    """Four modules of BN-Inception: ``(N, 3, H, W)`` to ``(N, classes)``.

    The stem and the second module halve the resolution.

    >>> sum(p.numel() for p in inception(10).parameters())
    95338
    """

    def w(channels: int) -> int:
        return round(width * channels)

    channels = w(32)
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=conv_bn(3, channels, 3, stride=2))
    for name, single, triple, double, projection in (
        ("inception_3a", 16, (16, 24), (12, 16), 8),
        ("inception_3b", 0, (24, 32), (12, 16), 0),
        ("inception_4a", 32, (24, 48), (16, 32), 16),
        ("inception_4b", 32, (24, 48), (16, 32), 16),
    ):
        module = InceptionModule(
            channels, w(single), (w(triple[0]), w(triple[1])), (w(double[0]), w(double[1])), w(projection)
        )
        layers[name], channels = module, module.out_channels
    return with_classifier(layers, channels, classes)
