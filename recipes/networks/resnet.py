"""The plain ResNets and ResNeXts: torchvision's, the authors' Caffe variant, and the small ones for small images."""

from collections import OrderedDict
from typing import Literal

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

DEPTHS = {50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}


def resnet(depth: Literal[50, 101, 152], num_classes: int = 1000, groups: int = 1, width: int = 64) -> ResNet:
    """torchvision's ResNet or, with ``groups=32, width=4``, ResNeXt: ``(N, 3, H, W)`` to ``(N, num_classes)``.

    >>> with torch.device("meta"):
    ...     sum(p.numel() for p in resnet(50).parameters())
    25557032
    """
    return ResNet(Bottleneck, DEPTHS[depth], num_classes, groups=groups, width_per_group=width)


def caffe(network: ResNet) -> ResNet:
    """Make ``network`` the authors' variant, in place, and return it; weights keep their shapes.

    Their ResNets have stride 2 in a block's first 1x1 convolution instead of its 3x3 one, their ResNeXts do not; both
    pool after the first layer without padding, rounding up. From the published definitions at
    https://github.com/hujie-frank/SENet; timm's ``legacy_seresnet*`` and ``legacy_seresnext*`` do the same.

    >>> caffe(resnet(50)).layer2[0].conv1.stride
    (2, 2)
    """
    network.maxpool = nn.MaxPool2d(3, 2, ceil_mode=True)
    for block in network.modules():
        if isinstance(block, Bottleneck) and block.conv2.groups == 1:
            block.conv1.stride, block.conv2.stride = block.conv2.stride, (1, 1)
    return network


class _Shortcut(nn.Module):
    """Every second pixel, with channels of zeros added: the shortcut without parameters."""

    def __init__(self, added: int) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.added))


def small_resnet(depth: int, num_classes: int = 10, widths: tuple[int, int, int] = (16, 32, 64)) -> nn.Sequential:
    """The ResNet of ``6n + 2`` layers for small images: ``(N, 3, H, W)``, 32 pixels, to ``(N, num_classes)``.

    He et al., "Deep Residual Learning for Image Recognition", section 4.2, with its shortcuts without parameters. The
    SE paper's CIFAR experiments (section 5.1) start from it. ``widths`` are the channels of the three stages.

    >>> sum(p.numel() for p in small_resnet(20).parameters())
    269722
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), bn1=nn.BatchNorm2d(widths[0]), relu=nn.ReLU(inplace=True)
    )
    channels = widths[0]
    for i, width in enumerate(widths, 1):
        first = BasicBlock(width, width) if i == 1 else BasicBlock(channels, width, 2, _Shortcut(width - channels))
        rest = [BasicBlock(width, width) for _ in range((depth - 2) // 6 - 1)]
        layers[f"layer{i}"], channels = nn.Sequential(first, *rest), width
    return with_classifier(layers, channels, num_classes)


def with_classifier(layers: OrderedDict[str, nn.Module], channels: int, num_classes: int) -> nn.Sequential:
    """``layers``, which make ``channels``, and the layers that make logits of these; convolutions by He et al., 2015.

    >>> layers: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Conv2d(3, 8, 3))
    >>> with_classifier(layers, 8, 5)(torch.zeros(2, 3, 9, 9)).shape
    torch.Size([2, 5])
    """
    layers.update(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(channels, num_classes))
    network = nn.Sequential(layers)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
