"""In training, a gate keeps next to nothing, and its gradients are those of its formula."""

import copy
from functools import partial

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call, grad, jvp
from torch.utils.checkpoint import checkpoint

import se_inject
from se_inject import SqueezeExcitation

needs_data = pytest.mark.skipif(
    not hasattr(torch._C._autograd.SavedTensor, "data"), reason="this torch does not tell what autograd keeps"
)


def formula(gate, x):
    """The paper's, in operations that autograd knows."""
    z = torch.relu(nn.functional.linear(x.flatten(2).mean(2), gate.fc1.weight.flatten(1), gate.fc1.bias))
    s = torch.sigmoid(nn.functional.linear(z, gate.fc2.weight.flatten(1), gate.fc2.bias))
    return x * (2 * s if gate.init == "identity" else s).view(*s.shape, *[1] * (x.dim() - 2))


class Before(nn.Module):
    """What may come before a gate."""

    def __init__(self, kind, channels, rank):
        super().__init__()
        norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[rank]
        self.kind = kind
        self.norm = norm(channels, affine=kind != "without weights", track_running_stats=kind != "without statistics")
        for tensor in (*self.norm.parameters(), *filter(torch.is_floating_point, self.norm.buffers())):
            nn.init.uniform_(tensor, 0.5, 2)
        if kind == "frozen":
            self.norm.eval().requires_grad_(False)
        if kind == "frozen bias":
            self.norm.bias.requires_grad_(False)
        if kind == "eval":
            self.norm.eval()

    def forward(self, x):
        if self.kind == "sum":
            return self.norm(x) + x
        if self.kind == "concat":
            half = x.shape[1] // 2
            y = self.norm(x)
            return torch.cat([y[:, :half].relu(), (y * y)[:, half:].relu_()], 1)
        return self.norm(x)


KINDS = ["train", "eval", "frozen", "frozen bias", "without weights", "without statistics", "concat", "sum"]


def gradients(gate, before, x, apply, second):
    y = apply(gate, before(x))
    wanted = [x, *(p for p in (*before.parameters(), *gate.parameters()) if p.requires_grad)]
    first = torch.autograd.grad((y * y.detach().cos() * y).sum(), wanted, create_graph=second)
    if not second:
        return first
    return torch.autograd.grad(sum((g * g).sum() for g in first), wanted, allow_unused=True)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(KINDS),
    st.sampled_from([1, 2, 3]),
    st.sampled_from(["identity", "standard"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_gradients_are_those_of_the_formula(kind, rank, init, channels_last, frozen_gate, second):
    torch.manual_seed(0)
    before = Before(kind, 16, rank).double()
    gate = SqueezeExcitation(16, 2, init=init).double()
    nn.init.normal_(gate.fc2.weight)
    gate.requires_grad_(not frozen_gate)
    x = torch.randn(3, 16, *[5, 4, 3][:rank], dtype=torch.double)
    if channels_last and rank == 2:
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    ours = gradients(gate, before, x, SqueezeExcitation.__call__, second)
    for a, b in zip(ours, gradients(gate, before, x, formula, second), strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, rtol=1e-9, atol=1e-11)


def kept(model, x):
    """The bytes of activations that a forward keeps for backward."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    sizes = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address is used twice
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(x)
    assert output.requires_grad
    return sum(size for address, (size, _) in sizes.items() if address not in parameters)


@needs_data
@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d", "mobilenet_v2", "googlenet"])
def test_a_gated_network_keeps_what_the_plain_one_keeps(name):
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    plain = getattr(torchvision.models, name)(**options)
    x = torch.randn(2, 3, 96, 96)
    assert kept(se_inject.apply(copy.deepcopy(plain)), x) <= 1.01 * kept(plain, x)  # of small images, gates are more


def gated(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), SqueezeExcitation(16), nn.ReLU(), nn.Conv2d(16, 4, 3)
    )
    nn.init.normal_(model[2].fc2.weight)
    return model


X = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))


def of_parameters(model, run):
    model.zero_grad()
    run(model, X).square().sum().backward()
    return [p.grad.clone() for p in model.parameters()]


WAYS = {
    "activation checkpointing": lambda m, x: checkpoint(m, x, use_reentrant=False),
    "reentrant checkpointing": lambda m, x: checkpoint(m, x.clone().requires_grad_(), use_reentrant=True),
    "compiled": lambda m, x: torch.compile(m, backend="aot_eager", fullgraph=True)(x),
    "scripted": lambda m, x: torch.jit.script(m)(x),
    "traced": lambda m, x: torch.jit.trace(m, x, check_trace=False)(x),
    "functional": lambda m, x: functional_call(m, dict(m.named_parameters()), (x,)),
}


@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning"
)  # of torch.jit
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_train_has_the_same_gradients(way):
    model = gated()
    for ours, expected in zip(of_parameters(model, WAYS[way]), of_parameters(model, nn.Module.__call__), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("keeps", ["a copy elsewhere", "a number", "half"])
def test_hooks_on_what_autograd_keeps_are_used_once(keeps):
    model, store = gated(), {}

    def pack(tensor):
        if keeps == "half":
            return tensor.to(torch.bfloat16)
        store[len(store)] = tensor.clone()
        return len(store) - 1 if keeps == "a number" else (len(store) - 1,)

    def unpack(packed):
        if keeps == "half":
            return packed.to(torch.float32)
        return store.pop(packed if keeps == "a number" else packed[0])  # a second time fails

    with saved_tensors_hooks(pack, unpack):
        output = model(X)
    output.square().sum().backward()
    expected = of_parameters(copy.deepcopy(model), nn.Module.__call__)
    for parameter, other in zip(model.parameters(), expected, strict=True):
        limits = {"rtol": 0.2, "atol": 0.1} if keeps == "half" else {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(parameter.grad, other, **limits)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own use of torch.jit
def test_transforms_of_functions():
    model = gated().double().eval()
    x, parameters = X.double(), dict(model.named_parameters())

    def loss(parameters, x):
        return functional_call(model, parameters, (x[None],)).square().sum()

    per_sample = torch.func.vmap(partial(grad(loss), parameters))(x)
    for i in range(len(x)):
        model.zero_grad()
        loss(parameters, x[i]).backward()
        for name, parameter in parameters.items():
            torch.testing.assert_close(per_sample[name][i], parameter.grad)
    output, tangent = jvp(model, (x,), (torch.ones_like(x),))
    step = 1e-6
    torch.testing.assert_close((model(x + step) - model(x - step)) / (2 * step), tangent, rtol=1e-4, atol=1e-5)
    assert torch.allclose(output, model(x))


def test_autocast_and_mixed_precision():
    model = gated()
    with torch.autocast("cpu", torch.bfloat16):
        model(X).float().square().sum().backward()
    assert all(p.grad.dtype == p.dtype and p.grad.isfinite().all() for p in model.parameters())


def test_autocast_rounds_as_it_does_without_gradients():
    model, x = gated()[1:3].eval(), torch.randn(2, 16, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(x)
        with torch.no_grad():
            assert torch.equal(output, model(x))
    output.square().sum().backward()
    assert all(p.grad.dtype == p.dtype and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own use of torch.jit
def test_forward_mode():
    model, x = gated().double().eval(), X.double()
    with dual_level():
        tangent = unpack_dual(model(make_dual(x, torch.ones_like(x)))).tangent
    expected = jvp(model, (x,), (torch.ones_like(x),))[1]
    torch.testing.assert_close(tangent, expected)


def test_hooks_and_parametrizations_of_a_gates_layers_run():
    model, seen = gated(), []
    model[2].fc1.register_forward_hook(lambda *_: seen.append("fc1"))
    nn.utils.parametrizations.weight_norm(model[2].fc2)
    of_parameters(model, nn.Module.__call__)
    assert seen == ["fc1"] and all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("mode", [True, False])
def test_outputs_are_the_same_with_and_without_gradients(mode):
    for model in (gated(), gated().to(memory_format=torch.channels_last)):
        model[1].momentum = 0.0  # statistics stay, so that both runs have the same
        model.train(mode)
        output = model(X)
        with torch.no_grad():
            assert torch.equal(output, model(X))


def test_no_sample_and_one_position():
    for shape in ((0, 16, 4, 4), (2, 16, 1, 1)):
        x = torch.randn(shape, requires_grad=True)
        nn.Sequential(nn.BatchNorm2d(16), SqueezeExcitation(16))(x).sum().backward()
        assert x.grad.shape == x.shape


def test_a_feature_that_was_changed_and_a_bias_that_changes_later():
    x = torch.randn(2, 16, 4, 4, dtype=torch.double)
    found = []
    for apply in (SqueezeExcitation.__call__, formula):
        torch.manual_seed(0)
        norm, gate = nn.BatchNorm2d(16).double(), SqueezeExcitation(16).double()
        nn.init.normal_(gate.fc2.weight)
        changed = norm(x)
        with torch.no_grad():
            changed.clamp_(-1, 1)
        output = apply(gate, changed) * apply(gate, norm(x))
        with torch.no_grad():
            norm.bias += 1
        output.square().sum().backward()
        found.append([p.grad for p in (*norm.parameters(), *gate.parameters())])
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected)


def test_on_the_meta_device():
    model, x = gated().to("meta"), torch.empty(2, 3, 9, 9, device="meta")
    model(x).sum().backward()
    with torch.inference_mode():
        assert se_inject.optimize(model)(x).is_meta
