"""Networks with gates that do something, so that a lost gate shows."""

import copy

import timm
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

import se_inject


def awake(model, strength=0.5):
    """Gates as if they had learned, on branches that are not 0: norms and layer scale start there in some networks.

    The wilder the gates of a deep network are, the more of any rounding error is in its outputs.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and parameter.abs().max() < 1e-3 and not name.endswith("bias"):
                nn.init.uniform_(parameter, 0.5, 1.5)
        for _, gate in se_inject.gates(model):
            nn.init.normal_(gate.fc2.weight, std=strength * (8 / gate.fc1.out_channels) ** 0.5)
            nn.init.normal_(gate.fc2.bias, std=strength)
    return model


def small(name, seed=0, **options):
    """One of timm's networks for tests, which are narrow and have four blocks, or such a ResNet of torchvision."""
    torch.manual_seed(seed)
    if name == "torchvision":
        return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10, **options).eval()
    return awake(timm.create_model(f"test_{name}", num_classes=10, **options)).eval()


def gated(name, seed=0, **options):
    return awake(se_inject.apply(small(name, seed), **options))


def plain_and_gated(name, **options):
    plain = small(name)
    return plain, awake(se_inject.apply(copy.deepcopy(plain), **options))


def images(*size, seed=0):
    return torch.randn(size or (2, 3, 64, 64), generator=torch.Generator().manual_seed(seed))


def names(model):
    return [name for name, _ in se_inject.gates(model)]
