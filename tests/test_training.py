"""Gates for an optimizer, and a backbone that holds still."""

import copy
import pickle

import pytest
import timm
import torch
import torchvision
from torch import nn

import se_inject

from .support.blocks import network
from .support.promises import assert_same

X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def backbone_state(model):
    return {k: v.clone() for k, v in model.state_dict().items() if ".se." not in k}


def train(model, steps=3):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(X).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize(
    "build",
    [
        network,
        lambda: torchvision.models.resnet18(),
        lambda: timm.create_model("resnet18", zero_init_last=False),
        lambda: nn.SyncBatchNorm.convert_sync_batchnorm(network()),
    ],
)
def test_only_gates_train_also_after_train(build):
    model = se_inject.freeze_backbone(se_inject.apply(build()))
    model.train()
    if any(isinstance(m, nn.SyncBatchNorm) for m in model.modules()):
        assert not any(m.training for m in model.modules() if isinstance(m, nn.SyncBatchNorm))
        return
    before, gates = backbone_state(model), [p.clone() for p in se_inject.gate_parameters(model)]
    train(model)
    after = backbone_state(model)
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert not all(map(torch.equal, gates, se_inject.gate_parameters(model)))
    model.eval()
    model.train()
    model(X)
    assert all(torch.equal(backbone_state(model)[k], v) for k, v in before.items())


def test_frozen_train_mode_equals_eval_mode():
    plain = network().eval()
    expected = plain(X)
    model = se_inject.freeze_backbone(se_inject.apply(plain)).train()
    assert_same(model(X), expected)


def test_dropout_follows_the_mode():
    model = se_inject.freeze_backbone(se_inject.apply(nn.Sequential(network(), nn.Dropout())))
    assert model.train()[1].training and not model.eval()[1].training


def test_frozen_model_copies_and_pickles():
    model = se_inject.freeze_backbone(se_inject.apply(network()))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin.train()
        before = backbone_state(twin)
        train(twin)
        assert all(torch.equal(backbone_state(twin)[k], v) for k, v in before.items())
        assert isinstance(twin[1].bn1, nn.BatchNorm2d)
    assert se_inject.freeze_backbone(model) is model  # twice does no harm


@pytest.mark.filterwarnings("ignore")
def test_frozen_model_compiles():
    model = se_inject.freeze_backbone(se_inject.apply(network())).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(X), model(X), atol=1e-5)


def test_gate_parameters_are_all_of_the_gates():
    model = se_inject.apply(network())
    names = {id(p): name for name, p in model.named_parameters()}
    assert all(".se." in names[id(p)] for p in se_inject.gate_parameters(model))
    assert len(se_inject.gate_parameters(model)) == 3 * 4


def test_spectral_norm_and_fused_layers():
    body = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 16, 3)), network(16)[1:3])
    model = se_inject.freeze_backbone(se_inject.apply(nn.Sequential(*body)))
    before = backbone_state(model)
    model.train()(X)
    assert all(torch.equal(backbone_state(model)[k], v) for k, v in before.items())


def test_dropout_in_a_held_layer_follows_the_mode():
    fused = timm.layers.BatchNormAct2d(16)
    fused.drop = nn.Dropout()
    model = se_inject.freeze_backbone(se_inject.apply(nn.Sequential(fused, network(16)[1])))
    assert not model.train()[0].training and model[0].drop.training
    assert not model.eval()[0].drop.training
