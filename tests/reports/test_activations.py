"""Mean gate values by class."""

import copy

import pytest
import torch
import torchvision
from torch import nn

import se_inject

from ..support.blocks import Residual, network
from ..support.promises import exact_state

IMAGES = torch.randn(10, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 2, 2, 0, 5, 2, 0, 2, 2, 2])
BATCHES = [(IMAGES[:4], LABELS[:4]), (IMAGES[4:5], LABELS[4:5].tolist()), [IMAGES[5:], LABELS[5:].int()]]


def trained(model, **options):
    """Gates as if trained, in a model in train mode."""
    torch.manual_seed(0)
    se_inject.apply(model, **options)
    for parameter in se_inject.gate_parameters(model):
        nn.init.normal_(parameter, std=0.5)
    return model.train()


def expected(model, scale):
    """The values of all images at once, as a hook on each gate sees its input and output."""
    seen, model = {}, copy.deepcopy(model).eval()
    for path, gate in se_inject.gates(model):
        gate.register_forward_hook(lambda gate, inputs, _, path=path: seen.__setitem__(path, scale(gate, inputs[0])))
    with torch.no_grad():
        model(IMAGES)
    return {path: torch.stack([v[label == LABELS].mean(0) for label in (0, 2, 5)]) for path, v in seen.items()}


def of_formula(gate, x):
    value = torch.sigmoid(gate.fc2(torch.relu(gate.fc1(x.mean((2, 3), keepdim=True))))).flatten(1)
    return 2 * value if gate.init == "identity" else value


@pytest.mark.parametrize("init", ["identity", "standard"])
def test_values_are_means_by_class(init):
    model = trained(network(), init=init)
    found = se_inject.activations(model, BATCHES)
    assert found.classes == ("0", "2", "5") and found.images == (3, 6, 1)
    assert set(found.measured.values()) == {"gate value"} and not found.unreached
    for path, values in expected(model, of_formula).items():
        torch.testing.assert_close(found.values[path], values)
        assert found.means(path) == pytest.approx(values.mean(1).tolist())
        assert found.difference(path) == pytest.approx(values.std(0, correction=0).mean().item(), rel=1e-3, abs=1e-6)


def test_other_gates_are_measured_by_what_they_multiply_by():
    model = trained(network(), gate=torchvision.ops.SqueezeExcitation, init="standard")
    found = se_inject.activations(model, BATCHES)
    assert set(found.measured.values()) == {"output / input"}
    for path, values in expected(model, lambda gate, x: gate._scale(x).flatten(1)).items():
        torch.testing.assert_close(found.values[path], values)


def test_a_hook_on_a_layer_of_a_gate_is_respected():
    model = trained(network())
    for _, gate in se_inject.gates(model):
        gate.fc2.register_forward_hook(lambda *_: torch.zeros(1))
    found = se_inject.activations(model, BATCHES)
    assert all(torch.allclose(values, torch.ones(())) for values in found.values.values())


def test_channels_that_are_zero_do_not_count():
    gate = nn.Sequential(se_inject.SqueezeExcitation(8))
    gate[0].register_forward_hook(lambda gate, inputs, output: inputs[0] * 3)
    gate[0].fc1.register_forward_hook(lambda *_: None)  # so that the formula does not tell
    x = torch.ones(2, 8, 4, 4)
    x[0, 1], x[:, 2] = 0, 0
    values = se_inject.activations(gate, [(x, [0, 0])]).values["0"]
    assert values[0, [0, 1]].tolist() == [3, 3] and values[0, 2].isnan()


class Noise(nn.Module):
    """Draws in eval mode, too."""

    def forward(self, x):
        return x + torch.rand_like(x)


def test_model_and_hooks_stay_as_they_were():
    shared = nn.Dropout()
    model = nn.Sequential(nn.Sequential(shared), trained(network()), nn.Sequential(nn.RReLU(), shared), Noise())
    model.eval()
    model[1].train()
    model[2].train()
    shared.eval()  # which its second parent does not change
    calls = []
    for _, gate in se_inject.gates(model):
        gate.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    wrong = [BATCHES[0], (torch.randn(2, 7, 16, 16), [0, 1])]
    before, stream = exact_state(model), torch.get_rng_state()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    se_inject.activations(model, BATCHES)
    with pytest.raises(se_inject.errors.InvalidArgumentError, match=r"batch 1 of loader: the model fails .*\(mat|size"):
        se_inject.activations(model, wrong)
    assert exact_state(model) == before and torch.equal(torch.get_rng_state(), stream)
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    assert calls == [False] * 3 * 4


@pytest.mark.filterwarnings("ignore")
def test_wrapped_and_compiled_models():
    model = trained(network())
    batch = [(IMAGES, LABELS)]
    plain = se_inject.activations(model, batch)
    compiled = torch.compile(copy.deepcopy(model).eval(), backend="eager")
    with torch.no_grad():
        compiled(IMAGES)
    for wrapped, prefix in ((nn.DataParallel(model), "module."), (compiled, "_orig_mod.")):
        found = se_inject.activations(wrapped, batch)
        assert all(torch.equal(found.values[prefix + path], values) for path, values in plain.values.items())


def test_half_precision_and_tuples_of_inputs():
    model = trained(network()).bfloat16()
    found = se_inject.activations(model, [((IMAGES.bfloat16(),), LABELS)])
    for path, values in expected(model.float(), of_formula).items():
        torch.testing.assert_close(found.values[path], values, atol=0.02, rtol=0)


class Sometimes(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.deep = Residual(3), Residual(3), False

    def forward(self, x):
        x = self.first(x)
        return self.second(x) if self.deep else x


def test_gates_that_are_not_called_are_named():
    model = Sometimes()
    model.deep = True
    trained(model)
    model.deep = False
    found = se_inject.activations(model, BATCHES)
    assert found.unreached == ("second.se",) and "not called: second.se" in repr(found)


def frames(model):
    """Runs images as frames of a clip, twice as many as there are labels."""
    return nn.Sequential(nn.Upsample(scale_factor=1), type("Double", (nn.Module,), {"forward": _twice})(), model)


def _twice(self, x):
    return torch.cat([x, x])


@pytest.mark.parametrize(
    ("model", "loader", "options", "error", "says"),
    [
        (network, BATCHES, {}, "NoGateError", "has no gates"),
        (lambda: "model", BATCHES, {}, "NotAModuleError", "torch.nn.Module"),
        (lambda: trained(network()), [], {}, "InvalidArgumentError", "no batch"),
        (lambda: trained(network()), 3, {}, "ArgumentTypeError", "batches of"),
        (lambda: trained(network()), [IMAGES], {}, "ArgumentTypeError", "batch 0 .* pair"),
        (lambda: trained(network()), [(IMAGES, LABELS.float())], {}, "InvalidArgumentError", "whole numbers"),
        (lambda: trained(network()), [(IMAGES, torch.eye(10).long())], {}, "InvalidArgumentError", r"shape \(N,\)"),
        (lambda: trained(network()), [(IMAGES, ["cat"] * 10)], {}, "ArgumentTypeError", "whole numbers"),
        (lambda: trained(network()), BATCHES, {"classes": ["cat"]}, "InvalidArgumentError", "from 0 to 0"),
        (lambda: trained(network()), [(IMAGES, LABELS[:3])], {}, "InvalidArgumentError", "10 features for 3 labels"),
        (lambda: frames(trained(network())), BATCHES, {}, "InvalidArgumentError", "8 features for 4 labels"),
        (lambda: se_inject.optimize(trained(network())), BATCHES, {}, "WrappedModelError", "optimize"),
    ],
)
def test_misuse_is_told(model, loader, options, error, says):
    with pytest.raises(getattr(se_inject.errors, error), match=says):
        se_inject.activations(model(), loader, **options)


@pytest.mark.filterwarnings("ignore")
def test_exported_gates_are_operations():
    model = se_inject.apply(torch.export.export(network().eval(), (IMAGES,))).module()
    with pytest.raises(se_inject.errors.NoGateError, match=r"torch\.export"):
        se_inject.activations(model, [(IMAGES, LABELS)])


def test_the_picture_has_a_line_for_each_class():
    found = se_inject.activations(trained(network()), BATCHES, classes=["cat", "dog", "owl", "elk", "fox", "hen"])
    axes = found.plot(["hen", "cat"]).axes
    assert [a.get_title() for a in axes] == list(found.values)
    assert [line.get_label() for line in axes[0].lines] == ["hen", "cat", "mean of all classes"]
    assert axes[1].lines[0].get_ydata() == pytest.approx(found.values["2.se"][2].numpy())
    assert len(found.plot(panels=2).axes) == 2
    with pytest.raises(se_inject.errors.InvalidArgumentError, match="'dog' was not seen"):
        found.plot(["dog"])
    with pytest.raises(se_inject.errors.InvalidArgumentError, match="panels must be >= 1"):
        found.plot(panels=0)


def test_table_shows_the_largest_classes():
    batches = [(IMAGES[:1].expand(n, -1, -1, -1), [n] * n) for n in range(1, 9)]
    found = se_inject.activations(trained(network()), batches)
    head = repr(found).splitlines()[0].split()
    assert head[-6:] == ["3", "4", "5", "6", "7", "8"] and "8 classes, 36 images" in repr(found)
    assert found._repr_html_().count("<tr>") == 4


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.called = se_inject.SqueezeExcitation(3)
        self.add_module("<img src=x>", se_inject.SqueezeExcitation(3))

    def forward(self, x):
        return self.called(x)


def test_names_are_escaped_in_a_notebook():
    found = se_inject.activations(Branches(), [(IMAGES, LABELS)])
    assert "&lt;img src=x&gt;" in found._repr_html_() and "<img" not in found._repr_html_()


class Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = se_inject.SqueezeExcitation(3)

    def forward(self, x):
        return self.gate(x=x)


@pytest.mark.parametrize("classes", [5, "ab", [0, 1, 2, 3, 4, 5]])
def test_classes_are_names(classes):
    with pytest.raises(se_inject.errors.ArgumentTypeError, match="classes must be a sequence of names"):
        se_inject.activations(trained(network()), BATCHES, classes=classes)


def test_a_gate_that_is_called_with_keywords_is_named():
    with pytest.raises(se_inject.errors.InvalidArgumentError, match="gate: is called with keywords"):
        se_inject.activations(Keywords(), BATCHES)
