"""Reports for pages: an ordinary one, and one of a model whose names are an attack."""

import functools

import torch
import torchvision
from torch import nn

import se_inject

from ..support.blocks import Residual, network

ATTACK = '<img src=x onerror="hacked=1">'  # a module's name can't have a dot


@functools.cache
def ordinary():
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=4)
    found = se_inject.report(model, torch.randn(1, 3, 32, 32), rounds=2, where=["layer[123].*", "layer4.0"])
    se_inject.apply(model)
    for parameter in se_inject.gate_parameters(model):
        nn.init.normal_(parameter, std=0.5)
    batches = [(torch.randn(6, 3, 32, 32), [0, 1, 2, 0, 1, 2])]
    return found, se_inject.activations(model, batches, classes=["cat", "dog", "owl", "elk"])


@functools.cache
def hostile():
    model = nn.Sequential(nn.Conv2d(3, 16, 1))
    model.add_module(ATTACK, type(f"</script>{ATTACK}", (Residual,), {})())
    model.add_module("odd", network()[1])
    found = se_inject.report(model, torch.randn(1, 3, 8, 8), rounds=2)
    se_inject.apply(model)
    return found, se_inject.activations(model, [(torch.randn(2, 3, 8, 8), [0, 1])], classes=[ATTACK, "</style>"])
