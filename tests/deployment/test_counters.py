"""Counters of operations know every operation of a gate."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import se_inject

from .networks import images, names, plain_and_gated

X = images(2, 3, 64, 64)
SIZES = 16, 8, 4, 2  # of the features


def of_gates(model):
    """The multiply-adds of the gates' layers for one image."""
    return sum(gate.fc1.weight.numel() + gate.fc2.weight.numel() for _, gate in se_inject.gates(model))


@pytest.mark.parametrize("training", [False, True])
def test_torch(training):
    counts = []
    for model in plain_and_gated("resnet"):
        with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
            output = model.train(training)(X)
            if training:
                output.sum().backward()
        counts.append(counter.get_total_flops())
        passes = 3 if training else 1  # backward has two products for each in forward
    assert counts[1] - counts[0] == passes * 2 * len(X) * of_gates(model)
    assert {f"ResNet.{name}" for name, _ in se_inject.gates(model)} <= set(counter.get_flop_counts())


@pytest.mark.filterwarnings("ignore")  # fvcore's use of torch.jit
@pytest.mark.parametrize("form", ["identity", "standard"])
def test_fvcore(form):
    """By itself it knows the convolutions; the elementwise operations, as in any SE network, are told to it."""
    fvcore = pytest.importorskip("fvcore.nn", reason="fvcore is in the extra 'integrations'")
    each_input, each_output = (fvcore.jit_handles.elementwise_flop_counter(*of) for of in ((1, 0), (0, 1)))
    plain, gated = (fvcore.FlopCountAnalysis(model, X) for model in plain_and_gated("resnet", init=form))
    for analysis in (plain, gated):
        analysis.unsupported_ops_warnings(False)
        analysis.set_op_handle("aten::mean", each_input, "aten::sigmoid", each_output, "aten::mul", each_output)
    difference = gated.total() - plain.total()
    assert gated.unsupported_ops() == plain.unsupported_ops()
    features = [
        gate.fc1.in_channels * size**2 for (_, gate), size in zip(se_inject.gates(gated._model), SIZES, strict=True)
    ]
    values = sum(gate.fc1.in_channels for _, gate in se_inject.gates(gated._model))
    of_scale = values * (2 if form == "identity" else 1)  # a sigmoid, and the 2
    assert difference == len(X) * (of_gates(gated._model) + 2 * sum(features) + of_scale)
    assert all(gated.by_module()[name] > 0 for name in names(gated._model))
