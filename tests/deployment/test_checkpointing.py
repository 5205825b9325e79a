"""Activation checkpointing around gated blocks: the gradients that there are without it."""

import copy

import pytest
import torch
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
from torch.utils.checkpoint import checkpoint_sequential

from .networks import gated, images, names


def by_timm(model):
    model.set_grad_checkpointing()


def by_block(model):
    blocks = {model.get_submodule(name.rpartition(".")[0]) for name in names(model)}
    apply_activation_checkpointing(model, check_fn=lambda module: module in blocks)


def by_stage(model):
    for name in ("layer1", "layer2", "layer3", "layer4") if hasattr(model, "layer1") else ():
        stage = getattr(model, name)
        stage.forward = lambda x, stage=stage: checkpoint_sequential(list(stage), 1, x, use_reentrant=False)


@pytest.mark.parametrize("checkpointed", [by_timm, by_block, by_stage])
@pytest.mark.parametrize("name", ["resnet", "convnext2"])
def test_gradients(name, checkpointed):
    plain = gated(name).double().train()
    model = copy.deepcopy(plain)
    checkpointed(model)
    assert len(names(model)) == len(names(plain))
    x = images(2, 3, 32, 32).double()
    for each in (plain, model):
        each(x).square().sum().backward()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
