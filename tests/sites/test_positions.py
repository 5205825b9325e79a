"""The paper's four places of a residual block's gate, and the kinds of site that are for the asking."""

import copy

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F  # noqa: N812

import se_inject

from ..support.blocks import Inception, Residual, block, conv, network
from ..support.families import vgg_features
from ..support.promises import assert_same, check_promises, exact_state


class Bottleneck(nn.Module):
    """With a projection, and an activation after the add."""

    def __init__(self, width=8, out=16):
        super().__init__()
        self.conv1, self.conv2 = conv(width), conv(width, out)
        self.norm = nn.BatchNorm2d(out)
        self.project = nn.Conv2d(width, out, 1)
        self.act = nn.ReLU()

    def forward(self, x):
        y = self.norm(self.conv2(F.relu(self.conv1(x))))
        return self.act(y + self.project(x))


def by_hand(module, gate, position, x):
    """The block with its gate, written down."""

    def branch(x):
        return module.norm(module.conv2(F.relu(module.conv1(x))))

    if position == "standard":
        return F.relu(gate(branch(x)) + module.project(x))
    if position == "pre":
        return F.relu(branch(gate(x)) + module.project(x))
    if position == "post":
        return gate(F.relu(branch(x) + module.project(x)))
    return F.relu(branch(x) + gate(module.project(x)))


@pytest.mark.parametrize("position", ["standard", "pre", "post", "identity"])
def test_positions(position):
    module, x = Bottleneck().eval(), torch.randn(2, 8, 6, 7)
    plain, before = copy.deepcopy(module), exact_state(module)
    [site] = se_inject.find_sites(module, position=position)
    assert site.channels == (8 if position == "pre" else 16)
    se_inject.apply(module, position=position)
    assert_same(module(x), plain(x))
    gate = module.se
    for parameter in gate.parameters():
        nn.init.normal_(parameter)
    assert torch.allclose(module(x), by_hand(plain, gate, position, x), atol=1e-6)
    assert_same(copy.deepcopy(module)(x), module(x))
    with pytest.raises(se_inject.errors.AllGatedError):
        se_inject.apply(module)
    assert exact_state(se_inject.remove(module)) == before


@pytest.mark.parametrize("position", ["pre", "post", "identity"])
@pytest.mark.parametrize(
    ("build", "sites"),
    [
        (lambda: torchvision.models.resnet18(), 8),
        (lambda: timm.create_model("resnetv2_18"), 8),
        (lambda: timm.create_model("convnext_atto", depths=(1, 1, 1, 1)), 4),
    ],
)
def test_positions_keep_the_promises(build, sites, position):
    check_promises(build(), lambda: (torch.randn(2, 3, 64, 64),), sites, position=position)


def test_positions_in_a_traced_graph():
    plain = network().eval()
    for position in ("pre", "post", "identity"):
        gated, traced = copy.deepcopy(plain), torch.fx.symbolic_trace(plain)
        for model in (gated, traced):
            se_inject.apply(model, position=position, kinds=["residual"])
            for i, (_, gate) in enumerate(se_inject.gates(model)):
                nn.init.constant_(gate.fc2.bias, i + 1.0)
        x = torch.randn(2, 3, 8, 8)
        assert torch.allclose(gated(x), traced(x), atol=1e-6)


def test_position_is_for_residual_blocks():
    with pytest.raises(se_inject.errors.NoBlockError, match="for residual blocks"):
        se_inject.apply(Inception(), position="pre")
    with pytest.raises(ValueError, match="position must be one of"):
        se_inject.apply(Residual(), position="before")


def test_branch_with_several_inputs_has_no_single_place_before_it():
    def forward(self, x):
        a, b = F.relu(x), -x
        return a + b + self.conv(a) * self.other(b)

    module = block(forward, conv=conv(), other=conv())
    assert len(se_inject.find_sites(module)) == 1
    [(_, reason)] = se_inject.find_sites(module, position="pre").skipped
    assert "its branch reads 2 values" in reason


def test_branch_that_overwrites_its_input_is_refused_before_it():
    module = block(lambda self, x: x + self.body(x), body=nn.Sequential(nn.ReLU(inplace=True), conv()))
    assert len(se_inject.find_sites(module)) == 1
    [(_, reason)] = se_inject.find_sites(module, position="pre").skipped
    assert "in place" in reason


def test_plain_gates_where_a_forward_runs_the_layers_of_a_sequential():
    def forward(self, x):
        for layer in self.features:
            x = layer(x)
        return x

    features = nn.Sequential(conv(), nn.ReLU(), conv(), nn.ReLU(), conv(16, 32), nn.GLU(1))
    model = se_inject.apply(block(forward, features=features), kinds=["plain"])
    assert [name for name, _ in se_inject.gates(model)] == ["features.1.se", "features.3.se"]
    assert model(torch.randn(2, 16, 5, 5)).shape == (2, 16, 5, 5)


def test_identity_that_is_overwritten_is_refused():
    module = block(lambda self, x: x.mul(1).add_(self.conv(x)), conv=conv())
    assert len(se_inject.find_sites(module, position="identity")) == 1
    module = block(lambda self, x: x.add_(self.conv(x)), conv=conv())
    [(_, reason)] = se_inject.find_sites(module, position="identity").skipped
    assert "in place" in reason


@pytest.mark.parametrize(
    ("build", "kind", "sites"),
    [
        (lambda: vgg_features(norm=True), "plain", 8),
        (lambda: timm.create_model("vgg11_bn", mlp_ratio=0.01).features, "plain", 8),
        (lambda: torchvision.models.squeezenet1_1(), "plain", 2),
        (lambda: torchvision.models.mobilenet_v2(), "noskip", 7),
        (lambda: timm.create_model("mobilenetv2_100"), "noskip", 6),
    ],
)
def test_other_kinds_keep_the_promises(build, kind, sites):
    model = build()
    assert not any(site.kind == kind for site in se_inject.find_sites(model))
    check_promises(model, lambda: (torch.randn(2, 3, 64, 64),), sites, kinds=[kind])


@pytest.mark.parametrize(
    "build",
    [
        lambda: torchvision.models.DenseNet(32, (2, 3, 2, 1)),
        lambda: timm.create_model("densenet121", block_config=(2, 3, 2, 1)),
    ],
)
def test_dense_blocks(build):
    model, x = build(), torch.randn(2, 3, 64, 96)
    check_promises(model, lambda: (x,), 8, kinds=["dense"], example_inputs=x)
    assert {site.channels for site in se_inject.find_sites(model, kinds=["dense"], example_inputs=x)} == {32}


def test_plain_gates_go_on_activations_and_leave_the_sequence_as_it_is():
    model = nn.ModuleDict({"features": vgg_features()})
    length, plain = len(model.features), copy.deepcopy(model).eval()
    se_inject.apply(model, kinds=["plain"], where="features.[14]")
    assert [name for name, _ in se_inject.gates(model)] == ["features.1.se", "features.4.se"]
    assert len(model.features) == length and isinstance(model.features[1], nn.ReLU)
    x = torch.randn(2, 3, 64, 64)
    nn.init.constant_(model.features[1].se.fc2.bias, 3.0)
    hidden = plain.features[:2](x)
    assert torch.allclose(model.eval().features[:2](x), hidden * 2 * torch.tensor(3.0).sigmoid(), atol=1e-5)


def test_shared_activation_takes_no_plain_gate():
    act = nn.ReLU()
    model = nn.Sequential(conv(3, 8), act, conv(8), act)
    found = se_inject.find_sites(model, kinds=["plain"])
    assert len(found) == 0 and "shared" in found.skipped[0].reason


def test_noskip_gates_the_output_before_stochastic_depth():
    model = timm.create_model("mobilenetv2_100")
    noskip = se_inject.find_sites(model, kinds=["residual", "noskip"])
    assert {site.node for site in noskip if site.kind == "noskip"} == {"bn3"}


def test_other_kinds_do_not_rename_the_papers_gates():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = conv(8), conv(8, 4)

        def forward(self, x):
            x = F.relu(x + self.a(x))
            return torch.cat([x, self.b(x)], 1)

    model = se_inject.apply(Both())
    assert [name for name, _ in se_inject.gates(model)] == ["se"]
    se_inject.apply(model, kinds=["dense"])
    assert [name for name, _ in se_inject.gates(model)] == ["se", "se_dense"]
    fresh = se_inject.apply(Both(), kinds=["residual", "dense"])
    assert [name for name, _ in se_inject.gates(fresh)] == ["se", "se_dense"]


def test_helpers_of_gates_are_no_plain_sites():
    model = timm.create_model("seresnet18")
    plain = se_inject.find_sites(model, kinds=["plain"])
    assert [(site.path, site.node) for site in plain] == [("", "act1")]


def test_reason_for_a_handed_in_identity_in_a_traced_graph_is_the_true_one():
    traced = torch.fx.symbolic_trace(block(lambda self, x, skip: self.conv(x) + skip, conv=conv()))
    [(_, reason)] = se_inject.find_sites(traced).skipped
    assert "no common ancestor" in reason


class TwoAdds(nn.Module):
    """The first add takes a gate in any position; before the second, two values are read."""

    def __init__(self):
        super().__init__()
        self.f, self.g = conv(16), nn.Conv2d(32, 16, 3, padding=1)

    def forward(self, x):
        y = x + self.f(x)
        return y + self.g(torch.cat([x, y], 1))


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("positions", [("standard", "pre"), ("pre", "standard")])
def test_another_position_replaces_no_gate(positions, traced):
    model, x = nn.Sequential(TwoAdds()), torch.randn(2, 16, 6, 6)
    model = torch.fx.symbolic_trace(model) if traced else model
    expected = model(x)
    gates = dict(se_inject.gates(se_inject.apply(model, position=positions[0])))
    with pytest.raises(se_inject.errors.AllGatedError):
        se_inject.apply(model, position=positions[1])
    assert dict(se_inject.gates(model)) == gates
    assert_same(model(x), expected)


@pytest.mark.parametrize("traced", [False, True])
def test_a_gate_may_follow_a_gate(traced):
    model, x = network(), torch.randn(2, 3, 6, 6)
    model = torch.fx.symbolic_trace(model) if traced else model
    expected = model(x)
    se_inject.apply(model, position="post", where="1")
    se_inject.apply(model, position="pre", where="2")
    assert_same(model(x), expected)
    assert [name for name, _ in se_inject.gates(model)] == ["1.se", "2.se"]
    assert_same(se_inject.remove(model)(x), expected)


class ReluFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.relu = conv(16), nn.ReLU(inplace=True)

    def forward(self, x):
        return self.conv(self.relu(x))


class ReluFunctionFirst(ReluFirst):
    def forward(self, x):
        return self.conv(F.relu(x, True))


class ReluLast(ReluFirst):
    def forward(self, x):
        return self.relu(self.conv(x))


def test_no_gate_before_a_branch_that_changes_its_input():
    for branch in (ReluFirst(), ReluFunctionFirst()):
        module = block(lambda self, x: x + self.branch(x), branch=branch)
        [skipped] = se_inject.find_sites(module, position="pre").skipped
        assert "changed in place" in skipped.reason
    module = block(lambda self, x: x + self.branch(x), branch=ReluLast())
    plain, x = copy.deepcopy(module), torch.randn(2, 16, 6, 6)
    assert_same(se_inject.apply(module, position="pre")(x), plain(x))
