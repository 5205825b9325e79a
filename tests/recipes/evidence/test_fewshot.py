"""Meta-training on few-shot tasks, in small: a network of one block, on scikit-learn's digits."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from recipes.errors import UnknownNameError
from recipes.evidence import fewshot
from recipes.evidence.contextual import ContextualGate
from recipes.evidence.networks import NETWORKS, Network
from recipes.evidence.records import Job
from recipes.evidence.sources import load
from recipes.evidence.tasks import Fewshot

from ...support.blocks import Residual

CPU = torch.device("cpu")
JOB = Job("contextual", 0, 0.1, "tiny", "fewshot-tiny", 500, 14, 1)
ARMS = ("head", "norm", "frozen gates", "contextual")


class Tiny(nn.Sequential):
    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2)
        self.block = Residual(16)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.fc = nn.Linear(64, classes)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(NETWORKS, "tiny", Network(Tiny, "fc", (0.5,) * 3, (0.5,) * 3))
    monkeypatch.setitem(fewshot.FEWSHOT, "fewshot-tiny", Fewshot("digits", "digits", "digits"))
    monkeypatch.setattr(fewshot, "TESTED", 10)


def train(**changes):
    return fewshot.train_fewshot(replace(JOB, **changes), Path(), CPU)


def errors(record):
    return record.held_out, record.top1, record.loss, record.ece, *record.corrupted.values()


def test_all_arms_start_as_the_frozen_network_on_the_same_tasks():
    records = [train(arm=arm, epochs=0) for arm in ARMS]
    assert all(errors(record) == pytest.approx(errors(records[0]), abs=1e-4) for record in records)
    assert 0 < records[0].top1 < 80


@pytest.mark.parametrize(("arm", "parameters"), [("norm", 64), ("frozen gates", 280), ("contextual", 352)])
def test_what_is_trained_learns_and_the_rest_stays(arm, parameters, monkeypatch):
    monkeypatch.setattr(fewshot, "TESTED", 40)
    learner = fewshot.Learner(replace(JOB, arm=arm, images=1000), CPU)
    images = load("digits", Path(), 0, 0).train
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    loss = learner.scores(images, [None], 7)["loss"]
    assert learner.fit(images) > 0
    assert learner.scores(images, [None], 7)["loss"] < loss
    changed = {name for name, value in learner.network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name, parameter in learner.network.named_parameters() if parameter.requires_grad}
    assert sum(parameter.numel() for parameter in learner.learns) == parameters


def test_a_record_says_what_was_trained_and_tested():
    record = train()
    assert record.job == JOB and record.device == "cpu"
    assert (record.parameters, record.stored) == (352, 1408)
    assert record.held_out != record.top1 != record.corrupted["one a task"]
    assert errors(train()) == errors(record)
    nothing = train(arm="head")
    assert (nothing.parameters, nothing.stored, nothing.step) == (0, 0, 0)


def test_a_training_that_diverges_is_recorded():
    record = train(arm="norm", lr=1e30)
    assert (record.held_out, record.top1, record.loss, record.ece) == (100, 100, None, None)


def test_contextual_gates_are_of_the_context_alone():
    torch.manual_seed(0)
    gate, context, queries = ContextualGate(8, 8), torch.randn(25, 8, 2, 2), torch.randn(25, 8, 2, 2)
    torch.nn.init.normal_(gate.layers[-1].weight)
    outputs = gate(torch.cat([context, queries]))
    scale = outputs / torch.cat([context, queries])
    assert torch.allclose(scale, scale[:1, :, :1, :1].expand_as(scale)) and scale.std() > 0.05
    assert torch.allclose(gate(torch.cat([context, 2 * queries]))[:25], outputs[:25])
    assert not torch.allclose(gate(torch.cat([context.flip(1), queries]))[25:], outputs[25:])


def test_unknown_data_are_named():
    with pytest.raises(UnknownNameError, match="fewshot-digits"):
        train(data="digits")
