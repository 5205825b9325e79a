"""Quantization: gates go in before it, and graphs that are prepared for it are refused."""

import copy

import pytest
import torch
import torchvision
from torch import fx
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.fx.custom_config import PrepareCustomConfig
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

import se_inject
from se_inject import errors

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.ao and torchao deprecate each other
X = torch.randn(2, 3, 64, 64)
GATES = {f"layer{i}.{j}.se" for i in range(1, 5) for j in range(2)}


def network():
    return torchvision.models.resnet18(num_classes=10).eval()


def assert_refused(prepared):
    with pytest.raises(errors.NoBlockError, match="prepared for quantization or quantized already"):
        se_inject.apply(prepared)
    assert not any(".se." in name for name in prepared.state_dict())


def gates(model):
    return {name.partition(".fc")[0] for name in model.state_dict() if ".se.fc" in name}


@pytest.fixture
def pt2e():
    """What prepares and converts a graph as ``torchao`` does."""
    try:
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.testing.pt2e._xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
    except Exception as error:  # of whatever kind
        pytest.skip(f"this torchao does not go with torch {torch.__version__}: {error}")

    def prepare(graph):
        quantizer = XNNPACKQuantizer()
        quantizer.set_global(get_symmetric_quantization_config())
        prepared = prepare_pt2e(graph, quantizer)
        prepared(X)
        return prepared

    return prepare, convert_pt2e


def test_graphs_of_pt2e_are_refused(pt2e):
    prepare, convert = pt2e
    model = network()
    prepared = prepare(torch.export.export(model, (X,), strict=False).module())
    assert_refused(prepared)
    assert_refused(convert(prepared))


def test_gates_go_in_before_pt2e(pt2e):
    prepare, convert = pt2e
    program = torch.export.export(network(), (X,), strict=False)
    module = se_inject.apply(program.module())
    for gated in (se_inject.apply(program).module(), module):
        quantized = convert(prepare(gated))
        assert gates(quantized) == GATES
        assert torch.isfinite(quantized(X)).all()


def test_graphs_of_fx_quantization_are_refused():
    model = network()
    prepared = prepare_fx(copy.deepcopy(model), get_default_qconfig_mapping("x86"), (X,))
    prepared(X)
    assert_refused(prepared)
    assert_refused(convert_fx(prepared))


def test_gates_go_in_before_fx_quantization():
    gated = se_inject.apply(fx.symbolic_trace(network()))
    whole = PrepareCustomConfig().set_non_traceable_module_classes([se_inject.SqueezeExcitation])
    prepared = prepare_fx(gated, get_default_qconfig_mapping("x86"), (X,), prepare_custom_config=whole)
    prepared(X)
    quantized = convert_fx(prepared)
    assert gates(quantized) == GATES and torch.isfinite(quantized(X)).all()
