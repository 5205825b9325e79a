"""A copy for inference has the outputs of the gated model, and leaves alone what it cannot prove."""

import copy
import io
import pickle
import shutil

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune

import se_inject
from se_inject import SqueezeExcitation, optimize, optimized_gates
from se_inject.errors import InferenceOnlyError, InvalidArgumentError, NoGateError, NotAModuleError, WrappedModelError

from .support.awake import awake
from .support.blocks import network
from .support.families import small_resnet

FORMATS = (torch.contiguous_format, torch.channels_last)


def assert_close(fast, model, x, limit=1e-5):
    with torch.inference_mode():
        ours, expected = fast(x.clone()), model(x.clone())
    assert (ours - expected).norm() <= limit * expected.norm()
    assert ours.dtype is expected.dtype
    assert ours.stride() == expected.stride() or ours.shape != expected.shape


def forms(fast):
    return {form for _, form, _ in optimized_gates(fast)}


NETWORKS = {
    "resnet18": "with the convolution",
    "mobilenet_v2": "with the convolution",
    "googlenet": "in place",
    "convnext_tiny": "in place",
}


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_the_gated_model(name):
    options = {"init_weights": False} if name == "googlenet" else {}
    model = awake(se_inject.apply(getattr(torchvision.models, name)(**options)))
    state = {key: value.clone() for key, value in model.state_dict().items()}
    fast = optimize(model)
    assert forms(fast) == {NETWORKS[name]}
    assert [path for path, _, _ in optimized_gates(fast)] == [path for path, _ in se_inject.gates(model)]
    assert list(fast.state_dict()) == list(state)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())
    for memory_format in FORMATS:
        for size in ((3, 3, 64, 64), (1, 3, 96, 64)):
            x = torch.randn(size).contiguous(memory_format=memory_format)
            assert_close(fast.to(memory_format=memory_format), model.to(memory_format=memory_format), x)


class Block(nn.Module):
    """A branch that ends in a convolution and a norm."""

    def __init__(
        self, rank=2, inside=16, channels=24, stride=1, bias=False, kernel=1, groups=1, affine=True, **options
    ):
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[rank]
        norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[rank]
        self.short = conv(8, channels, 1, stride)
        self.conv1 = conv(8, inside, 1)
        self.conv2 = conv(inside, channels, kernel, stride, kernel // 2, groups=groups, bias=bias)
        self.norm = norm(channels, affine=affine, **options)

    def forward(self, x):
        return self.short(x) + self.norm(self.conv2(self.conv1(x).relu()))


@settings(deadline=None, max_examples=30)
@given(
    st.fixed_dictionaries(
        {
            "rank": st.sampled_from([1, 2, 3]),
            "inside": st.sampled_from([8, 48]),
            "stride": st.sampled_from([1, 2]),
            "bias": st.booleans(),
            "kernel": st.sampled_from([1, 3]),
            "groups": st.sampled_from([1, 4]),
            "affine": st.booleans(),
        }
    ),
    st.sampled_from(["identity", "standard"]),
    st.integers(1, 3),
)
def test_every_kind_of_branch(options, init, samples):
    model = awake(se_inject.apply(Block(**options), init=init)).double()
    x = torch.randn(samples, 8, *[7, 6, 5][: options["rank"]], dtype=torch.double)
    fast = optimize(model)
    assert forms(fast) == {"with the convolution" if options["rank"] == 2 else "with the norm"}
    assert_close(fast, model, x, 1e-12)
    if options["rank"] == 2:
        assert_close(fast, model, x.contiguous(memory_format=torch.channels_last), 1e-12)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("inside", [16, 48])
@pytest.mark.parametrize(("scale", "bias"), [(-1e-8, 1), (1e-18, 1), (1e-30, 1), (1e-42, 1e-30), (1e-18, 1e25), (0, 1)])
def test_norms_of_next_to_no_scale(kernel, inside, scale, bias):
    model = awake(se_inject.apply(Block(inside=inside, kernel=kernel)))
    nn.init.zeros_(model.short.weight)
    nn.init.zeros_(model.short.bias)
    model.norm.weight.data[::2] = scale
    model.norm.bias.data[::2] = bias
    fast, x = optimize(model), torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        ours, expected = fast(x)[:, ::2], model(x)[:, ::2]
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()


class TwoUsers(Block):
    def forward(self, x):
        y = self.conv2(self.conv1(x).relu())
        return self.short(x) + self.norm(y), y


class TwoReaders(Block):
    def forward(self, x):
        y = self.norm(self.conv2(self.conv1(x).relu()))
        z = self.short(x) + y
        return z, y


class InsideToo(Block):
    """Calls a layer of a Sequential by itself, too."""

    def __init__(self):
        super().__init__()
        self.both = nn.Sequential(self.conv2, self.norm)
        del self.conv2, self.norm

    def forward(self, x):
        y = self.conv1(x).relu()
        return self.short(x) + self.both(y), self.both[0](y)


class BySize(Block):
    """Has a way on which the gate, but for one sample, is not called."""

    def forward(self, x):
        y = self.norm(self.conv2(self.conv1(x).relu()))
        return self.short(x) + y if len(x) > 1 else y


class Asks(Block):
    def forward(self, x):
        y = self.conv2(self.conv1(x).relu()) if type(self.conv2) is nn.Conv2d else None
        return self.short(x) + self.norm(y)


class Functional(Block):
    """A branch that ends in operations, not layers."""

    def forward(self, x):
        y = self.conv2(self.conv1(x).relu())
        y = nn.functional.batch_norm(y, self.norm.running_mean, self.norm.running_var)
        return self.short(x) + y


class OptionalNorm(nn.Module):
    """A convolution, and a norm if there is one, after a padding on some ways."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(16, 24, 3), nn.BatchNorm2d(24)

    def forward(self, x):
        if x.shape[-1] % 2 == 0:
            x = nn.functional.pad(x, (0, 0, 0, 0))
        x = nn.functional.pad(x, (1, 1, 1, 1))
        if self.norm is None:
            return self.conv(x)
        return self.norm(self.conv(x))


class Within(Block):
    """A branch whose layers are inside a child."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.short(x) + self.inner(self.conv1(x).relu())


class Activated(Block):
    """A branch that ends in an activation."""

    def __init__(self, activation):
        super().__init__()
        self.activation = activation

    def forward(self, x):
        return self.short(x) + self.activation(self.norm(self.conv2(self.conv1(x).relu())))


SEEN = []


class Remembers(nn.Module):
    """What it returns is read again later."""

    def __init__(self, where):
        super().__init__()
        self.conv = nn.Conv2d(16, 24, 1)
        self.where, self.last, self.all = where, None, {"last": None}

    def forward(self, x):
        y = self.conv(x)
        if self.where == "attribute":
            self.last = y
        elif self.where == "dict":
            self.all["last"] = y
        else:
            SEEN.append(y)
        return y

    def read(self):
        return {"attribute": self.last, "dict": self.all["last"], "global": SEEN[-1] if SEEN else None}[self.where]


class ReadsAgain(Within):
    def forward(self, x):
        y = self.short(x) + self.inner(self.conv1(x).relu())
        return y, self.inner.read()


class AsksForNorm(Block):
    def forward(self, x):
        y = self.norm(self.conv2(self.conv1(x).relu()))
        return self.short(x) + (y if type(self.norm) is nn.BatchNorm2d else 2 * y)


class AsksForInner(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Block()

    def forward(self, x):
        return self.block(x) * (
            1 if type(self.block.norm) is nn.BatchNorm2d and type(self.block.conv2) is nn.Conv2d else 2
        )


class CallsInside(nn.Module):
    """Calls a block, and its layers in a way that is not followed."""

    def __init__(self):
        super().__init__()
        self.block = Block()

    def forward(self, x):
        y = self.block(x)
        match x.dim():
            case 4:
                h = self.block.conv2(self.block.conv1(x).relu())
        return y, self.block.norm(h)


class CallsBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Block()

    def forward(self, x):
        match x.dim():
            case 4:
                y = self.block(x)
        return y


class Tripled(nn.BatchNorm2d):
    def __call__(self, x):
        return 3 * super().__call__(x)


class OwnCall(Block):
    def __init__(self):
        super().__init__()
        self.norm = Tripled(24)


class Keywords(Block):
    def forward(self, x):
        return self.short(x) + self.norm(input=self.conv2(input=self.conv1(x).relu()))


class Doubles(nn.Dropout):
    def forward(self, x):
        return 2 * x.contiguous()


class Reversed(nn.Sequential):
    def __iter__(self):
        return reversed(list(self._modules.values()))


class Pick(nn.Module):
    def forward(self, a, b):
        return b.contiguous()


class Second(Block):
    """A branch that is a view of what is returned, too."""

    def __init__(self):
        super().__init__()
        self.pick = Pick()

    def forward(self, x):
        z = self.conv2(self.conv1(x).relu())
        y = self.short(x) + self.pick(self.norm(z), z)
        return y, z


class Out(Block):
    def forward(self, x):
        y = self.norm(self.conv2(self.conv1(x).relu()))
        memory = torch.empty_like(y)
        return self.short(x) + torch.add(y, y, out=memory), memory


class HeldInTraining(Block):
    def train(self, mode=True):
        super().train(mode)
        self.norm.train()
        return self


class Wrapped(nn.Module):
    """As adapters wrap a layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    @property
    def weight(self):
        return self.layer.weight

    @property
    def bias(self):
        return self.layer.bias

    def forward(self, x):
        return self.layer(x) + 1


def wrapped_fc(model):
    model.se.fc1 = Wrapped(model.se.fc1)
    return model


def grouped_fc(model):
    model.se.fc1 = nn.Conv2d(24, 8, 1, groups=4)
    return model


def shared():
    model = nn.Sequential(Block(), nn.Conv2d(24, 8, 1), Block())
    model[2].norm = model[0].norm
    return model


def hooked(which):
    def change(model):
        getattr(model, which).register_forward_hook(lambda module, args, output: 2 * output)
        return model

    return change


def parametrized(model):
    parametrizations.weight_norm(model.conv2)
    return model


def hooked_gate(model):
    model.se.fc1.register_forward_hook(lambda module, args, output: output + 1)
    return model


def without_bias(model):
    model.se.fc1.bias = None
    return model


def unchanged(model):
    return model


CASES = {
    "two users of the convolution": (TwoUsers, unchanged, "with the norm"),
    "two readers of the norm": (TwoReaders, unchanged, "unchanged"),
    "asks for the class of the convolution": (Asks, unchanged, "with the norm"),
    "asks for the class of the norm": (AsksForNorm, unchanged, "unchanged"),
    "asks for the class of another's norm": (AsksForInner, unchanged, "unchanged"),
    "called by another that cannot be followed": (CallsInside, unchanged, "unchanged"),
    "beside what cannot be followed": (CallsBlock, unchanged, "with the convolution"),
    "own call": (OwnCall, unchanged, "unchanged"),
    "keywords": (Keywords, unchanged, "unchanged"),
    "own dropout": (lambda: Within(nn.Sequential(nn.Conv2d(16, 24, 1), Doubles())), unchanged, "in place"),
    "own way through a Sequential": (
        lambda: Within(Reversed(nn.Conv2d(16, 24, 1), nn.Tanh())),
        unchanged,
        "with the convolution",
    ),
    "view of another argument": (Second, unchanged, "unchanged"),
    "written elsewhere": (Out, unchanged, "unchanged"),
    "wrapped layer of the gate": (Block, wrapped_fc, "unchanged"),
    "grouped layer of the gate": (Block, grouped_fc, "unchanged"),
    "held in training mode": (HeldInTraining, unchanged, "unchanged"),
    "by the number of samples": (BySize, unchanged, "unchanged"),
    "a layer of a Sequential": (InsideToo, unchanged, "with the norm"),
    "operations": (Functional, unchanged, "in place"),
    "several ways inside": (lambda: Within(OptionalNorm()), unchanged, "with the convolution"),
    "activation": (lambda: Activated(nn.GELU()), unchanged, "in place"),
    "activation in place": (lambda: Activated(nn.ReLU(inplace=True)), unchanged, "in place"),
    "in an attribute": (lambda: ReadsAgain(Remembers("attribute")), unchanged, "unchanged"),
    "in a dict": (lambda: ReadsAgain(Remembers("dict")), unchanged, "unchanged"),
    "in a global": (lambda: ReadsAgain(Remembers("global")), unchanged, "unchanged"),
    "shared norm": (shared, unchanged, "unchanged"),
    "no statistics": (lambda: Block(track_running_stats=False), unchanged, "in place"),
    "hook on the norm": (Block, hooked("norm"), "unchanged"),
    "hook on the convolution": (Block, hooked("conv2"), "with the norm"),
    "hook on the gate": (Block, hooked("se"), "unchanged"),
    "hook in the gate": (Block, hooked_gate, "unchanged"),
    "no bias in the gate": (Block, without_bias, "unchanged"),
    "computed weight": (Block, parametrized, "with the norm"),
}


def assert_equal_outputs(fast, model, x):
    with torch.inference_mode():
        ours, expected = fast(x), model(x)
    pairs = zip(ours, expected, strict=True) if isinstance(ours, tuple) else [(ours, expected)]
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_proven_keeps_its_outputs(case):
    make, change, form = CASES[case]
    model = change(awake(se_inject.apply(make())))
    fast = optimize(model)
    assert forms(fast) == {form}
    for samples in (1, 2):
        assert_equal_outputs(fast, model, torch.randn(samples, 8, 6, 6))


@pytest.mark.parametrize("case", ["hook on the norm", "hook on the gate", "own call", "shared norm", "keywords"])
def test_the_report_says_why(case):
    make, change, _ = CASES[case]
    fast = optimize(change(awake(se_inject.apply(make()))))
    unchanged = [why for _, form, why in optimized_gates(fast) if form == "unchanged"]
    assert unchanged and all(unchanged)


def test_other_gates_stay():
    model = awake(
        se_inject.apply(Block(), gate=lambda channels: nn.Sequential(nn.Identity(), SqueezeExcitation(channels)))
    )
    fast = optimize(model)
    assert forms(fast) == {"unchanged"}
    assert_equal_outputs(fast, model, torch.randn(2, 8, 6, 6))


def test_it_is_for_inference():
    model = awake(se_inject.apply(torchvision.models.resnet18()))
    fast, x = optimize(model.train()), torch.randn(1, 3, 64, 64)
    assert model.training and not fast.training
    with pytest.raises(InferenceOnlyError, match="no_grad"):
        fast(x)
    with pytest.raises(InferenceOnlyError, match="eval"), torch.no_grad():
        fast.train()(x)


def test_the_mode_of_the_model_stays_and_a_state_dict_loads():
    model, other = (awake(se_inject.apply(Block())) for _ in range(2))
    fast = optimize(model)
    with torch.no_grad():
        for tensor in (*other.parameters(), *filter(torch.is_floating_point, other.buffers())):
            tensor.uniform_(0.5, 1.5)
    fast.load_state_dict(other.state_dict())
    x = torch.randn(2, 8, 6, 6)
    assert_close(fast, other, x)
    fast.se.load_state_dict(model.se.state_dict())
    other.se.load_state_dict(model.se.state_dict())
    assert_close(fast, other, x)


def test_copies_are_independent():
    model = awake(se_inject.apply(torchvision.models.resnet18()))
    fast, x = optimize(model), torch.randn(1, 3, 64, 64)
    for made in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert_close(made, model, x)
        made.load_state_dict({key: value * 0 for key, value in made.state_dict().items()})
        assert_close(fast, model, x)
    file = io.BytesIO()
    torch.save(fast.state_dict(), file)
    file.seek(0)
    model.load_state_dict(torch.load(file))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_precision(dtype):
    model = awake(se_inject.apply(torchvision.models.resnet18())).to(dtype)
    x = torch.randn(2, 3, 64, 64, dtype=dtype)
    assert_close(optimize(model), model, x, 1e-12)  # of half precision, to the bit: the plain way


def test_gates_of_another_precision_than_the_network():
    model = awake(se_inject.apply(torchvision.models.resnet18())).eval()
    for _, gate in se_inject.gates(model):
        gate.bfloat16()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(optimize(model)(x), model(x), rtol=0.02, atol=0.02)


def test_autocast_takes_the_plain_way():
    model, x = awake(se_inject.apply(torchvision.models.resnet18())), torch.randn(2, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(optimize(model), model, x, 1e-12)


@pytest.mark.parametrize("make", [small_resnet, network])
def test_compile_and_export(make):
    model = awake(se_inject.apply(make()))
    fast, x = optimize(model), torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        assert_close(torch.compile(fast, backend="aot_eager", fullgraph=True), model, x)
        dynamic = {0: torch.export.Dim("samples", min=2, max=9)}
        program = torch.export.export(fast, (x,), dynamic_shapes=(dynamic,))
        assert_close(program.module(), model, torch.randn(3, 3, 96, 96))


@pytest.mark.skipif(
    torch.__version__ < (2, 7), reason="today's onnxscript does not translate the plain network's norms of torch 2.6"
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")  # of onnx
def test_onnx(tmp_path):
    import onnxruntime

    model = awake(se_inject.apply(torchvision.models.resnet18()))
    anything = torch.export.Dim.DYNAMIC
    shapes = ({0: anything, 2: anything, 3: anything},)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        program = torch.onnx.export(optimize(model), (x,), dynamo=True, dynamic_shapes=shapes, verbose=False)
    program.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    other = torch.randn(3, 3, 96, 64)
    [output] = session.run(None, {session.get_inputs()[0].name: other.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(output), model(other), rtol=1e-4, atol=1e-4)
    assert len(program.model.graph) <= 105  # those of the gated network


@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor needs a compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")  # of torch
def test_aot_inductor(tmp_path):
    model = awake(se_inject.apply(Block()))
    x = torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        program = torch.export.export(optimize(model), (x,))
        path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
        assert_close(torch._inductor.aoti_load_package(path), model, x)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of torch.jit
def test_a_copy_that_is_traced_takes_other_sizes():
    model = awake(se_inject.apply(Block()))
    with torch.no_grad():
        traced = torch.jit.trace(optimize(model), torch.randn(2, 8, 6, 6))
    assert_close(traced, model, torch.randn(3, 8, 9, 5))


def test_no_sample():
    model = awake(se_inject.apply(Block()))
    with torch.no_grad():
        assert optimize(model)(torch.empty(0, 8, 6, 6)).shape == (0, 24, 6, 6)


def test_after_training_the_gates_of_a_frozen_backbone():
    model = se_inject.freeze_backbone(awake(se_inject.apply(torchvision.models.resnet18())).train())
    fast = optimize(model)
    assert forms(fast) == {"with the convolution"}
    assert_close(fast, model.eval(), torch.randn(2, 3, 64, 64))


def test_casts_and_moves_fold_again():
    model = awake(se_inject.apply(Block()))
    x = torch.randn(2, 8, 6, 6)
    halved = copy.deepcopy(model).half()
    assert_close(optimize(halved).float(), copy.deepcopy(halved).float(), x)
    assert_close(optimize(model).half().float(), copy.deepcopy(model).half().float(), x)
    assert_close(optimize(model).double(), copy.deepcopy(model).double(), x.double(), 1e-12)
    with torch.device("meta"):
        on_meta = optimize(copy.deepcopy(model).to("meta"))
    on_meta.load_state_dict(copy.deepcopy(model).state_dict(), assign=True)
    assert_close(on_meta, model, x)


def test_other_weights_for_one_call_and_for_one_layer():
    model, other = (awake(se_inject.apply(Block())) for _ in range(2))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.3)
    fast, x = optimize(model), torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        theirs = {key: value.clone() for key, value in other.state_dict().items()}
        torch.testing.assert_close(torch.func.functional_call(fast, theirs, (x,)), other(x), rtol=1e-4, atol=1e-5)
    assert_close(fast, model, x)
    for changed in (fast, model):
        changed.se.fc1.load_state_dict(other.se.fc1.state_dict())
    assert_close(fast, model, x)


class WithoutNorm(Block):
    def forward(self, x):
        return self.short(x) + self.conv2(self.conv1(x).relu())


def of_gate(model, layer):
    return {key: value.clone() for key, value in model.state_dict().items() if key.startswith(f"se.{layer}")}


@pytest.mark.parametrize("make", [Block, WithoutNorm])
@pytest.mark.parametrize("samples", [1, 2])
def test_no_way_of_giving_a_gate_weights_leaves_old_ones_behind(make, samples):
    model, other = (awake(se_inject.apply(make(kernel=3))) for _ in range(2))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5).add_(0.1)
    fast, x = optimize(model), torch.randn(samples, 8, 6, 6)
    for layer in ("fc1", "fc2"):
        with torch.no_grad():
            results = [torch.func.functional_call(each, of_gate(other, layer), (x,)) for each in (fast, model)]
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
        for assign in (False, True):
            part, state = f"se.{layer}", (model if assign else other).se.get_submodule(layer).state_dict()
            state = {key: value + 0.1 for key, value in state.items()}
            for each in (fast, model):
                each.get_submodule(part).load_state_dict(state, assign=assign)
            for each in (fast, copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
                assert_close(each, model, x)


FOLDED = {
    "with the convolution": lambda: Block(bias=True),
    "with the convolution, without a norm": lambda: WithoutNorm(),
    "with the wide convolution, without a norm": lambda: WithoutNorm(kernel=3),
    "with the norm": lambda: Block(rank=1),
    "in place": lambda: Activated(nn.GELU()),
}


def set_tensor(model, key, value):
    path, _, name = key.rpartition(".")
    module = model.get_submodule(path)
    setattr(module, name, nn.Parameter(value) if name in module._parameters else value)


@pytest.mark.parametrize("form", FOLDED)
@pytest.mark.parametrize("samples", [1, 2])
def test_a_weight_or_statistic_that_alone_is_another_one(form, samples):
    model = awake(se_inject.apply(FOLDED[form]()))
    fast, x = optimize(model), torch.randn(samples, 8, *[6, 6][: 1 if form == "with the norm" else 2])
    assert forms(fast) == {form.partition(",")[0].replace("wide ", "")}
    for key in [key for key, value in model.state_dict().items() if value.is_floating_point()]:
        value = model.state_dict()[key] * 1.5 + 0.1
        with torch.no_grad():
            results = [torch.func.functional_call(each, {key: value}, (x,)) for each in (fast, model)]
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
        changed = [copy.deepcopy(each) for each in (fast, model)]
        for each in changed:
            set_tensor(each, key, value.clone())
        assert_close(*changed, x)


@pytest.mark.parametrize("layer", ["fc1", "fc2"])
def test_a_bias_of_a_gate_that_is_pruned_later(layer):
    model, x = awake(se_inject.apply(WithoutNorm())), torch.randn(2, 8, 6, 6)
    fast = optimize(model)
    for each in (fast, model):
        prune.l1_unstructured(each.se.get_submodule(layer), "bias", 0.5)
    assert_close(fast, model, x)


@pytest.mark.parametrize("form", FOLDED)
def test_a_copy_on_meta_is_loaded_tensor_by_tensor(form):
    model = awake(se_inject.apply(FOLDED[form]()))
    fast, state = optimize(model).to("meta"), copy.deepcopy(model.state_dict())
    for key in state:
        part = {other: state[other] for other in (key, "se.identity_form")}
        fast.load_state_dict(part, strict=False, assign=True)
    assert_close(fast, model, torch.randn(2, 8, *[6, 6][: 1 if form == "with the norm" else 2]))


@pytest.mark.parametrize("layer", ["fc1", "fc2"])
def test_a_gate_of_half_precision_whose_layer_is_loaded(layer):
    model, x = awake(se_inject.apply(WithoutNorm())), torch.randn(1, 8, 6, 6)
    model.se.bfloat16()
    fast = optimize(model)
    for each in (fast, model):
        state = each.se.get_submodule(layer).state_dict()
        each.se.get_submodule(layer).load_state_dict({key: value + 0.5 for key, value in state.items()})
    assert_close(fast, optimize(model), x)


@pytest.mark.parametrize("make", [Block, WithoutNorm])
def test_copies_and_loaded_weights_are_as_fast(make, monkeypatch):
    fast, x = optimize(awake(se_inject.apply(make()))), torch.randn(1, 8, 6, 6)
    others = [copy.deepcopy(fast), pickle.loads(pickle.dumps(fast)), copy.deepcopy(fast).double().float()]
    others[0].load_state_dict(copy.deepcopy(others[1].state_dict()), assign=True)
    monkeypatch.setattr(SqueezeExcitation, "forward", None)  # the plain way
    for each in (fast, *others):
        assert_close(each, fast, x)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("samples", [1, 2])
def test_norm_and_gate_are_one_pass_in_place(memory_format, samples):
    model = awake(se_inject.apply(Block()))
    fast, x = optimize(model), torch.randn(samples, 8, 6, 6).contiguous(memory_format=memory_format)
    assert_close(fast, model, x)
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True)
    with torch.no_grad(), profiler as profile:
        fast(x)
    passes = {"aten::batch_norm", *(f"aten::{name}{end}" for name in ("add", "mul", "addcmul") for end in ("", "_"))}
    on_feature = [event.name for event in profile.events() if [samples, 24, 6, 6] in event.input_shapes]
    assert [name for name in on_feature if name in passes] == ["aten::mul_", "aten::add"]  # the block adds


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own use of torch.jit
def test_vmap_and_features_without_batch():
    model = awake(se_inject.apply(Block()))
    fast = optimize(model)
    x = torch.randn(3, 2, 8, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(torch.func.vmap(fast)(x), torch.func.vmap(model)(x), rtol=1e-4, atol=1e-5)
        for changed in (fast, model):
            with pytest.raises(ValueError, match="expected 4D input"):
                changed(x[0, 0])


class CopiesItself(Block):
    def __deepcopy__(self, memo):
        return self


@pytest.mark.parametrize("part", ["conv2", "norm", "se"])
def test_a_part_in_training_mode_is_refused(part):
    fast = optimize(awake(se_inject.apply(Block())))
    getattr(fast, part).train()
    with pytest.raises(InferenceOnlyError, match="eval"), torch.no_grad():
        fast(torch.randn(2, 8, 6, 6))


def test_what_is_refused():
    model = se_inject.apply(torchvision.models.resnet18()).eval()
    fast = optimize(model)
    for again in (optimize, se_inject.apply, se_inject.remove, se_inject.find_sites):
        with pytest.raises(WrappedModelError, match="optimize"):
            again(fast)
    with pytest.raises(NoGateError):
        optimize(torchvision.models.resnet18())
    pruned = se_inject.apply(Block()).eval()
    prune.l1_unstructured(pruned.conv2, "weight", 0.5)
    with pytest.raises(InvalidArgumentError, match="cannot be copied"):
        optimize(pruned)
    with pytest.raises(InvalidArgumentError, match="__deepcopy__"):
        optimize(se_inject.apply(CopiesItself()))
    with pytest.raises(WrappedModelError, match="optimize"):
        se_inject.freeze_backbone(fast)
    for function in (optimize, optimized_gates):
        with pytest.raises(NotAModuleError):
            function(torchvision.models.resnet18)
    with pytest.raises(WrappedModelError, match="before it is traced"):
        optimize(torch.export.export(model, (torch.randn(1, 3, 64, 64),)).module())
    with pytest.raises(WrappedModelError, match=r"Call se_inject\.optimize on the module inside"):
        optimize(torch.compile(model))


@pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="this torch does not tell export apart")
@pytest.mark.parametrize("optimized", [True, False])
def test_a_compiler_has_no_more_calls_of_a_library(optimized):
    plain = torchvision.models.resnet.Bottleneck(32, 8).eval()
    model = awake(se_inject.apply(copy.deepcopy(plain)))
    convolutions = []

    def count(graph, _):
        convolutions.append(sum("conv2d" in str(node.target) for node in graph.graph.nodes))
        return graph.forward

    x, other = torch.randn(2, 32, 8, 8), {"conv3.weight": torch.randn(32, 8, 1, 1) / 3}
    with torch.no_grad():
        torch.compile(plain, backend=count)(x)
        compiled = torch.compile(optimize(model) if optimized else model, backend=count)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
        assert len(set(convolutions)) == 1
        with_other = [torch.func.functional_call(each, other, (x,)) for each in (compiled, model)]
        torch.testing.assert_close(*with_other, rtol=1e-4, atol=1e-4)
