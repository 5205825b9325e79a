"""Small networks for tests."""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Residual(nn.Module):
    """Two convolutions and an identity add."""

    def __init__(self, channels=16):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def branch(self, x):
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))

    def forward(self, x):
        return F.relu(x + self.branch(x))


class Inception(nn.Module):
    """Three paths, one of them a pool, concatenated."""

    def __init__(self, channels=16):
        super().__init__()
        self.one = nn.Conv2d(channels, 8, 1)
        self.three = nn.Conv2d(channels, 12, 3, padding=1)
        self.pool = nn.MaxPool2d(3, 1, 1)

    def forward(self, x):
        return torch.cat([self.one(x), self.three(x), self.pool(x)], 1)


def network(channels=16, blocks=2):
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1),
        *(Residual(channels) for _ in range(blocks)),
        Inception(channels),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8 + 12 + channels, 5),
    )


def block(forward, **children):
    """A module of a class of its own with that forward."""

    class Block(nn.Module):
        pass

    Block.forward = forward
    module = Block()
    for name, child in children.items():
        setattr(module, name, child)
    return module


def conv(channels=16, out=None, **options):
    return nn.Conv2d(channels, out or channels, 3, padding=1, **options)
