"""Networks for images of 28 to 32 pixels, of any width, that two cores can train.

``width`` multiplies the channels of every layer, each rounded by itself, so that small steps of it give a network with
any number of parameters, nearly.
"""

from collections import OrderedDict

from torch import nn
from torchvision.models.resnet import Bottleneck

from ..networks.bn_inception import InceptionModule, conv_bn
from ..networks.resnet import small_resnet, with_classifier


def resnet(depth: int, classes: int, width: float = 1) -> nn.Sequential:
    """The ResNet of ``6n + 2`` layers of the recipes: ``(N, 3, H, W)`` to ``(N, classes)``.

    >>> sum(p.numel() for p in resnet(20, 10).parameters()), sum(p.numel() for p in resnet(20, 10, 1.01).parameters())
    (269722, 275837)
    """
    first, second, third = (round(width * channels) for channels in (16, 32, 64))
    return small_resnet(depth, classes, (first, second, third))


def resnext(classes: int, width: float = 1) -> nn.Sequential:
    """A ResNeXt of 20 layers with eight groups: ``(N, 3, H, W)`` to ``(N, classes)``.

    The blocks are torchvision's. After Xie et al., "Aggregated Residual Transformations for Deep Neural Networks",
    2017, whose networks for small images have 29 layers in three stages, too.

    >>> sum(p.numel() for p in resnext(10).parameters())
    249898
    """
    channels = round(width * 32)
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=conv_bn(3, channels, 3))
    for i in range(3):
        planes = round(width * 16 * 2**i)
        blocks: list[nn.Module] = []
        for stride in (1 if i == 0 else 2, 1):
            shortcut = None
            if channels != 4 * planes:
                shortcut = nn.Sequential(
                    nn.Conv2d(channels, 4 * planes, 1, stride, bias=False), nn.BatchNorm2d(4 * planes)
                )
            blocks.append(Bottleneck(channels, planes, stride, shortcut, groups=8, base_width=16))
            channels = 4 * planes
        layers[f"layer{i + 1}"] = nn.Sequential(*blocks)
    return with_classifier(layers, channels, classes)


def inception(classes: int, width: float = 1) -> nn.Sequential:
    """Seven modules of BN-Inception, two of which halve the resolution: ``(N, 3, H, W)`` to ``(N, classes)``.

    >>> sum(p.numel() for p in inception(10).parameters())
    418330
    """

    def w(channels: int) -> int:
        return round(width * channels)

    channels = w(32)
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=conv_bn(3, channels, 3))
    for name, single, triple, double, projection in (
        ("inception_3a", 16, (16, 24), (12, 16), 8),
        ("inception_3b", 0, (24, 32), (12, 16), 0),
        ("inception_4a", 32, (24, 48), (16, 32), 16),
        ("inception_4b", 32, (24, 48), (16, 32), 16),
        ("inception_4c", 0, (32, 64), (24, 32), 0),
        ("inception_5a", 64, (48, 96), (32, 64), 32),
        ("inception_5b", 64, (48, 96), (32, 64), 32),
    ):
        module = InceptionModule(
            channels, w(single), (w(triple[0]), w(triple[1])), (w(double[0]), w(double[1])), w(projection)
        )
        layers[name], channels = module, module.out_channels
    return with_classifier(layers, channels, classes)
