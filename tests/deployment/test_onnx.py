"""ONNX: a gated network in onnxruntime, for any number and size of images, with no more nodes than timm's."""

import copy

import pytest
import timm
import torch

import se_inject

from . import routes
from .networks import gated, images, small

pytestmark = [
    pytest.mark.skipif(
        torch.__version__ < (2, 7),
        reason="today's onnxscript does not translate the plain network's norms of torch 2.6",
    ),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),  # of onnx
]


@pytest.fixture(scope="module")
def resnet():
    """A gated network, and what the exporter makes of it in the standard form."""
    model = gated("resnet")
    return model, routes.onnx_program(se_inject.convert(copy.deepcopy(model), "standard"), images())


def test_other_batches_and_sizes(resnet):
    model, program = resnet
    session = routes.onnx_session(program)
    for x in (images(1, 3, 64, 64), images(3, 3, 96, 128)):
        with torch.no_grad():
            torch.testing.assert_close(session(x), model(x), rtol=1e-4, atol=1e-4)


def test_a_gate_has_no_more_nodes_than_one_of_timm(resnet):
    ours, program = resnet
    theirs = small("resnet", block_args={"attn_layer": "se"})
    assert {type(block.se) for (block,) in (theirs.layer1, theirs.layer4)} == {timm.layers.SEModule}
    assert len(list(se_inject.gates(ours))) == 4
    assert len(program.model.graph) <= len(routes.onnx_program(theirs, images()).model.graph)
