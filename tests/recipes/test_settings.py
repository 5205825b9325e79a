"""Settings: presets, what is refused, schedules against torch's, and the optimizer's groups."""

import argparse
import math

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, StepLR

import se_inject
from recipes.errors import SettingsError
from recipes.training.optimizer import parameter_groups
from recipes.training.schedule import lr_factor
from recipes.training.settings import PRESETS, Settings, add_flags, from_flags


def test_paper_preset():
    paper = PRESETS["paper"]
    assert paper == Settings(device_batch=32)
    assert (paper.epochs, paper.batch, paper.lr, paper.lr_step, paper.momentum) == (100, 1024, 0.6, 30, 0.9)
    assert (paper.schedule, paper.optimizer, paper.warmup, paper.augmentation) == ("step", "sgd", 0, "paper")
    assert paper.share(8).device_batch == paper.share(1).device_batch == 32  # images a GPU


def test_parts_of_a_batch():
    assert Settings().share(8).device_batch == Settings().share(1).device_batch == 128
    assert Settings(batch=12).share(1).device_batch == 12 and Settings(batch=960).share(1).device_batch == 120
    assert Settings(batch=12, device_batch=32).share(1).device_batch == 12
    for settings, processes, parts in (
        (Settings(batch=100, device_batch=32), 1, "32"),
        (Settings(batch=3), 2, "3"),
        (Settings(batch=257), 1, "32 to 128"),
    ):
        with pytest.raises(SettingsError, match=f"does not divide into parts of {parts} images"):
            settings.share(processes)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("epochs", [0, 1.5, "3", True]),
        ("batch", [0, None]),
        ("device_batch", [0]),
        ("lr", [-1.0, math.nan, math.inf, None, "fast"]),
        ("gate_lr", [-1]),
        ("head_lr", [math.nan]),
        ("lr_step", [0]),
        ("warmup", [-1, 100, math.inf]),
        ("momentum", [1.0]),
        ("clip", [0, -1, math.nan]),
        ("label_smoothing", [1.0, -0.1]),
        ("mixup", [-0.2]),
        ("patience", [0, 1.0]),
        ("seed", [2**63, -1]),
        ("ema", [1.0, 0]),
        ("schedule", ["linear", None]),
        ("optimizer", ["Adam"]),
        ("augmentation", ["papr"]),
        ("mixed_precision", ["fp8"]),
        ("compile", [1]),
    ],
)
def test_settings_that_mean_nothing(name, values):
    for value in values:
        with pytest.raises(SettingsError, match=f"^{name} must (be|end before)"):
            Settings(**{name: value})


def test_every_setting_is_a_flag():
    parser = argparse.ArgumentParser()
    add_flags(parser)
    text = (
        "--epochs 3 --batch 8 --device-batch 4 --optimizer adamw --lr 1 --gate-lr 2 --head-lr 3 --schedule cosine "
        "--lr-step 2 --warmup 0.5 --momentum 0.1 --weight-decay 0 --clip 5 --augmentation randaugment "
        "--label-smoothing 0.1 --mixup 0.2 --patience 2 --ema 0.5 --seed 7 --mixed-precision bf16 --channels-last "
        "--compile"
    )
    given = from_flags(PRESETS["paper"], parser.parse_args(text.split()))
    expected = (3, 8, 4, "adamw", 1.0, 2.0, 3.0, "cosine", 2, 0.5, 0.1, 0.0, 5.0, "randaugment")
    assert given == Settings(*expected, 0.1, 0.2, 2, 0.5, 7, "bf16", True, True)
    assert from_flags(PRESETS["paper"], parser.parse_args([])) == PRESETS["paper"]


def rates(make, steps):
    """The learning rate that a scheduler of torch sets at each step."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule, found = make(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("epoch_steps", [1, 7])
def test_schedules_are_torchs(epoch_steps):
    steps, step, cosine = 6 * epoch_steps, Settings(lr_step=2), Settings(schedule="cosine", epochs=6)

    def ours(settings, ends=(6,)):
        return [0.5 * factor for factor in map(lr_factor(settings, epoch_steps, ends), range(steps))]

    assert ours(step) == pytest.approx(rates(lambda it: StepLR(it, 2 * epoch_steps, 0.1), steps))
    assert ours(step, (2, 6)) == ours(step)  # extended or not
    assert ours(cosine) == pytest.approx(rates(lambda it: CosineAnnealingLR(it, steps), steps))
    twice = rates(lambda it: CosineAnnealingLR(it, 3 * epoch_steps), 3 * epoch_steps) * 2
    assert ours(cosine, (3, 6)) == pytest.approx(twice)
    warm, rest = 2 * epoch_steps, 4 * epoch_steps
    found = ours(Settings(schedule="cosine", epochs=6, warmup=2))
    assert found[:warm] == pytest.approx(
        rates(lambda it: LinearLR(it, 1 / warm, 1, warm - 1), warm) if warm > 1 else [0.5]
    )
    assert found[warm:] == pytest.approx(rates(lambda it: CosineAnnealingLR(it, rest), rest))
    assert min(found) > 0  # no step is lost


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)

    def forward(self, x):
        return x + self.bn(self.conv(x))


def test_parameter_groups():
    network = se_inject.apply(nn.Sequential(Block(), nn.Sequential(nn.Dropout(), nn.Linear(8, 2))))
    settings = Settings(lr=0.1, gate_lr=0.5, head_lr=0.9, weight_decay=0.01)
    groups = parameter_groups(network, settings, head=["1"])
    rates = [(group["lr"], group["weight_decay"]) for group in groups]
    assert rates == [(0.1, 0.01), (0.9, 0.01), (0.5, 0.01), (0.5, 0)]
    gate, head = network[0].se, network[1][1]
    assert [id(p) for p in groups[1]["params"]] == [id(head.weight), id(head.bias)]
    assert [id(p) for p in groups[2]["params"]] == [id(gate.fc1.weight), id(gate.fc2.weight)]
    assert [id(p) for p in groups[3]["params"]] == [id(gate.fc1.bias), id(gate.fc2.bias)]
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    se_inject.freeze_backbone(network)
    assert [group["lr"] for group in parameter_groups(network, Settings(lr=0.1))] == [0.1, 0.1]
    assert [group["lr"] for group in parameter_groups(network, Settings(lr=0.0, gate_lr=0.0))] == [0.0, 0.0]
