"""Gates change their form, and every output stays what it is, to the bit."""

import copy
import pickle
import re

import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models.convnext import CNBlockConfig

import se_inject
from se_inject import SqueezeExcitation, convert
from se_inject.errors import ConversionError, InvalidArgumentError, NoGateError, NotAModuleError, WrappedModelError
from tests.support.awake import awake
from tests.support.blocks import Residual


def output_of(model, x):
    torch.manual_seed(1)
    output = model(x.clone())
    return getattr(output, "logits", output)


def copied_state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def assert_equal_states(model, state):
    assert list(model.state_dict()) == list(state)
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key


def assert_converts(model, x, form="standard"):
    """That outputs, statistics and gradients are those of before, and that the way back is exact."""
    state, other = copied_state(model), copy.deepcopy(model)
    parameters = dict(model.named_parameters())
    assert convert(model, form) is model
    assert {gate.init for _, gate in se_inject.gates(model)} == {form}
    assert dict(model.named_parameters()).keys() == parameters.keys()
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
    with torch.no_grad():
        assert torch.equal(output_of(model, x), output_of(other, x))
        assert torch.equal(output_of(model.train(), x), output_of(other.train(), x))
    if x.dtype != torch.bfloat16:  # in which sums of gradients may overflow
        outputs = [output_of(m, x).square().sum() for m in (model, other)]
        assert torch.equal(*outputs)
        for output in outputs:
            output.backward()
        for name, theirs in other.named_parameters():
            ours = parameters[name]
            if theirs.grad is not None and theirs.count_nonzero():
                factor = (ours[ours != 0] / theirs[theirs != 0]).unique()
                assert torch.equal(ours.grad * factor, theirs.grad), name
    moved = {key: value for key, value in other.state_dict().items() if "running_" in key}
    assert all(torch.equal(model.state_dict()[key], value) for key, value in moved.items())
    model.eval()
    convert(model, "standard" if form == "identity" else "identity")
    for key in state:
        if key in moved or "num_batches" in key:
            model.state_dict()[key].copy_(state[key])
    assert_equal_states(model, state)


NETWORKS = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "googlenet": lambda: torchvision.models.googlenet(num_classes=10, init_weights=False),
    "convnext": lambda: torchvision.models.ConvNeXt([CNBlockConfig(24, 48, 2), CNBlockConfig(48, None, 2)], 0.5),
    "timm's resnet14t": lambda: timm.create_model("resnet14t", num_classes=10),
    "timm's convnext_atto": lambda: timm.create_model("convnext_atto", num_classes=10),
    "timm's nf_resnet26": lambda: timm.create_model("nf_resnet26", num_classes=10),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    model = awake(se_inject.apply(NETWORKS[name]()))
    assert_converts(model, torch.randn(2, 3, 48, 48))


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "convnext"])
def test_networks_in_half_precision(name):
    model = awake(se_inject.apply(NETWORKS[name]())).bfloat16()
    assert_converts(model, torch.randn(2, 3, 64, 64).bfloat16())


@pytest.mark.parametrize("name", ["resnet18", "convnext"])
def test_networks_of_the_standard_form(name):
    model = awake(se_inject.apply(NETWORKS[name](), init="standard"))
    assert_converts(model, torch.randn(2, 3, 48, 48).contiguous(memory_format=torch.channels_last), "identity")


def test_autocast():
    model = awake(se_inject.apply(NETWORKS["resnet18"]()))
    x = torch.randn(2, 3, 48, 48)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = model(x)
        assert torch.equal(convert(model, "standard")(x), before)


def test_a_converted_network_is_its_twin():
    model = awake(se_inject.apply(torchvision.models.resnet50()))
    twin = timm.create_model("seresnet50").eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = model(x)
        twin.load_state_dict(convert(model, "standard").state_dict())
        torch.testing.assert_close(twin(x), before, rtol=1e-4, atol=1e-4)


LAYERS = {
    1: {
        "conv": lambda bias: nn.Conv1d(16, 24, 3, padding=1, bias=bias),
        "transposed": lambda bias: nn.ConvTranspose1d(16, 24, 3, padding=1, bias=bias),
        "batch norm": lambda bias: nn.Sequential(nn.Conv1d(16, 24, 1), nn.BatchNorm1d(24)),
        "instance norm": lambda bias: nn.Sequential(nn.Conv1d(16, 24, 1), nn.InstanceNorm1d(24, affine=True)),
        "pools": (lambda: nn.AvgPool1d(3, 1, 1), lambda: nn.MaxPool1d(3, 2, 1), lambda: nn.AdaptiveAvgPool1d(3)),
        "dropout": lambda: nn.Dropout1d(),
    },
    2: {
        "conv": lambda bias: nn.Conv2d(16, 24, 3, padding=1, bias=bias, groups=2, padding_mode="reflect"),
        "transposed": lambda bias: nn.ConvTranspose2d(16, 24, 2, stride=2, bias=bias),
        "batch norm": lambda bias: nn.Sequential(nn.Conv2d(16, 24, 1), nn.BatchNorm2d(24)),
        "instance norm": lambda bias: nn.Sequential(nn.Conv2d(16, 24, 1), nn.InstanceNorm2d(24, affine=True)),
        "pools": (lambda: nn.AvgPool2d(3, 1, 1), lambda: nn.MaxPool2d(3, 2, 1), lambda: nn.AdaptiveMaxPool2d(3)),
        "dropout": lambda: nn.Dropout2d(),
    },
    3: {
        "conv": lambda bias: nn.Conv3d(16, 24, 1, bias=bias),
        "transposed": lambda bias: nn.ConvTranspose3d(16, 24, 1, bias=bias),
        "batch norm": lambda bias: nn.Sequential(nn.Conv3d(16, 24, 1), nn.BatchNorm3d(24)),
        "instance norm": lambda bias: nn.Sequential(nn.Conv3d(16, 24, 1), nn.InstanceNorm3d(24, affine=True)),
        "pools": (lambda: nn.Upsample(scale_factor=2), lambda: nn.MaxPool3d(3, 2, 1), lambda: nn.AdaptiveAvgPool3d(2)),
        "dropout": lambda: nn.Dropout3d(),
    },
}


class Turned(nn.Module):
    """A layer for the last dimension."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.movedim(1, -1)).movedim(-1, 1).contiguous()


def absorbing(rank, kind, bias):
    if kind == "linear":
        return Turned(nn.Linear(16, 24, bias=bias))
    if kind == "layer norm":
        return nn.Sequential(LAYERS[rank]["conv"](bias), Turned(nn.LayerNorm(24, bias=bias)))
    if kind == "group norm":
        return nn.Sequential(LAYERS[rank]["conv"](bias), nn.GroupNorm(3, 24))
    return LAYERS[rank][kind](bias)


def passing(rank, kind):
    pools = LAYERS[rank]["pools"]
    return {
        "relu": nn.ReLU,
        "leaky relu": lambda: nn.LeakyReLU(0.2),
        "prelu": lambda: nn.PReLU(24),
        "dropout": lambda: nn.Dropout(),
        "dropout of channels": LAYERS[rank]["dropout"],
        "identity": nn.Identity,
        "flatten": lambda: nn.Sequential(nn.Flatten(2), nn.Unflatten(2, (-1, *[1] * (rank - 1)))),
        "pool 0": pools[0],
        "pool 1": pools[1],
        "pool 2": pools[2],
    }[kind]()


PASSING = ["relu", "leaky relu", "prelu", "dropout", "dropout of channels", "identity", "flatten"]
PASSING += ["pool 0", "pool 1", "pool 2"]


@settings(deadline=None, max_examples=50)
@given(
    st.integers(1, 3),
    st.sampled_from(
        ["conv", "transposed", "linear", "batch norm", "instance norm", "layer norm", "group norm"],
    ),
    st.lists(st.sampled_from(PASSING), max_size=4),
    st.booleans(),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    st.sampled_from(["identity", "standard"]),
)
def test_every_kind_of_layer(rank, kind, between, bias, dtype, init):
    steps = [absorbing(rank, kind, bias), *(passing(rank, name) for name in between)]
    model = awake(nn.Sequential(*steps, SqueezeExcitation(24, init=init))).to(dtype)
    assert_converts(
        model,
        torch.randn(2, 16, *[8, 8, 8][:rank], dtype=dtype),
        "standard" if init == "identity" else "identity",
    )


@pytest.mark.parametrize("init", ["identity", "standard"])
def test_remove_takes_the_factor_out(init):
    model = awake(torchvision.models.resnet18(num_classes=10))
    state = copied_state(model)
    classes = [type(module) for module in model.modules()]
    for parameter in se_inject.gate_parameters(se_inject.apply(model, init=init)):
        nn.init.normal_(parameter, std=0.3)
    convert(model, "standard" if init == "identity" else "identity")
    for m in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), convert(convert(model, "identity"), "standard")):
        se_inject.remove(m)
        assert_equal_states(m, state)
        assert [type(module) for module in m.modules()] == classes


def test_remove_leaves_what_a_gate_of_another_form_was_made_with():
    """Forms that ``convert`` did not change have no factor in the layers before them."""
    model = torchvision.models.resnet18(num_classes=10)
    state = copied_state(model)
    se_inject.apply(model, init="standard", gate=lambda channels: SqueezeExcitation(channels))
    assert gate_forms(model) == ["identity"] * 8
    assert_equal_states(se_inject.remove(model), state)


def network():
    return nn.Sequential(nn.Conv2d(3, 16, 1), Residual(), Residual())


def gate_forms(model):
    return [gate.init for _, gate in se_inject.gates(model)]


def test_remove_is_refused_where_the_factor_must_stay():
    model = convert(awake(se_inject.apply(network())), "standard")
    model[1].bn2.register_forward_hook(lambda module, args, output: output + 1)
    state = copied_state(model)
    with pytest.raises(ConversionError, match=r"(?s)convert cannot be undone.*1\.se cannot take .*hooks"):
        se_inject.remove(model)
    assert_equal_states(model, state)
    assert len(list(se_inject.gates(model))) == 2


def test_an_interrupted_change_is_undone(monkeypatch):
    model = awake(se_inject.apply(network()))
    state, calls = copied_state(model), []

    def interrupted(gate, form):
        set_form(gate, form)
        calls.append(gate)
        if len(calls) == 2:
            raise KeyboardInterrupt

    set_form = SqueezeExcitation.set_form
    monkeypatch.setattr(SqueezeExcitation, "set_form", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(model, "standard")
    assert len(calls) == 2
    assert_equal_states(model, state)
    assert gate_forms(model) == ["identity", "identity"]


def test_weights_are_changed_in_place():
    model = awake(se_inject.apply(network()))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    weight = model[1].bn2.weight
    version = weight._version
    convert(model, "standard")
    assert model[1].bn2.weight is weight is next(p for p in optimizer.param_groups[0]["params"] if p is weight)
    assert weight._version > version
    assert weight.requires_grad


def test_in_inference_mode():
    with torch.inference_mode():
        model = awake(se_inject.apply(network()))
        x = torch.randn(2, 3, 8, 8)
        before = model(x)
    with torch.no_grad():
        assert torch.equal(convert(model, "standard")(x), before)
    model = awake(se_inject.apply(network()))
    with torch.inference_mode():
        before = model(x)
        assert torch.equal(convert(convert(model, "standard"), "identity")(x), before)
    model.load_state_dict(copied_state(model))


def test_on_the_meta_device():
    model = convert(se_inject.apply(network().to("meta")), "standard")
    assert gate_forms(model) == ["standard", "standard"]


def test_a_model_of_that_form_stays_as_it_is():
    model = convert(awake(se_inject.apply(network())), "standard")
    state = copied_state(model)
    versions = [parameter._version for parameter in model.parameters()]
    assert convert(model, "standard") is model
    assert versions == [parameter._version for parameter in model.parameters()]
    assert_equal_states(model, state)


def test_gates_of_both_forms_and_of_none():
    model = nn.Sequential(nn.Conv2d(3, 16, 1), Residual(), Residual(), Residual())
    se_inject.apply(model, where="1")
    se_inject.apply(model, where="2", init="standard")
    se_inject.apply(model, where="3", gate="eca")
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        before = awake(model)(x)
        others = copied_state(model[2]), copied_state(model[3])
        assert torch.equal(convert(model, "standard")(x), before)
    assert model[1].se.init == model[2].se.init == "standard"
    assert_equal_states(model[2], others[0])
    assert_equal_states(model[3], others[1])


@pytest.mark.parametrize("init", ["identity", "standard"])
def test_the_advice_of_a_refused_state_dict_works_word_by_word(init):
    other = "standard" if init == "identity" else "identity"
    x = torch.randn(2, 3, 8, 8)
    model = se_inject.apply(network(), init=init).eval()
    theirs = awake(se_inject.apply(network(), init=other))
    with pytest.raises(RuntimeError, match="convert") as caught:
        model.load_state_dict(theirs.state_dict())
    calls = re.findall(r"se_inject\.\w+\(model, .*?\)", str(caught.value))[:2]
    assert calls == [f"se_inject.convert(model, {other!r})", f"se_inject.apply(model, init={other!r})"]
    for advice, advised in zip(calls, (model, network().eval()), strict=True):
        exec(advice, {"se_inject": se_inject, "model": advised})
        advised.load_state_dict(theirs.state_dict())
        with torch.no_grad():
            assert torch.equal(advised(x), theirs(x))
            assert torch.equal(convert(advised, init)(x), theirs(x))


@pytest.mark.parametrize("form", ["Standard", None, 2, ("standard",)])
def test_wrong_forms(form):
    with pytest.raises(InvalidArgumentError, match="form must be one of 'identity', 'standard', got"):
        convert(se_inject.apply(network()), form)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch.jit
def test_what_is_no_gated_model():
    gated = se_inject.apply(network()).eval()
    x = torch.randn(1, 3, 8, 8)
    with pytest.raises(NotAModuleError):
        convert(Residual, "standard")
    with pytest.raises(NoGateError, match="no gates; "):
        convert(network(), "standard")
    with pytest.raises(NoGateError, match="no gates that have a form, but Blend"):
        convert(se_inject.apply(network(), gate="eca"), "standard")
    with pytest.raises(WrappedModelError, match="optimize"):
        convert(se_inject.optimize(gated), "standard")
    program = torch.export.export(gated, (x,))
    wrapped = [nn.DataParallel(gated), torch.compile(gated), torch.jit.trace(gated, x), torch.jit.script(gated)]
    traced = [se_inject.apply(torch.export.export(network().eval(), (x,))), program]
    traced += [se_inject.apply(torch.fx.symbolic_trace(network()))]
    traced += [torchvision.models.feature_extraction.create_feature_extractor(gated, ["1"])]
    for model in wrapped:
        with pytest.raises(WrappedModelError, match="convert first, then wrap"):
            convert(model, "standard")
    for model in traced:
        for m in (model, nn.Sequential(model)) if isinstance(model, nn.Module) else (model,):
            with pytest.raises(WrappedModelError, match="traced"):
                convert(m, "standard")
    assert gate_forms(gated) == ["identity", "identity"]
