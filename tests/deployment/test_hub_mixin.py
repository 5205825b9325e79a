"""huggingface_hub's mixin: a class that applies gates in its ``__init__`` keeps them; others are told by ``strict``."""

import pytest
import torch
import torchvision
from huggingface_hub import PyTorchModelHubMixin
from torch import nn

import se_inject
from se_inject import errors

from ..support.promises import assert_same
from .networks import awake, images, names


class Net(nn.Module, PyTorchModelHubMixin):
    def __init__(self, gated=False):
        super().__init__()
        self.body = torchvision.models.resnet.BasicBlock(3, 3)
        self.head = nn.Conv2d(3, 5, 1)
        if gated:
            se_inject.apply(self)

    def forward(self, x):
        return self.head(self.body(x))


def test_a_class_that_applies_gates_keeps_them(tmp_path):
    model = awake(Net(gated=True)).eval()
    model.save_pretrained(tmp_path)
    loaded = Net.from_pretrained(tmp_path).eval()
    assert names(loaded) == ["body.se"]
    assert_same(loaded(images()), model(images()))


def test_a_plain_class_drops_them_and_can_be_told_to_raise(tmp_path):
    model = awake(se_inject.apply(Net())).eval()
    model.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\).*body.se.fc1"):
        Net.from_pretrained(tmp_path, strict=True)
    with pytest.raises(errors.GateFileNotFoundError, match=r"has gates in model.safetensors \(body.se.fc1"):
        se_inject.load_gates(Net(), tmp_path)
    se_inject.save_gates(model, tmp_path / "gates.safetensors")
    loaded = Net.from_pretrained(tmp_path).eval()
    assert not names(loaded)
    assert_same(se_inject.load_gates(loaded, tmp_path)(images()), model(images()))


def test_plain_weights_in_a_gated_class_are_the_plain_network(tmp_path):
    model = Net().eval()
    model.save_pretrained(tmp_path)
    loaded = Net.from_pretrained(tmp_path, gated=True).eval()
    assert names(loaded) == ["body.se"]
    assert_same(loaded(images()), model(images()))
    assert not any(p.is_meta for p in loaded.parameters()) and torch.is_grad_enabled()
