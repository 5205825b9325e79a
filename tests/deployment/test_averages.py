"""Averages of weights (EMA, SWA) keep the gates, and what tells their form."""

import copy

import pytest
import torch
from timm.utils import ModelEmaV3
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

import se_inject

from .networks import awake, gated, images, names


def average(kind, model):
    if kind == "ModelEmaV3":
        return ModelEmaV3(model, decay=0.5)
    if kind == "ModelEmaV3, one tensor at a time":
        return ModelEmaV3(model, decay=0.5, foreach=False)
    of_ema = {"multi_avg_fn": get_ema_multi_avg_fn(0.5)} if kind.startswith("EMA") else {}
    return AveragedModel(model, use_buffers=kind.endswith("buffers"), **of_ema)


KINDS = ["EMA", "EMA of buffers", "SWA", "SWA of buffers", "ModelEmaV3", "ModelEmaV3, one tensor at a time"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["identity", "standard"])
def test_averages_are_those_of_the_formula_and_load_strictly(kind, form):
    first = gated("resnet", init=form)
    second = awake(copy.deepcopy(first))
    averaged = average(kind, first)
    for model in (first, second):
        averaged.update(model) if hasattr(averaged, "update") else averaged.update_parameters(model)
    assert names(averaged) == [f"module.{name}" for name in names(first)]
    for ours, a, b in zip(*map(se_inject.gate_parameters, (averaged, first, second)), strict=True):
        torch.testing.assert_close(ours, (a + b) / 2)
    fresh = gated("resnet", seed=1, init=form)
    fresh.load_state_dict(averaged.module.state_dict())
    fresh.eval()
    with torch.no_grad():
        assert torch.equal(fresh(images()), averaged.module.eval()(images()))


def test_statistics_of_norms_for_the_average():
    model = gated("resnet").train()
    averaged = AveragedModel(model)
    averaged.update_parameters(model)
    update_bn([images(4, 3, 64, 64)], averaged)
    model.eval()(images())
    assert torch.isfinite(averaged.eval()(images())).all()
