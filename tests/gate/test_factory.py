"""Gates of other kinds: timm's by name, torchvision's, the user's own."""

import copy
import pickle

import pytest
import timm
import torch
import torchvision
from torch import nn

import se_inject
from se_inject.gate.factory import Blend

from ..support.blocks import Residual, block, network
from ..support.promises import assert_same, exact_state

X = torch.randn(2, 3, 32, 32)
NAMES = "ese eca ecam ceca gc gca cbam lcbam coord ela strip sk splat nl".split()


class Scale(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), 0.5))

    def forward(self, x):
        return x * self.scale.view(-1, *[1] * (x.ndim - 2))


def trained_alike(gated, plain):
    for training in (False, True):
        outputs = []
        for model in (plain.train(training), gated.train(training)):
            torch.manual_seed(0)
            outputs.append(model(X))
        assert_same(*outputs)


@pytest.mark.parametrize("gate", [*NAMES, torchvision.ops.SqueezeExcitation, Scale])
def test_gates_start_as_the_identity_and_learn(gate):
    torch.manual_seed(0)
    model = network()
    plain, before = copy.deepcopy(model), exact_state(model)
    se_inject.apply(model, gate=gate)
    trained_alike(model, plain)
    gates = dict(se_inject.gates(model))
    assert list(gates) == ["1.se", "2.se", "3.se"]
    optimizer = torch.optim.SGD(se_inject.gate_parameters(model), lr=0.1)
    start = {name: copy.deepcopy(gate.state_dict()) for name, gate in gates.items()}
    for _ in range(2):
        optimizer.zero_grad()
        model.train()(X).square().sum().backward()
        optimizer.step()
    for name, each in gates.items():
        changed = {
            key.partition(".")[0] for key, v in each.state_dict().items() if not torch.equal(v, start[name][key])
        }
        assert changed == {"alpha", "gate"}, name
    assert_same(pickle.loads(pickle.dumps(model)).eval()(X), model.eval()(X))
    with pytest.raises(se_inject.errors.AllGatedError):
        se_inject.apply(model)
    se_inject.remove(model.train())
    assert exact_state(model) == before


def test_gate_that_is_the_identity_is_blended_in_whole_as_it_would_never_learn_otherwise():
    model = se_inject.apply(network(), gate=lambda channels: se_inject.SqueezeExcitation(channels, 4))
    assert all(type(gate) is se_inject.SqueezeExcitation for _, gate in se_inject.gates(model))
    assert all(gate.alpha == 1 for _, gate in se_inject.gates(se_inject.apply(network(), gate="nl")))
    assert all(gate.alpha == 0 for _, gate in se_inject.gates(se_inject.apply(network(), gate="eca")))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_blend_keeps_the_memory_format(memory_format):
    x = torch.randn(2, 8, 5, 6).to(memory_format=memory_format)
    for other in (torch.contiguous_format, torch.channels_last):
        gate = block(lambda self, x, other=other: (x * 0.5).to(memory_format=other))
        assert Blend(gate)(x).stride() == x.stride()


def test_standard_form_puts_gates_in_as_they_are():
    plain = network().eval()
    model = se_inject.apply(copy.deepcopy(plain), gate=Scale, init="standard")
    assert type(model[1].se) is Scale and not torch.equal(model(X), plain(X))
    assert list(model[1].se.state_dict()) == ["scale"]


def test_gates_of_timm_load_the_weights_of_timms_network():
    twin = timm.create_model("ecaresnet50t").eval()
    model = timm.create_model("resnet50t").eval()
    se_inject.apply(model, gate="eca", init="standard")
    model.load_state_dict(twin.state_dict())
    x = torch.randn(1, 3, 64, 64)
    assert_same(model(x), twin(x))


def test_second_argument_is_the_width():
    widths = []

    def make(channels, width):
        widths.append((channels, width))
        return Scale(channels)

    se_inject.apply(network(64), reduction=4, gate=make)
    assert widths == [(64, 16), (64, 16), (84, 21)]


def test_reduction_of_each_site():
    model = network(64)
    se_inject.apply(model, reduction=lambda site: 2 if site.kind == "residual" else 4)
    assert [gate.fc1.out_channels for _, gate in se_inject.gates(model)] == [32, 32, 21]
    with pytest.raises(se_inject.errors.InvalidArgumentError, match="reduction"):
        se_inject.apply(network(), reduction=lambda site: 0)


SHARED = Scale(16)


@pytest.mark.parametrize(
    ("gate", "error", "words"),
    [
        (3, TypeError, "name or a function"),
        (nn.ReLU(), TypeError, "name or a function"),
        (None, TypeError, "name or a function"),
        ("no such gate", ValueError, "no such gate"),
        (lambda channels: 3, TypeError, "not a module"),
        (lambda channels: 1 / 0, ValueError, "ZeroDivisionError"),
        (lambda channels: nn.Conv2d(channels, 2 * channels, 1), ValueError, "keep the shape"),
        (lambda channels: nn.Conv2d(3, 3, 1), ValueError, "fails on a feature"),
        (lambda channels: nn.ReLU(inplace=True), ValueError, "in place"),
        (lambda channels: SHARED, ValueError, "in use already"),
    ],
)
def test_gates_that_do_not_fit_are_refused_before_anything_changes(gate, error, words):
    model = network()
    before = exact_state(model)
    with pytest.raises(error, match=words) as raised:
        se_inject.apply(model, gate=gate)
    assert isinstance(raised.value, se_inject.errors.SEInjectError)
    assert exact_state(model) == before


def test_gate_of_the_model_itself_is_refused():
    model = network()
    with pytest.raises(ValueError, match="in use already"):
        se_inject.apply(model, gate=lambda channels: model[0], where="1")


def test_memory_that_a_gate_does_not_take_is_refused():
    model = network()
    with pytest.raises(se_inject.errors.InvalidArgumentError, match="memory='recompute' is for gate=\"se\""):
        se_inject.apply(model, memory="recompute", gate="eca")
    with pytest.raises(se_inject.errors.InvalidArgumentError, match="'keep', 'recompute'"):
        se_inject.apply(model, memory="less")
    assert not list(se_inject.gates(model))
    assert str(next(gate for _, gate in se_inject.gates(se_inject.apply(model, memory="recompute")))).count("recompute")


def test_reduction_that_a_gate_does_not_take_is_refused():
    with pytest.raises(ValueError, match="reduction=4 does not apply"):
        se_inject.apply(network(), reduction=4, gate="eca")


@pytest.mark.parametrize("dims", [1, 3])
def test_gates_for_other_ranks(dims):
    layer = (nn.Conv1d, None, nn.Conv3d)[dims - 1]
    x = torch.randn(2, 16, *[5] * dims)
    module = block(lambda self, x: x + self.conv(x), conv=layer(16, 16, 3, padding=1))
    plain = copy.deepcopy(module)
    assert_same(se_inject.apply(module, gate=Scale)(x), plain(x))
    with pytest.raises(ValueError, match="fails on a feature"):
        se_inject.apply(plain, gate="cbam")


def test_gates_take_dtype_device_and_mode_of_their_place():
    model = se_inject.apply(network().to(torch.float64).eval(), gate="cbam")
    gate = model[1].se
    assert {p.dtype for p in gate.parameters()} == {torch.float64} and not any(m.training for m in gate.modules())
    model = se_inject.apply(network().to("meta"), gate="cbam")
    assert {p.device.type for p in model[1].se.parameters()} == {"meta"}


def test_frozen_backbone_leaves_the_norms_of_gates_alone():
    model = se_inject.freeze_backbone(se_inject.apply(network(), gate="cbam")).train()
    norms = {name: m.training for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert norms == {name: ".se." in f".{name}." for name in norms} and any(norms.values()) and not all(norms.values())
    assert all(p.requires_grad == (".se." in name) for name, p in model.named_parameters())


def test_gates_are_left_alone_by_a_later_apply():
    class Deep(nn.Module):
        """A gate that holds a residual block itself."""

        def __init__(self, channels):
            super().__init__()
            self.inner = Residual(channels)

        def forward(self, x):
            return x * torch.sigmoid(self.inner(x))

    model = se_inject.apply(network(), gate=Deep, where="1")
    se_inject.apply(model)
    assert [name for name, _ in se_inject.gates(model)] == ["1.se", "2.se", "3.se"]


def test_gate_that_holds_a_gate_counts_once():
    model = se_inject.apply(network(), gate=lambda channels: se_inject.SqueezeExcitation(channels, init="standard"))
    assert [name for name, _ in se_inject.gates(model)] == ["1.se", "2.se", "3.se"]
    parameters = se_inject.gate_parameters(model)
    assert len(parameters) == len(set(parameters))


def test_gates_in_a_traced_graph():
    plain = network().eval()
    traced = torch.fx.symbolic_trace(plain)
    code = traced.code
    se_inject.apply(traced, gate="eca")
    assert_same(traced(X), plain(X))
    assert [name for name, _ in se_inject.gates(traced)] == ["1.se", "2.se", "3.se"]
    with pytest.raises(se_inject.errors.AllGatedError):
        se_inject.apply(traced)
    assert se_inject.remove(traced).code == code


def test_blend_lives_where_the_block_does():
    with torch.device("meta"):
        model = network()
    gates = [gate for _, gate in se_inject.gates(se_inject.apply(model, gate=lambda channels: nn.Sigmoid()))]
    assert gates and all(gate.alpha.is_meta for gate in gates)
    model = se_inject.apply(network().double(), gate=lambda channels: nn.Sigmoid())
    assert all(gate.alpha.dtype == torch.float64 for _, gate in se_inject.gates(model))
