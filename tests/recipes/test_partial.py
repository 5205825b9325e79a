"""Training a part of a network: what moves, and what runs as in evaluation."""

import pytest
import torch
from torch import nn

import se_inject
from recipes.errors import SettingsError
from recipes.networks.any_model import Model
from recipes.training.partial import freeze_rest, trained_modules

from .runs import Tiny, train

PARTS = {
    "gates": {"se", "fc"},
    "gates+norm": {"se", "bn", "fc"},
    "norm": {"bn", "fc"},
    "head": {"fc"},
    "all": {"conv", "bn", "se", "fc"},
}


@pytest.mark.parametrize("trained", PARTS)
def test_only_what_is_trained_moves(make_run, trained):
    """Parameters and statistics; also after a validation, and in every step of two epochs."""
    run = make_run(trained=trained, head=("fc",), device_batch=16)
    network, modes = Tiny(), []
    for name, module in network.named_modules():
        module.register_forward_pre_hook(
            lambda module, _, name=name: modes.append((name, module.training, torch.is_grad_enabled()))
        )
    before = {key: value.clone() for key, value in network.state_dict().items()}
    train(run, network)
    moved = {
        key.partition(".")[0] for key, value in network.state_dict().items() if not torch.equal(value, before[key])
    }
    assert moved == PARTS[trained]
    in_training = {name for name, training, gradients in modes if gradients and training}
    in_evaluation = {name for name, training, gradients in modes if gradients and not training}
    tops = {name.partition(".")[0] for name in in_training}
    assert tops == PARTS[trained] | ({"", "drop"} if trained == "all" else set())
    assert not in_training & in_evaluation and "fc.1" in in_training  # the head's own dropout


def test_the_head_is_trained_even_where_it_holds_no_norm(make_run):
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, 10))
    freeze_rest(network, "norm", head=["2"])
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_real_networks():
    """Norms of timm are norms; what a library froze stays frozen where everything is trained."""
    network = se_inject.apply(Model("timm/mobilenetv3_small_050", "none", 3).build())
    freeze_rest(network, "gates+norm", head=["classifier"])
    names = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    norms = {name for name, module in network.named_modules() if "BatchNorm" in type(module).__name__}
    gates = {name for name, _ in se_inject.gates(network)}
    assert {name.rpartition(".")[0].removesuffix(".fc1").removesuffix(".fc2") for name in names} == (
        norms | gates | {"classifier"}
    )
    network.conv_stem.weight.requires_grad = False
    freeze_rest(network, "all")
    assert not network.conv_stem.weight.requires_grad


@pytest.mark.parametrize(
    ("network", "trained", "head", "says"),
    [
        (nn.Sequential(nn.Linear(2, 2)), "gates", (), "the network has no gates"),
        (nn.Sequential(nn.Linear(2, 2)), "gates", ("0",), "the network has no gates"),
        (nn.Sequential(nn.BatchNorm1d(2)), "gates+norm", (), "the network has no gates"),
        (se_inject.SqueezeExcitation(8), "gates+norm", (), "no norm has parameters"),
        (nn.Sequential(nn.BatchNorm1d(2, affine=False)), "norm", (), "no norm has parameters"),
        (nn.Sequential(nn.Linear(2, 2)), "head", (), "no head is named"),
        (nn.Sequential(nn.Linear(2, 2)), "head", ("fc",), "no module 'fc' to be its head; its last one is '0'"),
        (nn.Sequential(nn.Linear(2, 2)), "all", ("fc",), "no module 'fc' to be its head; its last one is '0'"),
    ],
)
def test_nothing_to_train(network, trained, head, says):
    before = [parameter.requires_grad for parameter in network.parameters()]
    with pytest.raises(SettingsError, match=says):
        freeze_rest(network, trained, head)
    assert [parameter.requires_grad for parameter in network.parameters()] == before


def test_modules_of_all():
    network = nn.Sequential(nn.Linear(2, 2))
    assert trained_modules(network, "all") == [network]
