"""Gates in files: what was saved comes back, into the plain network and into a gated one, or nothing changes."""

import contextlib
import copy
import os
import stat
import warnings

import pytest
import timm
import torch
import torchvision
from torch import nn

import se_inject
from se_inject.errors import (
    ArgumentTypeError,
    GateFileError,
    GateFileNotFoundError,
    GateMismatchError,
    InvalidArgumentError,
    NoGateError,
    NotAModuleError,
    SEInjectError,
    WrappedModelError,
)

from ..support.blocks import network
from ..support.families import vgg_features
from ..support.promises import exact_state


def trained(model):
    for number, (_, gate) in enumerate(se_inject.gates(model)):
        for parameter in gate.parameters():
            generator = torch.Generator().manual_seed(number)
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def twin(model):
    """The plain network of a gated one, with its weights."""
    return se_inject.remove(copy.deepcopy(model))


def assert_equal(a, b):
    """The same keys, values to the bit, and classes."""
    ours, theirs = a.state_dict(), b.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert [type(m).__name__ for m in a.modules()] == [type(m).__name__ for m in b.modules()]


def scripted(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit is deprecated, and people use it
        return torch.jit.script(module)


def with_buffer(model, buffer):
    model.register_buffer("constant", buffer)
    return model


def with_head(wrapper):
    wrapper.head = se_inject.apply(network())
    return wrapper


class BesideItsModule(nn.DataParallel):
    def __init__(self, model):
        super().__init__(model)
        self.head = se_inject.apply(network())


class Counting(se_inject.SqueezeExcitation):
    def get_extra_state(self):
        return 1


def two_blocks():
    """Gated, and without the concat whose pool takes no factor."""
    return se_inject.apply(nn.Sequential(*network()[:3]))


@contextlib.contextmanager
def untouched(model):
    state, values = exact_state(model), {key: value.clone() for key, value in model.state_dict().items()}
    yield
    assert exact_state(model) == state
    assert all(torch.equal(value, values[key]) for key, value in model.state_dict().items() if not value.is_meta)


@pytest.mark.parametrize(
    ("make", "options", "size"),
    [
        (torchvision.models.resnet18, {}, 64),
        (torchvision.models.resnet18, {"init": "standard", "reduction": 4}, 64),
        (torchvision.models.mobilenet_v2, {"kinds": ("residual", "noskip"), "memory": "recompute"}, 64),
        (lambda: torchvision.models.googlenet(init_weights=False, aux_logits=False), {}, 64),
        (
            lambda: nn.Sequential(vgg_features()),
            {"kinds": ("plain",), "reduction": lambda site: site.channels // 16},
            32,
        ),
        (lambda: timm.create_model("convnext_atto"), {}, 64),
        (lambda: timm.create_model("resnet18"), {"gate": "eca"}, 64),
        (lambda: timm.create_model("resnet18"), {"position": "identity"}, 64),
        (lambda: timm.create_model("resnet26"), {"position": "pre", "where": "layer3.*"}, 64),
    ],
)
def test_plain_network_becomes_what_was_saved(make, options, size, tmp_path):
    model = trained(se_inject.apply(make(), **options)).eval()
    se_inject.save_gates(model, tmp_path / "gates.safetensors")
    loaded = se_inject.load_gates(twin(model), tmp_path / "gates.safetensors")
    assert_equal(loaded, model)
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
    assert repr(loaded) == repr(model)


def test_several_calls_of_apply_come_back_at_once(tmp_path):
    model = torchvision.models.resnet18()
    se_inject.apply(model, where="layer1.*", reduction=2)
    se_inject.apply(model, where="layer2.*", gate="eca")
    se_inject.apply(model, where="layer3.*", position="post", init="standard")
    trained(model)
    se_inject.save_gates(model, tmp_path / "gates.safetensors")
    assert_equal(se_inject.load_gates(twin(model), tmp_path / "gates.safetensors"), model)


def test_backbone_that_moved_into_another_network(tmp_path):
    class Detector(nn.Module):
        def __init__(self, body):
            super().__init__()
            self.body = body

        def forward(self, x):
            return self.body(x)

    model = Detector(trained(se_inject.apply(network())))
    se_inject.save_gates(model, tmp_path / "gates.safetensors")
    assert_equal(se_inject.load_gates(twin(model), tmp_path / "gates.safetensors"), model)


def test_gates_of_a_function_need_it_again(tmp_path):
    make = torchvision.ops.SqueezeExcitation
    model = trained(se_inject.apply(network(), gate=make))
    se_inject.save_gates(model, tmp_path / "gates.safetensors")
    plain = twin(model)
    with untouched(plain), pytest.raises(InvalidArgumentError, match=r"1\.se was made by a function.*gate="):
        se_inject.load_gates(plain, tmp_path / "gates.safetensors")
    loaded = se_inject.load_gates(plain, tmp_path / "gates.safetensors", gate=make)
    assert_equal(loaded, model)


def test_a_gate_of_the_authors_own_is_saved_too(tmp_path):
    def make():
        return nn.Sequential(network(), nn.Unflatten(1, (5, 1, 1)), se_inject.SqueezeExcitation(5))

    model = trained(se_inject.apply(make()))
    se_inject.save_gates(model, tmp_path / "gates.safetensors")
    plain = make()
    plain.load_state_dict(twin(model).state_dict())
    torch.nn.init.zeros_(plain[2].fc1.weight)
    assert_equal(se_inject.load_gates(plain, tmp_path / "gates.safetensors"), model)


def test_gates_are_exchanged_in_place(tmp_path):
    model = trained(se_inject.apply(network()))
    se_inject.save_gates(model, tmp_path / "gates.safetensors")
    wanted = copy.deepcopy(model)
    parameters = list(model.parameters())
    for parameter in se_inject.gate_parameters(model):
        nn.init.ones_(parameter)
    se_inject.load_gates(model, tmp_path / "gates.safetensors")
    assert_equal(model, wanted)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))


def test_compiled_model_is_not_compiled_again(tmp_path):
    model = trained(se_inject.apply(network())).eval()
    se_inject.save_gates(model, tmp_path / "gates.safetensors")
    x = torch.randn(1, 3, 8, 8)
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        wanted = compiled(x)
        for parameter in se_inject.gate_parameters(model):
            nn.init.ones_(parameter)
        assert not torch.equal(compiled(x), wanted)
        se_inject.load_gates(compiled, tmp_path / "gates.safetensors")
        with torch.compiler.set_stance("fail_on_recompile"):
            assert torch.equal(compiled(x), wanted)


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        torch.optim.swa_utils.AveragedModel,
        lambda model: torch.compile(model, backend="eager"),
        lambda model: torch.compile(nn.DataParallel(model), backend="eager"),
    ],
)
def test_names_are_those_without_wrappers(wrap, tmp_path):
    model = trained(se_inject.apply(network()))
    se_inject.save_gates(wrap(model), tmp_path / "wrapped.safetensors")
    se_inject.save_gates(model, tmp_path / "gates.safetensors")
    assert (tmp_path / "wrapped.safetensors").read_bytes() == (tmp_path / "gates.safetensors").read_bytes()


def test_a_compiled_or_checkpointed_part_keeps_names(tmp_path):
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model = trained(se_inject.apply(network()))
    se_inject.save_gates(model, tmp_path / "gates.safetensors")
    model[1], model[2] = torch.compile(model[1], backend="eager"), checkpoint_wrapper(model[2])
    se_inject.save_gates(model, tmp_path / "wrapped.safetensors")
    assert (tmp_path / "wrapped.safetensors").read_bytes() == (tmp_path / "gates.safetensors").read_bytes()


def test_what_was_trained_beside_the_gates_travels_when_asked(tmp_path):
    model = trained(se_inject.apply(torchvision.models.resnet18(num_classes=3)))
    plain = twin(model)
    with torch.no_grad():
        model.fc.weight.fill_(2)
        model.bn1.running_mean.fill_(3)
        model.layer1[0].conv1.weight.fill_(4)
    se_inject.save_gates(model, tmp_path / "some.safetensors", include=["fc.*", "statistics"])
    se_inject.load_gates(plain, tmp_path / "some.safetensors")
    assert torch.equal(plain.fc.weight, model.fc.weight) and torch.equal(plain.bn1.running_mean, model.bn1.running_mean)
    assert not torch.equal(plain.layer1[0].conv1.weight, model.layer1[0].conv1.weight)
    se_inject.freeze_backbone(model)
    model.fc.requires_grad_(True)
    se_inject.save_gates(model, tmp_path / "trained.safetensors", include="trained")
    assert (tmp_path / "trained.safetensors").stat().st_size < (tmp_path / "some.safetensors").stat().st_size


def test_digest_tells_other_weights(tmp_path):
    model = trained(se_inject.apply(network()))
    plain = twin(model)
    se_inject.save_gates(model, tmp_path / "gates.safetensors", digest=True, base="my net")
    se_inject.load_gates(copy.deepcopy(plain), tmp_path / "gates.safetensors")
    with torch.no_grad():
        plain[0].weight[0, 0, 0, 0] += 1
    with untouched(plain), pytest.raises(GateMismatchError, match="my net with other weights"):
        se_inject.load_gates(plain, tmp_path / "gates.safetensors")


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (lambda: network(blocks=3), r"3\.one\.weight \(8, 16, 1, 1\) is not in the model"),
        (lambda: network(channels=24), r"0\.weight must be \(16, 3, 3, 3\), and is \(24, 3, 3, 3\)"),
        (lambda: se_inject.apply(network(), reduction=1), r"1\.se\.fc1\.\w+ must be"),
        (lambda: se_inject.apply(network(), init="standard"), r"1\.se is of the identity form in the file"),
        (
            lambda: se_inject.apply(se_inject.apply(network(), position="post"), where="3"),
            r"1\.se is a gate se at position standard",
        ),
        (lambda: se_inject.apply(network(), where="1"), r"the file has a gate 2\.se"),
        (lambda: se_inject.apply(network(), gate="eca"), r"1\.se is a gate se at position"),
        (lambda: network()[:4], r"6\.weight \(5, 36\) is not in the model"),
        (lambda: network().half().to("meta"), "meta device"),
    ],
)
def test_another_model_is_refused_and_left_alone(other, says, tmp_path):
    se_inject.save_gates(trained(se_inject.apply(network())), tmp_path / "gates.safetensors")
    model = other()
    with untouched(model), pytest.raises((GateMismatchError, InvalidArgumentError), match=says):
        se_inject.load_gates(model, tmp_path / "gates.safetensors")


def test_more_gates_in_the_model_than_in_the_file(tmp_path):
    se_inject.save_gates(se_inject.apply(network(), where="1"), tmp_path / "gates.safetensors")
    with pytest.raises(GateMismatchError, match=r"the model has a gate 2\.se, and the file has none"):
        se_inject.load_gates(se_inject.apply(network()), tmp_path / "gates.safetensors")


def test_a_network_of_equal_shapes_without_that_site(tmp_path):
    class NoAdd(nn.Module):
        def __init__(self, block):
            super().__init__()
            self.conv1, self.bn1, self.conv2, self.bn2 = block.conv1, block.bn1, block.conv2, block.bn2

        def forward(self, x):
            return self.bn2(self.conv2(self.bn1(self.conv1(x))))

    se_inject.save_gates(se_inject.apply(network()), tmp_path / "gates.safetensors")
    model = network()
    model[2] = NoAdd(model[2])
    with untouched(model), pytest.raises(GateMismatchError, match=r"no residual site of 16 channels for 2\.se"):
        se_inject.load_gates(model, tmp_path / "gates.safetensors")


def test_new_gates_do_not_come_behind_a_wrapper(tmp_path):
    se_inject.save_gates(se_inject.apply(network()), tmp_path / "gates.safetensors")
    model = nn.DataParallel(network())
    with untouched(model), pytest.raises(WrappedModelError, match="apply first, then wrap"):
        se_inject.load_gates(model, tmp_path / "gates.safetensors")


def test_autocast_sees_new_gates(tmp_path):
    """It keeps casts of weights, for as long as it is on."""
    model = se_inject.apply(network())
    se_inject.save_gates(trained(se_inject.apply(network())), tmp_path / "gates.safetensors")
    new = se_inject.load_gates(copy.deepcopy(model), tmp_path / "gates.safetensors")
    x = torch.randn(1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        model.eval()(x)
        se_inject.load_gates(model, tmp_path / "gates.safetensors")
        assert torch.equal(model(x), new.eval()(x))


def test_half_precision(tmp_path):
    model = trained(se_inject.apply(network()))
    se_inject.save_gates(model, tmp_path / "gates.safetensors")
    half = se_inject.load_gates(twin(model).bfloat16(), tmp_path / "gates.safetensors")
    for ours, theirs in zip(se_inject.gate_parameters(half), se_inject.gate_parameters(model), strict=True):
        assert torch.equal(ours, theirs.bfloat16())
    with torch.no_grad():
        model[1].se.fc1.weight[0, 0] = 1e6
    se_inject.save_gates(model, tmp_path / "gates.safetensors")
    plain = twin(model).half()
    with (
        untouched(plain),
        pytest.raises(GateMismatchError, match=r"1\.se\.fc1\.weight has values.* too large for"),
    ):
        se_inject.load_gates(plain, tmp_path / "gates.safetensors")


def test_an_error_while_writing_values_undoes_all(tmp_path, monkeypatch):
    """Ctrl-C in the middle, for one."""
    model = trained(se_inject.apply(network()))
    se_inject.save_gates(model, tmp_path / "gates.safetensors")
    copy_, calls = torch.Tensor.copy_, []

    def interrupted(self, *args):
        calls.append(self)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return copy_(self, *args)

    for target in (twin(model), se_inject.apply(network())):
        calls.clear()
        with untouched(target), monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(torch.Tensor, "copy_", interrupted)
            se_inject.load_gates(target, tmp_path / "gates.safetensors")


def test_files_are_readable_as_the_umask_says(tmp_path):
    model = se_inject.apply(network())
    old = os.umask(0o027)
    try:
        se_inject.save_gates(model, tmp_path / "gates.safetensors")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "gates.safetensors").stat().st_mode) == 0o640
    assert [file.name for file in tmp_path.iterdir()] == ["gates.safetensors"]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "gates.safetensors"
    path.write_text("old")
    model = se_inject.apply(network())
    with monkeypatch.context() as patched, pytest.raises(OSError, match="full"):
        patched.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("the disk is full")))
        se_inject.save_gates(model, path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_resnet50_takes_ten_megabytes(tmp_path):
    se_inject.save_gates(se_inject.apply(torchvision.models.resnet50()), tmp_path / "gates.safetensors")
    assert 10.1e6 < (tmp_path / "gates.safetensors").stat().st_size < 10.2e6


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda m, p: se_inject.save_gates(network(), p), NoGateError),
        (lambda m, p: se_inject.save_gates("model", p), NotAModuleError),
        (lambda m, p: se_inject.save_gates(torch.export.export(m, (torch.ones(1, 3, 8, 8),)), p), NotAModuleError),
        (lambda m, p: se_inject.save_gates(m, 3), ArgumentTypeError),
        (lambda m, p: se_inject.save_gates(m, p, include="nothing.*"), InvalidArgumentError),
        (lambda m, p: se_inject.save_gates(se_inject.convert(two_blocks(), "standard"), p), InvalidArgumentError),
        (lambda m, p: se_inject.save_gates(m, p, include=[3]), ArgumentTypeError),
        (lambda m, p: se_inject.save_gates(m, p, include=None), ArgumentTypeError),
        (lambda m, p: se_inject.save_gates(m, p, metrics={"a": object()}), ArgumentTypeError),
        (lambda m, p: se_inject.save_gates(m, p, metrics={1: 2}), ArgumentTypeError),
        (lambda m, p: se_inject.save_gates(m, p, metrics=[1]), ArgumentTypeError),
        (lambda m, p: se_inject.save_gates(m, p, metrics={"loss": float("nan")}), InvalidArgumentError),
        (lambda m, p: se_inject.save_gates(m, p, metrics={"loss": 10**5000}), InvalidArgumentError),
        (lambda m, p: se_inject.save_gates(m, p, base=None), ArgumentTypeError),
        (lambda m, p: se_inject.save_gates(m, p.parent, base="\ud800"), InvalidArgumentError),
        (lambda m, p: se_inject.save_gates(m, "hf://user/name"), InvalidArgumentError),
        (lambda m, p: se_inject.save_gates(m, "\0"), InvalidArgumentError),
        (lambda m, p: se_inject.push_gates(m, None), ArgumentTypeError),
        (lambda m, p: se_inject.save_gates(nn.Sequential(m, nn.LazyConv2d(8, 1)), p), InvalidArgumentError),
        (lambda m, p: se_inject.save_gates(with_buffer(m, torch.ones(2).to("meta")), p, digest=True), SEInjectError),
        (lambda m, p: se_inject.save_gates(with_buffer(m, torch.eye(2).to_sparse()), p, digest=True), SEInjectError),
        (lambda m, p: se_inject.save_gates(se_inject.apply(network(), gate=Counting), p), InvalidArgumentError),
        (lambda m, p: se_inject.save_gates(with_head(nn.DataParallel(m)), p), WrappedModelError),
        (lambda m, p: se_inject.save_gates(m.to("meta"), p), InvalidArgumentError),
        (lambda m, p: se_inject.save_gates(se_inject.optimize(m), p), WrappedModelError),
        (lambda m, p: se_inject.save_gates(scripted(m[1].se), p), WrappedModelError),
        (lambda m, p: se_inject.load_gates(m, p / "no such"), GateFileNotFoundError),
        (lambda m, p: se_inject.load_gates("model", p), NotAModuleError),
        (lambda m, p: se_inject.load_gates(m, p.parent), GateFileNotFoundError),
        (lambda m, p: se_inject.load_gates(m, None), ArgumentTypeError),
        (lambda m, p: se_inject.load_gates(se_inject.optimize(m), p), WrappedModelError),
    ],
)
def test_wrong_use_is_told(wrong, error, tmp_path):
    with pytest.raises(error) as caught:
        wrong(se_inject.apply(network()).eval(), tmp_path / "gates.safetensors")
    assert isinstance(caught.value, SEInjectError) and isinstance(caught.value, ValueError | TypeError)
    assert not list(tmp_path.iterdir())


def test_other_files_are_told(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "weights.safetensors")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "weights.pth")
    (tmp_path / "empty").touch()
    for name in ("weights.safetensors", "weights.pth", "empty"):
        with pytest.raises(GateFileError, match=name):
            se_inject.load_gates(network(), tmp_path / name)


def test_gates_of_a_converted_network_are_those_of_weights_as_they_were(tmp_path):
    model = two_blocks()
    se_inject.save_gates(model, tmp_path / "identity.safetensors")
    se_inject.save_gates(se_inject.apply(twin(model), init="standard"), tmp_path / "standard.safetensors")
    se_inject.convert(model, "standard")
    for name in ("identity", "standard"):
        with untouched(model), pytest.raises(GateMismatchError, match=r"1\.se"):
            se_inject.load_gates(model, tmp_path / f"{name}.safetensors")


def test_gates_beside_the_model_that_a_wrapper_holds(tmp_path):
    model = trained(BesideItsModule(se_inject.apply(network())))
    se_inject.save_gates(model, tmp_path / "gates.safetensors")
    wanted = copy.deepcopy(model)
    for parameter in se_inject.gate_parameters(model):
        nn.init.ones_(parameter)
    assert_equal(se_inject.load_gates(model, tmp_path / "gates.safetensors"), wanted)


def test_a_shared_block_is_shared_again_or_nothing_changes(tmp_path):
    block = network()[1]
    shared = trained(se_inject.apply(nn.Sequential(block, block)))
    se_inject.save_gates(shared, tmp_path / "gates.safetensors", digest=True)
    assert_equal(se_inject.load_gates(twin(shared), tmp_path / "gates.safetensors"), shared)
    apart = nn.Sequential(*(copy.deepcopy(twin(shared))[0] for _ in range(2)))
    with untouched(apart), pytest.raises(GateMismatchError, match=r"0\.se is also 1\.se in the file"):
        se_inject.load_gates(apart, tmp_path / "gates.safetensors")


def test_tied_weights_travel_under_all_names(tmp_path):
    def make(tied):
        model = nn.Sequential(network()[1], nn.Linear(8, 8), nn.Linear(8, 8))
        if tied:
            model[2].weight = model[1].weight
        return model

    model = se_inject.apply(make(tied=True))
    se_inject.save_gates(model, tmp_path / "tied.safetensors", include="1.weight")
    apart = se_inject.load_gates(make(tied=False), tmp_path / "tied.safetensors")
    assert torch.equal(apart[2].weight, model[1].weight)
    se_inject.save_gates(se_inject.apply(make(tied=False)), tmp_path / "apart.safetensors", include="?.weight")
    with untouched(model), pytest.raises(GateMismatchError, match=r"2\.weight and 1\.weight are one tensor"):
        se_inject.load_gates(model, tmp_path / "apart.safetensors")


def test_a_scripted_part_is_no_obstacle(tmp_path):
    model = trained(se_inject.apply(nn.Sequential(scripted(nn.BatchNorm2d(16)), network()[1])))
    se_inject.save_gates(model, tmp_path / "gates.safetensors", include="0.*")
    plain = nn.Sequential(scripted(nn.BatchNorm2d(16)), twin(model)[1])
    x = torch.randn(2, 16, 8, 8)
    assert torch.equal(se_inject.load_gates(plain, tmp_path / "gates.safetensors").eval()(x), model.eval()(x))


class Linears(se_inject.SqueezeExcitation):
    """Other layers under the same names."""

    def __init__(self, channels):
        super().__init__(channels, init="standard")
        self.fc1, self.fc2 = nn.Linear(channels, 8), nn.Linear(8, channels)

    def forward(self, x):
        return x * self.fc2(self.fc1(x.mean((2, 3))).relu()).sigmoid()[:, :, None, None]


def test_a_subclass_with_other_layers(tmp_path):
    model = trained(se_inject.apply(network(), gate=Linears))
    se_inject.save_gates(model, tmp_path / "gates.safetensors")
    assert_equal(se_inject.load_gates(twin(model), tmp_path / "gates.safetensors", gate=Linears), model)


def test_an_expanded_tensor_is_told(tmp_path):
    model = se_inject.apply(with_buffer(network(), torch.ones(1).expand(8)))
    se_inject.save_gates(model, tmp_path / "gates.safetensors", include="constant")
    with untouched(model), pytest.raises(InvalidArgumentError, match="constant of the model is expanded"):
        se_inject.load_gates(model, tmp_path / "gates.safetensors")


def test_links_stay_links_and_names_may_be_long(tmp_path):
    target, link = tmp_path / f"{'x' * 240}.safetensors", tmp_path / "link.safetensors"
    link.symlink_to(target)
    se_inject.save_gates(se_inject.apply(network()), link)
    assert link.is_symlink() and se_inject.load_gates(network(), target)
