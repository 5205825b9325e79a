"""A gated network's weights in the layout of another library's SE network, which loads them strictly."""

import pytest
import timm
import torch
import torchvision
from torch import nn

import se_inject
from se_inject.errors import ArgumentTypeError, InvalidArgumentError, LayoutError, NoGateError

from .pairs import randomize
from .test_load_se_weights import LAYOUTS, Block, assert_loaded, gated, network, published, renamed


@pytest.mark.parametrize("layout", LAYOUTS)
def test_like_a_state_dict(layout):
    """Whatever was loaded comes back: keys, their order, shapes and values; only names and shapes are read."""
    state = LAYOUTS[layout](published())
    model = se_inject.load_se_weights(gated(), state)
    like = {key: torch.empty_like(value, device="meta") for key, value in state.items()}
    result = se_inject.to_layout(model, like)
    assert list(result) == list(state) and all(torch.equal(result[key], state[key]) for key in state)


@pytest.mark.parametrize(("layout", "twin"), [("timm", "seresnet18"), ("cadene", "legacy_seresnet50")])
def test_by_name(layout, twin):
    torch.manual_seed(0)
    x = torch.randn(1, 3, 64, 64)
    model = getattr(torchvision.models, twin.removeprefix("legacy_").replace("se", "", 1))(num_classes=7)
    randomize(se_inject.apply(model, init="standard"), x)
    published = timm.create_model(twin, num_classes=7).eval()
    published.load_state_dict(se_inject.to_layout(model, layout))
    if layout == "timm":
        torch.testing.assert_close(published(x), model(x))
    assert_loaded(se_inject.load_se_weights(model, published.state_dict()), model.state_dict())


def test_wrapped():
    for wrapped in (nn.DataParallel(gated()), torch.compile(gated(), backend="eager")):
        assert se_inject.to_layout(wrapped, "cadene").keys() == se_inject.to_layout(gated(), "cadene").keys()


def test_pytorchcv_by_name():
    provider = pytest.importorskip("pytorchcv.model_provider", reason="needs the extra zoo")
    model = se_inject.apply(provider.get_model("resnetbc14b_cub", num_classes=7), init="standard")
    twin = provider.get_model("seresnetbc14b_cub", num_classes=7)
    twin.load_state_dict(se_inject.to_layout(model, "pytorchcv"))
    assert torch.equal(twin.features.stage1.unit1.se.conv1.weight, model.features.stage1.unit1.se.fc1.weight)


def test_names_that_are_not_enough():
    model = gated()
    with pytest.raises(LayoutError, match=r"conv1\.weight is no name of pytorchcv's.*to_layout\(model, network\.state"):
        se_inject.to_layout(model, "pytorchcv")
    with pytest.raises(InvalidArgumentError, match="'timm', 'torchvision', 'cadene', 'pytorchcv', got 'keras'"):
        se_inject.to_layout(model, "keras")
    other_name = se_inject.apply(nn.Sequential(WithSE()), init="standard")
    with pytest.raises(LayoutError, match=r"^0\.se_gate is not called as an SE module of timm"):
        se_inject.to_layout(other_name, "timm")
    eca = se_inject.apply(network(), gate="eca", init="standard")
    with pytest.raises(LayoutError, match=r"^layer1\.0\.se is not called as"):
        se_inject.to_layout(eca, "timm")


class WithSE(Block):
    """The name of the gate is taken."""

    def __init__(self):
        super().__init__()
        self.se = nn.ReLU()


def test_gates_without_biases():
    model = gated()
    like = {key: value for key, value in published().items() if not key.endswith(("fc1.bias", "fc2.bias"))}
    with pytest.raises(LayoutError, match=r"layer\d\.\d\.se\.fc\d\.bias is not zero, and gates of that layout have no"):
        se_inject.to_layout(model, like)
    se_inject.load_se_weights(model, like)
    assert list(se_inject.to_layout(model, like)) == list(like)


def test_counters():
    """Those that the layout has and the model has not are new ones."""
    like = {**published(), "fc.num_batches_tracked": torch.tensor(5)}
    assert se_inject.to_layout(gated(), like)["fc.num_batches_tracked"] == 0


def test_refusals():
    with pytest.raises(NoGateError):
        se_inject.to_layout(network(), published())
    with pytest.raises(InvalidArgumentError, match="standard form"):
        se_inject.to_layout(se_inject.apply(network()), "timm")
    with pytest.raises(ArgumentTypeError, match=r"pass its state_dict\(\)"):
        se_inject.to_layout(gated(), gated())
    with pytest.raises(LayoutError, match=r"left over: aux \(weight \[3\]\)"):
        se_inject.to_layout(gated(), renamed(published()) | {"aux.weight": torch.ones(3)})


def test_memory_is_shared_as_in_a_state_dict():
    model = gated()
    result = se_inject.to_layout(model, "cadene")
    assert result["layer0.conv1.weight"].data_ptr() == model.conv1.weight.data_ptr()
    assert not result["layer0.conv1.weight"].requires_grad
