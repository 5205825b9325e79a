"""Short runs on a part of the digits, and a network that takes no time to train."""

import shutil
from dataclasses import replace
from functools import cache

import torch
from torch import nn

import se_inject
from recipes.data import open_data
from recipes.networks.any_model import Model
from recipes.training.accelerator import make_accelerator
from recipes.training.checkpoint import save_checkpoint
from recipes.training.loop import fit
from recipes.training.run import Run
from recipes.training.settings import SMALL

FIELDS = ("resume", "workers", "checkpoint_steps", "tensorboard", "trained", "head")


@cache
def few_digits():
    digits = open_data(None)
    return replace(digits, train=digits.train.subset(range(96)), val=digits.val.subset(range(40)))


def short_run(folder, network="se_resnet20", gates="standard", **changes):
    """A run of two epochs of three steps; ``changes`` are of the run's fields and settings."""
    data, model = few_digits(), Model(network, gates, 10)
    given = {name: changes.pop(name) for name in FIELDS if name in changes}
    settings = replace(SMALL, **{"epochs": 2, "batch": 32, "lr_step": 1} | changes).share(1)
    return Run(model, data, model.preprocess(data.size), settings, folder, **given)


class Tiny(nn.Module):
    """All that a run must get right: statistics, a gate, and dropout before the gate and in the head."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.bn, self.drop = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.Dropout(0.5)
        self.se = se_inject.SqueezeExcitation(8, init="standard")
        self.fc = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(72, 10))

    def forward(self, x):
        return self.fc(self.se(self.drop(self.bn(self.conv(x)).relu())))


def train(run, network=None):
    """The rows and the network of a run on this process."""
    network = network or Tiny()
    return fit(run, network, make_accelerator(run.settings.mixed_precision)), network


def keep_checkpoints(monkeypatch):
    """From now on, ``FOLDER-STEP`` is how a kill right after each checkpoint of a run would leave its folder."""

    def save_and_copy(path, state):
        save_checkpoint(path, state)
        shutil.copytree(path.parent, path.parent.with_name(f"{path.parent.name}-{state['step']}"))

    monkeypatch.setattr("recipes.training.state.save_checkpoint", save_and_copy)
