"""The plain BN-Inception network, to which SE-BN-Inception adds its gates.

Ioffe, Szegedy, "Batch Normalization", 2015, figure 5; in the details (convolutions without bias, ceil-mode pooling, one
fully-connected layer, no auxiliary heads) as in the authors' published SE-BN-Inception,
https://github.com/hujie-frank/SENet.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn


def conv_bn(channels: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm and ReLU: ``(N, channels, H, W)`` to ``(N, out, H / stride, W / stride)``.

    >>> conv_bn(3, 8, 3, stride=2)(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 8, 16, 16])
    """
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False),
            bn=nn.BatchNorm2d(out),
            relu=nn.ReLU(inplace=True),
        )
    )


class InceptionModule(nn.Module):
    """Paths from one input, concatenated: 1x1, 3x3, double 3x3, and a pool with a projection.

    Without a 1x1 path the module halves the resolution: its last convolutions have stride 2, and the input's bare
    maximum passes through. ``(N, channels, H, W)`` to ``(N, out_channels, H', W')``.

    >>> InceptionModule(192, 64, (64, 64), (64, 96), 32)(torch.zeros(1, 192, 8, 8)).shape
    torch.Size([1, 256, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        single: int,
        triple: tuple[int, int],
        double: tuple[int, int],
        projection: int,
        pool: type[nn.Module] = nn.AvgPool2d,
    ) -> None:
        super().__init__()
        stride = 1 if single else 2
        paths: list[nn.Module] = [conv_bn(channels, single, 1)] if single else []
        paths.append(nn.Sequential(conv_bn(channels, triple[0], 1), conv_bn(*triple, 3, stride)))
        paths.append(
            nn.Sequential(
                conv_bn(channels, double[0], 1), conv_bn(*double, 3), conv_bn(double[1], double[1], 3, stride)
            )
        )
        if projection:
            paths.append(nn.Sequential(pool(3, stride=1, padding=1), conv_bn(channels, projection, 1)))
        else:
            paths.append(nn.MaxPool2d(3, stride, ceil_mode=True))
        self.paths = nn.ModuleList(paths)
        self.out_channels = single + triple[1] + double[1] + (projection or channels)

    def forward(self, x: Tensor) -> Tensor:
        """All paths of ``x``, concatenated over channels.

        >>> InceptionModule(8, 0, (4, 4), (4, 4), 0)(torch.zeros(1, 8, 6, 6)).shape  # 4 + 4 + the 8 of the input
        torch.Size([1, 16, 3, 3])
        """
        return torch.cat([path(x) for path in self.paths], 1)


# name: 1x1; 3x3 reduce and out; double 3x3 reduce and out; projection after the pool
MODULES: dict[str, tuple[int, tuple[int, int], tuple[int, int], int]] = {
    "inception_3a": (64, (64, 64), (64, 96), 32),
    "inception_3b": (64, (64, 96), (64, 96), 64),
    "inception_3c": (0, (128, 160), (64, 96), 0),
    "inception_4a": (224, (64, 96), (96, 128), 128),
    "inception_4b": (192, (96, 128), (96, 128), 128),
    "inception_4c": (160, (128, 160), (128, 160), 128),
    "inception_4d": (96, (128, 192), (160, 192), 128),
    "inception_4e": (0, (128, 192), (192, 256), 0),
    "inception_5a": (352, (192, 320), (160, 224), 128),
    "inception_5b": (352, (192, 320), (192, 224), 128),
}


class BNInception(nn.Sequential):
    """Plain BN-Inception: images ``(N, 3, H, W)`` to ``(N, num_classes)`` logits.

    H and W, 224 in the paper, must be multiples of 32: at others, ceil-mode pools and strided convolutions of the
    published network give features of different sizes.

    >>> sum(p.numel() for p in BNInception().parameters())
    11285224
    """

    def __init__(self, num_classes: int = 1000) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=conv_bn(3, 64, 7, stride=2),
            pool1=nn.MaxPool2d(3, 2, ceil_mode=True),
            conv2_reduce=conv_bn(64, 64, 1),
            conv2=conv_bn(64, 192, 3),
            pool2=nn.MaxPool2d(3, 2, ceil_mode=True),
        )
        channels = 192
        for name, widths in MODULES.items():
            pool = nn.MaxPool2d if name == "inception_5b" else nn.AvgPool2d
            inception = InceptionModule(channels, *widths, pool=pool)
            layers[name], channels = inception, inception.out_channels
        layers.update(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(channels, num_classes))
        super().__init__(layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
