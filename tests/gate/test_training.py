"""In training, a gate keeps next to nothing, and its gradients are those of its formula."""

import copy
from functools import partial

import pytest
import timm
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
from se_inject.gate import pointwise
from se_inject.gate.marks import mark_result_kept


@pytest.fixture(scope="module", autouse=True)
def _small_convolutions_too():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pointwise, "_PRODUCTS", 0)  # which else are made again
        yield


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
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[rank]
        ways = {} if kind == "1x1 convolution" else {"padding": 1, "groups": 2}
        if kind == "strided convolution":
            ways = {"padding": 2, "stride": 2, "dilation": 2, "padding_mode": "circular"}
        size = 1 if kind == "1x1 convolution" else 3
        self.conv = conv(channels, channels, size, **ways, bias=kind != "convolution without bias")
        if kind == "convolution with a frozen bias":
            self.conv.bias.requires_grad_(False)
        if kind == "convolution with a frozen weight":
            self.conv.weight.requires_grad_(False)
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
        if self.kind == "pools":
            y, rank = self.norm(x), x.dim() - 2
            largest = getattr(nn.functional, f"max_pool{rank}d")(y[:, :6], 3, 2, 1)
            mean = getattr(nn.functional, f"avg_pool{rank}d")(y[:, 6:8], 3, 2, 1)
            return torch.cat([torch.cat([largest, mean], 1), largest.relu(), mean.relu()], -x.dim() + 1)
        if "convolution" in self.kind:
            return self.conv(x)
        if self.kind == "relu":
            return self.conv(x).relu_()
        return self.norm(x)


OF_CONVOLUTIONS = [
    *("convolution", "1x1 convolution", "strided convolution", "convolution without bias"),
    *("convolution with a frozen bias", "convolution with a frozen weight"),
]
OF_NORMS = ["train", "eval", "frozen", "frozen bias", "without weights", "without statistics"]
KINDS = [*OF_NORMS, *OF_CONVOLUTIONS, "relu", "concat", "pools", "sum"]


def gradients(gate, before, x, apply, second):
    y = apply(gate, before(x))
    wanted = [x, *(p for p in (*before.parameters(), *gate.parameters()) if p.requires_grad)]
    first = torch.autograd.grad((y * y.detach().cos() * y).sum(), wanted, create_graph=second, allow_unused=True)
    if not second:
        return first
    first = [g for g in first if g is not None]
    return torch.autograd.grad(sum((g * g).sum() for g in first), wanted, allow_unused=True)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from([1, 2, 3]),
    st.sampled_from(["identity", "standard"]),
    st.sampled_from(["keep", "recompute", "result"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_gradients_are_those_of_the_formula(kind, rank, init, memory, channels_last, frozen_gate, second):
    torch.manual_seed(0)
    before = Before(kind, 16, rank).double()
    gate = SqueezeExcitation(16, 2, init=init, memory="recompute" if memory == "recompute" else "keep").double()
    if memory == "result":
        mark_result_kept(gate)
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


WITHOUT_MORE = {
    "resnet50": torchvision.models.resnet50,
    "mobilenet_v2": torchvision.models.mobilenet_v2,
    "inception_v3": partial(torchvision.models.inception_v3, aux_logits=False, init_weights=False),
    "convnext_tiny": torchvision.models.convnext_tiny,
    "timm's convnext": partial(timm.create_model, "convnext_atto"),
}


@needs_data
@pytest.mark.parametrize("name", WITHOUT_MORE)
def test_a_gated_network_keeps_what_the_plain_one_keeps(name):
    plain = WITHOUT_MORE[name]()
    x = torch.randn(2, 3, 128, 128)
    assert kept(se_inject.apply(copy.deepcopy(plain)), x) <= 1.01 * kept(plain, x)  # of small images, gates are more


@needs_data
def test_after_convolutions_a_gated_network_keeps_no_more_if_it_recomputes():
    plain = timm.create_model("inception_resnet_v2")
    x = torch.randn(2, 3, 128, 128)
    base, keeps, recomputes = (
        kept(model, x)
        for model in (
            plain,
            se_inject.apply(copy.deepcopy(plain)),
            se_inject.apply(copy.deepcopy(plain), memory="recompute"),
        )
    )
    assert keeps > 1.2 * base and recomputes <= 1.02 * base


class Scaled(nn.Module):
    """A branch that a weight scales, in ways that change it in place or not."""

    def __init__(self, way):
        super().__init__()
        self.conv, self.gamma = nn.Conv2d(8, 8, 3, padding=1), nn.Parameter(torch.rand(8))
        self.drop = nn.Dropout(0.5, inplace=True) if way == "dropout in place" else nn.Identity()
        self.way = way

    def forward(self, x):
        branch = self.conv(x)
        if self.way == "in place":
            branch *= self.gamma.view(1, -1, 1, 1)
        elif self.way == "method in place":
            branch.mul_(self.gamma[None, :, None, None])
        elif self.gamma is not None:
            branch = branch * self.gamma.view(1, -1, 1, 1)
        branch = self.drop(branch)
        if self.way == "dropout in place":
            return x + branch
        branch += x
        return branch


@pytest.mark.parametrize("way", ["new", "in place", "method in place", "dropout in place", "optional"])
@pytest.mark.parametrize("memory", ["keep", "recompute"])
def test_a_branch_that_is_scaled_or_changed_in_place_has_its_gradients(way, memory):
    torch.manual_seed(0)
    model = se_inject.apply(Scaled(way), memory=memory).double()
    nn.init.normal_(model.se.fc2.weight)
    if way in ("optional", "dropout in place"):
        model.gamma = None
    x = torch.randn(2, 8, 5, 5, dtype=torch.double)
    torch.manual_seed(0)
    ours = of_parameters(model, nn.Module.__call__, x)
    torch.manual_seed(0)
    model.se.fc1.register_forward_hook(lambda *_: None)  # then autograd's own way is taken
    for a, b in zip(ours, of_parameters(model, nn.Module.__call__, x), strict=True):
        torch.testing.assert_close(a, b)


def test_a_hook_may_change_the_result_in_place():
    model = se_inject.apply(Scaled("new"))
    model.se.register_forward_hook(lambda gate, args, result: result.mul_(2))
    assert all(g is not None for g in of_parameters(model, nn.Module.__call__, torch.randn(2, 8, 5, 5)))


@pytest.mark.parametrize("name", ["timm's convnext", "inception_v3"])
def test_gradients_of_whole_networks(name):
    torch.manual_seed(0)
    plain = WITHOUT_MORE[name]() if name in WITHOUT_MORE else timm.create_model(name)
    model = se_inject.apply(plain, memory="recompute").double()
    for parameter in (p for _, gate in se_inject.gates(model) for p in gate.fc2.parameters()):
        nn.init.normal_(parameter, std=0.1)
    found = []
    for _ in range(2):
        model.zero_grad()
        torch.manual_seed(0)  # of dropout and stochastic depth
        model(torch.ones(2, 3, 128, 128, dtype=torch.double).cumsum(2).sin()).square().sum().backward()
        found.append([p.grad for p in model.parameters()])
        for _, gate in se_inject.gates(model):
            gate.fc1.register_forward_hook(lambda *_: None)  # then autograd's own way is taken
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-8 * float(expected.abs().max()) + 1e-12)


def gated(before=nn.BatchNorm2d):
    torch.manual_seed(0)
    gate = SqueezeExcitation(16, memory="recompute")
    model = nn.Sequential(nn.Conv2d(3, 16, 3), before(16), gate, nn.ReLU(), nn.Conv2d(16, 4, 3))
    nn.init.normal_(model[2].fc2.weight)
    return model


BEFORE = {"norm": nn.BatchNorm2d, "convolution": partial(nn.Conv2d, out_channels=16, kernel_size=1)}


X = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))


def of_parameters(model, run, x=X):
    model.zero_grad()
    run(model, x).square().sum().backward()
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
@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
def test_every_way_to_train_has_the_same_gradients(way, before):
    model = gated(before)
    for ours, expected in zip(of_parameters(model, WAYS[way]), of_parameters(model, nn.Module.__call__), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("keeps", ["a copy elsewhere", "a number", "half"])
@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
def test_hooks_on_what_autograd_keeps_are_used_once(keeps, before):
    model, store = gated(before), {}

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
@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
def test_transforms_of_functions(before):
    model = gated(before).double().eval()
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


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("mode", [True, False])
def test_outputs_are_the_same_with_and_without_gradients(mode, threads, request):
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(threads)
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


@pytest.mark.parametrize("make", [nn.BatchNorm2d, partial(nn.Conv2d, out_channels=16, kernel_size=3)])
def test_a_feature_that_was_changed_and_a_bias_that_changes_later(make):
    x = torch.randn(2, 16, 4, 4, dtype=torch.double)
    found = []
    for apply in (SqueezeExcitation.__call__, formula):
        torch.manual_seed(0)
        norm, gate = make(16).double(), SqueezeExcitation(16, memory="recompute").double()
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


def both(run):
    """What a function makes of the gate, and of the formula."""
    found = []
    for apply in (SqueezeExcitation.__call__, formula):
        torch.manual_seed(0)
        gate = SqueezeExcitation(16, memory="recompute").double()
        nn.init.normal_(gate.fc2.weight)
        found.append(run(gate, partial(apply, gate), torch.randn(3, 16, 4, 4, dtype=torch.double)))
    return found


def assert_same(run):
    for ours, expected in zip(*both(run), strict=True):
        torch.testing.assert_close(ours, expected, equal_nan=True)


def of_gate(gate, y):
    return torch.autograd.grad(y.pow(3).sum(), list(gate.parameters()))


def test_statistics_that_change_between_forward_and_backward():
    def run(gate, apply, x):
        norm = nn.BatchNorm2d(16).double().eval()
        y = apply(norm(x))
        norm.train()(x)
        return of_gate(gate, y)

    assert_same(run)


def of_convolution(gate, apply, x, use=lambda y: None):
    """The gradients after a convolution whose output is used otherwise, too."""
    conv = BEFORE["convolution"](16).double()
    x.requires_grad_()

    def block(x):
        y = conv(x)
        used = use(y)
        result = apply(y)
        return result if used is None else result * used

    loss = block(x).pow(3).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    return [tensor.grad for tensor in (x, *conv.parameters(), *gate.parameters())]


def test_a_convolutions_input_that_was_changed():
    def run(gate, apply, x):
        conv, x = BEFORE["convolution"](16).double(), x.requires_grad_() * 2
        y = conv(x)
        x.mul_(2)
        return [apply(y)]  # a backward would fail, in the plain network, too

    assert_same(run)


def test_a_convolutions_bias_of_another_type():
    def run(gate, apply, x):
        bias = torch.ones(16, dtype=torch.float32, requires_grad=True)
        y = nn.functional.conv2d(x.requires_grad_(), torch.ones(16, 16, 1, 1).double().requires_grad_(), bias.double())
        return torch.autograd.grad(apply(y).pow(3).sum(), [x, bias])

    assert_same(run)


def test_what_is_kept_of_a_convolution_is_not_asked_for_before_backward():
    gate, asked = SqueezeExcitation(16, memory="recompute"), []
    with saved_tensors_hooks(lambda tensor: tensor, lambda tensor: asked.append(tensor) or tensor):
        output = gate(BEFORE["convolution"](16)(torch.randn(2, 16, 4, 4, requires_grad=True)))
        assert not asked
        output.sum().backward()
    assert asked


def test_backward_twice_after_a_convolution():
    assert_same(of_convolution)


def test_what_a_convolution_made_is_used_elsewhere():
    assert_same(partial(of_convolution, use=lambda y: y.cos()))


@pytest.mark.parametrize("when", ["before", "after", "before and held", "after and held"])
def test_the_gradient_of_what_a_convolution_made(when):
    def run(gate, apply, x):
        conv, seen = BEFORE["convolution"](16).double(), []

        def block(x):
            y = conv(x)
            if "before" in when:
                y.register_hook(seen.append)
            result = apply(y)
            if "after" in when:
                y.register_hook(seen.append)
            return result, y if "held" in when else None

        result, _held = block(x)
        result.pow(3).sum().backward()
        return [*seen, *(p.grad for p in conv.parameters())]

    assert_same(run)


def test_the_gradient_of_what_a_convolution_made_is_asked_for():
    def run(gate, apply, x):
        conv = BEFORE["convolution"](16).double()
        y = conv(x)
        return torch.autograd.grad(apply(y).pow(3).sum(), [y, conv.weight])

    assert_same(run)


@pytest.mark.parametrize("make", [nn.BatchNorm2d, partial(nn.Conv2d, out_channels=16, kernel_size=1)])
def test_a_bias_that_changes_before_a_second_derivative(make):
    def run(gate, apply, x):
        layer = make(16).double()
        y = apply(layer(x))
        with torch.no_grad():
            layer.bias += 1
        first = torch.autograd.grad(y.pow(3).sum(), list(gate.parameters()), create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), list(gate.parameters()))

    assert_same(run)


@pytest.mark.parametrize("pool", ["max_pool2d", "avg_pool2d"])
def test_a_pooled_part_that_was_changed(pool):
    def run(gate, apply, x):
        x.requires_grad_()
        pooled = getattr(nn.functional, pool)(x[:, :8], 3, 1, 1)
        with torch.no_grad():
            pooled.clamp_(max=0.1)
        return of_gate(gate, apply(torch.cat([pooled, x[:, 8:].relu()], 1)))

    assert_same(run)


def test_a_pool_over_channels():
    def run(gate, apply, x):
        pooled = nn.functional.max_pool2d(x.flatten(2).requires_grad_(), (1, 2))
        return of_gate(gate, apply(torch.cat([pooled, pooled.relu()], 2)))

    assert_same(run)


@pytest.mark.parametrize("keeps", [True, False])
def test_backward_under_autocast_is_exact(keeps):
    def run(gate, apply, x):
        if keeps:
            mark_result_kept(gate)
        float_x = x.float().requires_grad_()
        feature = float_x * 1.5 if keeps else nn.functional.batch_norm(float_x, None, None, training=True)
        gate.float()
        y = apply(feature)
        with torch.autocast("cpu", torch.bfloat16, enabled=apply.func is SqueezeExcitation.__call__):
            return of_gate(gate, y)

    for ours, expected in zip(*both(run), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_global_backward_hooks_run():
    seen = []
    handle = nn.modules.module.register_module_full_backward_hook(lambda module, *_: seen.append(type(module)))
    try:
        model = gated()
        mark_result_kept(model[2])
        model(X.clone().requires_grad_()).square().sum().backward()
    finally:
        handle.remove()
    assert SqueezeExcitation in seen and seen.count(nn.Conv2d) == 4


def test_a_saturated_gate_is_derived_twice():
    def run(gate, apply, x):
        mark_result_kept(gate)
        gate.float()
        with torch.no_grad():
            gate.fc2.bias[0] = -120
        y = apply(x.float().requires_grad_() * 1.5)
        first = torch.autograd.grad(y.pow(3).sum(), list(gate.parameters()), create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), list(gate.parameters()))

    for ours, expected in zip(*both(run), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("make", [nn.BatchNorm2d, partial(nn.Conv2d, out_channels=16, kernel_size=1)])
@pytest.mark.parametrize("bias", [True, False])
def test_an_infinite_feature_stays_in_its_sample(make, bias):
    def run(gate, apply, x):
        layer = make(16).double().eval()
        layer.bias.requires_grad_(False)
        if not bias and isinstance(layer, nn.Conv2d):
            layer.bias = None
        with torch.no_grad():
            x[0, 2, 0, 0] = float("inf")
        x.requires_grad_()
        return [torch.autograd.grad(apply(layer(x))[1].square().sum(), x)[0][1]]

    assert_same(run)


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
def test_batches_of_gradients(before):
    def run(gate, apply, x):
        y = apply(before(16).double()(x))
        basis = torch.eye(y.numel(), dtype=torch.double)[:5].view(5, *y.shape)
        return torch.autograd.grad(y, list(gate.parameters()), basis, is_grads_batched=True)

    assert_same(run)


def test_another_formula_or_layer_is_taken_as_it_is():
    class Hard(SqueezeExcitation):
        def _excite(self, squeezed):
            return nn.functional.hardsigmoid(self.fc2(torch.relu(self.fc1(squeezed))))

    gates = [Hard(16), SqueezeExcitation(16)]
    gates[1].fc1 = nn.Conv2d(16, 8, 1, groups=4)
    for gate in gates:
        nn.init.normal_(gate.fc2.weight)
        feature = nn.BatchNorm2d(16)(torch.randn(2, 16, 4, 4))
        output = gate(feature)
        with torch.no_grad():
            assert torch.equal(output, gate(feature.detach()))


def test_another_formula_and_hooks_of_all_modules_are_compiled_as_they_are():
    class Hard(SqueezeExcitation):
        def _excite(self, squeezed):
            return nn.functional.hardsigmoid(self.fc2(torch.relu(self.fc1(squeezed))))

    gate, plain, x, called = Hard(16), SqueezeExcitation(16), torch.randn(2, 16, 4, 4), []
    nn.init.normal_(gate.fc2.weight)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(gate, backend="eager")(x), gate(x))
        handle = nn.modules.module.register_module_forward_hook(lambda module, *_: called.append(type(module)))
        try:
            torch.compile(lambda x: plain(x), backend="eager")(x)
        finally:
            handle.remove()
    assert called.count(nn.Conv2d) == 2


class ScalesInPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(8, 1, 1))

    def forward(self, x):
        x *= self.gamma
        return x


class MaybeScales(ScalesInPlace):
    on = True

    def forward(self, x):
        return x * self.gamma if self.on else x


@pytest.mark.parametrize(("scale", "on"), [(ScalesInPlace, True), (MaybeScales, True), (MaybeScales, False)])
def test_a_module_that_scales_may_change_its_input(scale, on):
    class ScaledByModule(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.scale = nn.Conv2d(8, 8, 3, padding=1), scale()

        def forward(self, x):
            y = self.scale(self.conv(x))
            y += x
            return y

    model = ScaledByModule()
    model.scale.on = on
    model = se_inject.apply(model)
    model(torch.randn(2, 8, 5, 5)).square().sum().backward()
    assert all(p.grad is not None for p in model.se.parameters())
