"""The plain base of SENet-154: SE-ResNeXt-152 (64x4d) with the changes of the paper's challenge entry.

Hu, Shen, Sun, "Squeeze-and-Excitation Networks", appendix "Details of SENet-154": half as many channels in the first
1x1 convolution of each block, a stem of three 3x3 convolutions, 3x3 down-sampling projections, dropout before the
classifier. Names follow timm's ``legacy_senet154``, where they can.
"""

from collections import OrderedDict

from torch import Tensor, nn


class Bottleneck(nn.Module):
    """``(N, channels, H, W)`` to ``(N, out, H / stride, W / stride)``: 1x1 to half the width, grouped 3x3, 1x1.

    >>> import torch
    >>> Bottleneck(128, 256, stride=1, kernel=1)(torch.zeros(1, 128, 8, 8)).shape
    torch.Size([1, 256, 8, 8])
    """

    def __init__(self, channels: int, out: int, stride: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out // 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out // 2)
        self.conv2 = nn.Conv2d(out // 2, out, 3, stride, 1, groups=64, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.conv3 = nn.Conv2d(out, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if channels != out:
            projection = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """The branch plus the shortcut.

        >>> import torch
        >>> Bottleneck(128, 256, stride=2, kernel=3)(torch.zeros(1, 128, 8, 8)).shape
        torch.Size([1, 256, 4, 4])
        """
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        out: Tensor = self.relu(y + self.downsample(x))
        return out


def _stem() -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (channels, out, stride) in enumerate([(3, 64, 2), (64, 64, 1), (64, 128, 1)], 1):
        layers[f"conv{i}"] = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        layers[f"bn{i}"] = nn.BatchNorm2d(out)
        layers[f"relu{i}"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


class SENet154Base(nn.Sequential):
    """The plain network of 154 layers: images ``(N, 3, H, W)``, 224 pixels, to ``(N, num_classes)`` logits.

    >>> import torch
    >>> with torch.device("meta"):
    ...     sum(p.numel() for p in SENet154Base().parameters())
    108459944
    """

    def __init__(self, num_classes: int = 1000) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict(layer0=_stem(), pool0=nn.MaxPool2d(3, 2, ceil_mode=True))
        channels = 128
        for i, (out, depth) in enumerate([(256, 3), (512, 8), (1024, 36), (2048, 3)], 1):
            first = Bottleneck(channels, out, stride=1 if i == 1 else 2, kernel=1 if i == 1 else 3)
            rest = [Bottleneck(out, out, stride=1, kernel=1) for _ in range(depth - 1)]
            layers[f"layer{i}"] = nn.Sequential(first, *rest)
            channels = out
        layers.update(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), dropout=nn.Dropout(0.2))
        layers["fc"] = nn.Linear(channels, num_classes)
        super().__init__(layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
