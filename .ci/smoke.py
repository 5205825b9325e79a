"""The installed wheel, alone with torch: ``python .ci/smoke.py``."""

import importlib.util

import torch
from torch import nn

import se_inject


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, x):
        return x + self.conv(x)


model, x = nn.Sequential(Block(), Block()), torch.randn(2, 32, 8, 8)
expected = model(x)
assert len(se_inject.find_sites(model)) == 2 and "self.se(self.conv(x))" in se_inject.diff(model)
assert torch.equal(se_inject.apply(model)(x), expected)
assert len(list(se_inject.gates(model))) == 2
assert torch.equal(se_inject.remove(model)(x), expected)
assert importlib.util.find_spec("se_inject_recipes") and not importlib.util.find_spec("recipes")
print("se_inject", se_inject.__version__, se_inject.__file__)
