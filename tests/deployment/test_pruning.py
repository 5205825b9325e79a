"""torch-pruning cuts channels of gates with those of the blocks; nobody then believes the channels that were noted."""

import pytest

import se_inject
from se_inject.gate.marks import injection_of

from .networks import gated, images

tp = pytest.importorskip("torch_pruning", reason="torch-pruning is in the extra 'integrations'")


def pruned(model, ratio=0.5):
    pruner = tp.pruner.MagnitudePruner(
        model, images(), importance=tp.importance.MagnitudeImportance(), pruning_ratio=ratio, ignored_layers=[model.fc]
    )
    pruner.step()
    return model


def test_gates_shrink_with_their_blocks():
    model = pruned(gated("resnet"))
    for name, gate in se_inject.gates(model):
        assert gate.fc1.in_channels == gate.fc2.out_channels < injection_of(gate).channels
        assert repr(gate).splitlines()[1] == f"  {gate.fc1.in_channels}, init=identity", name
    model.train()(images()).square().sum().backward()
    assert all(p.grad is not None for p in se_inject.gate_parameters(model))
