"""torch.export with sizes that have names, torch.compile for any size, and torch.jit."""

import pytest
import torch

from . import routes
from .networks import gated, images, names

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own, about its deprecations and caches
SIZES = (1, 3, 64, 64), (3, 3, 96, 128)


def assert_close(made, model, *sizes):
    for size in sizes:
        with torch.no_grad():
            torch.testing.assert_close(made(images(*size)), model(images(*size)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "strict"), [("torchvision", True), ("convnext2", False)])
def test_named_batch_height_and_width(name, strict):
    model = gated(name)
    assert_close(routes.export(model, images(), strict), model, *SIZES)


def test_compiled_once_for_all_sizes():
    model, graphs = gated("resnet"), []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    torch.compiler.reset()
    compiled = torch.compile(model, dynamic=True, fullgraph=True, backend=backend)
    assert_close(compiled, model, (2, 3, 64, 96), (3, 3, 96, 128), (5, 3, 160, 64))
    assert len(graphs) == 1 and names(compiled) == [f"_orig_mod.{name}" for name in names(model)]


def test_jit_trace():
    model = gated("convnext2")
    assert_close(routes.jit_trace(model, images()), model, *SIZES)


@pytest.mark.parametrize("form", ["identity", "standard"])
def test_jit_script_and_freeze(form):
    model = gated("resnet", init=form)
    scripted = routes.jit_script(model, images())
    assert_close(scripted, model, *SIZES)
    assert_close(torch.jit.freeze(scripted), model, *SIZES)
