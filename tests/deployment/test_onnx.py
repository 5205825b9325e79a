"""ONNX: a gated network in onnxruntime, for any number and size of images, with no more nodes than timm's."""

import pytest
import timm
import torch

import se_inject

from . import routes
from .networks import gated, images, plain_and_gated, small

pytestmark = [
    pytest.mark.skipif(
        torch.__version__ < (2, 7),
        reason="today's onnxscript does not translate the plain network's norms of torch 2.6",
    ),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),  # of onnx
]


@pytest.mark.parametrize("name", ["resnet", "convnext2"])
def test_other_batches_and_sizes(name):
    model = gated(name)
    session = routes.onnx(model, images())
    for x in (images(1, 3, 64, 64), images(3, 3, 96, 128)):
        with torch.no_grad():
            torch.testing.assert_close(session(x), model(x), rtol=1e-4, atol=1e-4)


def test_a_gate_has_no_more_nodes_than_one_of_timm():
    plain, ours = plain_and_gated("resnet", init="standard")
    theirs = small("resnet", block_args={"attn_layer": "se"})
    assert {type(block.se) for (block,) in (theirs.layer1, theirs.layer4)} == {timm.layers.SEModule}
    nodes = [len(routes.onnx_program(model, images()).model.graph) for model in (plain, ours, theirs)]
    assert len(list(se_inject.gates(ours))) == 4
    assert nodes[0] < nodes[1] <= nodes[2]
