"""int8 by PT2E, FX, eager mode and torchao; tests/surgery/test_quantized.py has graphs that are quantized already."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.ao.quantization import convert, get_default_qat_qconfig_mapping, get_default_qconfig, prepare
from torch.ao.quantization.quantize_fx import convert_fx, prepare_qat_fx

import se_inject

from ..surgery.test_quantized import pt2e  # noqa: F401
from . import routes
from .networks import awake, images, names, plain_and_gated, small

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.ao and torchao deprecate each other
X = images(4, 3, 64, 64)


def error(quantized, model):
    with torch.no_grad():
        return float((quantized(X) - model(X)).norm() / model(X).norm())


@pytest.mark.parametrize(
    ("way", "name"),
    [(routes.pt2e_int8, "torchvision"), (routes.fx_int8, "convnext2"), (routes.torchao_int8, "convnext2")],
)
def test_a_gated_network_loses_no_more_than_the_plain_one(name, way, request):
    if way is routes.pt2e_int8:
        request.getfixturevalue("pt2e")  # skips where torchao does not go with torch
    plain, gated = plain_and_gated(name)
    assert error(way(gated, X), gated) < max(0.03, 1.5 * error(way(plain, X), plain))
    assert error(plain, gated) > 0.02


def test_layers_of_gates_are_quantized_by_fx():
    _, gated = plain_and_gated("torchvision")
    quantized = routes.fx_int8(gated, X)
    for name in names(gated):
        for layer in ("fc1", "fc2"):
            assert type(quantized.get_submodule(f"{name}.{layer}")) is torch.ao.nn.quantized.Conv2d


def test_training_that_knows_of_quantization():
    _, gated = plain_and_gated("torchvision")
    prepared = prepare_qat_fx(gated.train(), get_default_qat_qconfig_mapping("x86"), (X,))
    optimizer = torch.optim.SGD(prepared.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        prepared(X).square().mean().backward()
        optimizer.step()
    trained = copy.deepcopy(prepared).eval()
    assert error(convert_fx(prepared.eval()), trained) < 0.4


@pytest.mark.parametrize(("form", "fused_first"), [("identity", True), ("standard", False)])
def test_eager_mode(form, fused_first):
    model = torchvision.models.quantization.resnet18(quantize=False, num_classes=10).eval()
    if fused_first:
        model.fuse_model(is_qat=False)
    awake(se_inject.apply(model, init=form))
    if not fused_first:
        model.fuse_model(is_qat=False)
    model.qconfig = get_default_qconfig("x86")
    prepared = prepare(model)
    prepared(X)
    quantized = convert(prepared)
    assert len(names(quantized)) == 8 and quantized(X).is_quantized is False
    assert error(quantized, model) < 0.1
    assert error(torch.jit.trace(quantized, X), quantized) < 1e-3


@pytest.mark.parametrize("rank", [1, 3])
def test_a_gate_of_quantized_values_of_any_rank(rank):
    gate = awake(se_inject.SqueezeExcitation(16))
    x = torch.randn(2, 16, *[5] * rank)
    gate.qconfig = get_default_qconfig("x86")
    prepared = prepare(copy.deepcopy(gate))
    prepared(x)
    quantized = convert(prepared)(torch.quantize_per_tensor(x, 0.05, 128, torch.quint8))
    assert (quantized.dequantize() - gate(x)).norm() < 0.1 * gate(x).norm()


def test_gates_go_into_a_network_that_torchao_quantized():
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = small("convnext2")
    quantize_(model, Int8WeightOnlyConfig())
    before = model(X)
    se_inject.apply(model)
    assert torch.equal(model(X), before)
    assert len(names(model)) == 4 and {type(p) for p in se_inject.gate_parameters(model)} == {nn.Parameter}
    assert error(awake(model), se_inject.remove(copy.deepcopy(model))) > 0.02
