"""torch-pruning cuts the channels of gates with those of their blocks; what was noted of them is believed no more."""

import copy

import pytest
import torch
from torch import nn

import se_inject
from se_inject.gate.marks import injection_of

from ..support.promises import assert_same
from .networks import awake, gated, images, small

pytestmark = pytest.mark.filterwarnings("ignore:Unwrapped parameters detected")  # layer scale is told of, and pruned
pruning = pytest.importorskip("torch_pruning", reason="torch-pruning is in the extra 'integrations'")


def pruned(model):
    """Half of the channels of all layers, but the last."""
    last = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == 10]
    importance = pruning.importance.MagnitudeImportance()
    pruning.pruner.MagnitudePruner(model, images(), importance, pruning_ratio=0.5, ignored_layers=last).step()
    return model


@pytest.mark.parametrize("name", ["torchvision", "convnext2"])
@pytest.mark.parametrize("training", [False, True])
def test_pruned_gates_are_gates_of_their_size(name, training, tmp_path):
    model = pruned(gated(name).train(training)).eval()
    plain = se_inject.remove(copy.deepcopy(model))
    channels = [site.channels for site in se_inject.find_sites(plain)]
    for (_, gate), now in zip(se_inject.gates(model), channels, strict=True):
        assert gate.fc1.in_channels == gate.fc2.out_channels == now < injection_of(gate).channels
        assert repr(gate).splitlines()[1] == f"  {now}, init=identity"
    with torch.no_grad():
        expected = model(images())
        torch.testing.assert_close(se_inject.optimize(model)(images()), expected, rtol=1e-4, atol=1e-5)
        se_inject.save_gates(model, tmp_path / "gates.safetensors")
        assert_same(se_inject.load_gates(plain, tmp_path / "gates.safetensors")(images()), expected)
    model.train()(images()).square().sum().backward()
    assert all(p.grad is not None for p in se_inject.gate_parameters(model))


def own_gate(channels):
    return nn.Sequential(nn.Conv2d(channels, channels, 1), nn.Sigmoid())


def test_pruned_gates_of_ones_own(tmp_path):
    model = se_inject.apply(small("torchvision"), gate=own_gate)
    for _, gate in se_inject.gates(model):
        nn.init.constant_(gate.alpha, 0.5)
    plain = se_inject.remove(copy.deepcopy(pruned(model)))
    se_inject.save_gates(model, tmp_path / "gates.safetensors")
    loaded = se_inject.load_gates(plain, tmp_path / "gates.safetensors", gate=own_gate)
    assert_same(loaded(images()), model(images()))


def test_gates_go_into_a_network_that_was_pruned():
    model = pruned(small("torchvision"))
    before = model(images())
    assert_same(se_inject.apply(model)(images()), before)
    assert not torch.equal(awake(model)(images()), before)
