"""Published SE weights go into a gated network by structure; what does not fit is named, and nothing is guessed."""

import copy
import re
from collections import OrderedDict

import pytest
import timm
import torch
import torchvision
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import recipes
import se_inject
from se_inject.errors import (
    ArgumentTypeError,
    InvalidArgumentError,
    LayoutError,
    NoGateError,
    NotAModuleError,
    WrappedModelError,
)

from .pairs import Pair, compare, randomize, shuffled

CAFFE = {
    r"^conv1\.": "conv1/7x7_s2.",
    r"^bn1\.": "conv1/7x7_s2/bn.",
    r"^fc\.": "classifier.",
    r"(?<=\d_)conv1": "1x1_reduce",
    r"(?<=\d_)bn1": "1x1_reduce/bn",
    r"(?<=\d_)conv2": "3x3",
    r"(?<=\d_)bn2": "3x3/bn",
    r"(?<=\d_)conv3": "1x1_increase",
    r"(?<=\d_)bn3": "1x1_increase/bn",
    r"(?<=\d_)downsample\.0": "1x1_proj",
    r"(?<=\d_)downsample\.1": "1x1_proj/bn",
    r"(?<=\d_)se\.fc1": "1x1_down",
    r"(?<=\d_)se\.fc2": "1x1_up",
}


def caffe(state, separator="_", two_layers=False):
    """A ResNet's state dict with the names of the authors' published Caffe models."""
    result = {}
    for key, value in state.items():
        key = re.sub(r"^layer(\d)\.(\d+)\.", lambda m: f"conv{int(m[1]) + 1}_{int(m[2]) + 1}_", key)
        for pattern, name in CAFFE.items():
            key = re.sub(pattern, name, key)
        if two_layers:
            key = re.sub(r"/bn\.(weight|bias)", r"/bn/scale.\1", key)
        result[key.replace("/", separator)] = value
    return result


def network(**options):
    """Small, with all that makes ResNets hard: two kinds of blocks, equal shapes, projections."""
    torch.manual_seed(0)
    return torchvision.models.ResNet(
        torchvision.models.resnet.Bottleneck, [2, 2, 1, 1], num_classes=5, width_per_group=16, **options
    )


def gated(**options):
    return se_inject.apply(network(), init="standard", **options) if options else copy.deepcopy(GATED)


GATED = se_inject.apply(network(), init="standard")


def published(seed=1):
    """A state dict in our names of which all values differ."""
    generator = torch.Generator().manual_seed(seed)
    state = gated().state_dict()
    return {
        key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else torch.tensor(seed)
        for key, value in state.items()
    }


def assert_loaded(model, state):
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key].to(value.dtype)), key


def assert_refused(error, match, model, state):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(error, match=match):
        se_inject.load_se_weights(model, state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def renamed(state, *rules):
    for pattern, replacement in rules:
        state = {re.sub(pattern, replacement, key): value for key, value in state.items()}
    return state


PYTORCHCV = (
    (r"^conv1", "features.init_block.conv.conv"),
    (r"^bn1", "features.init_block.conv.bn"),
    (r"^layer(\d)\.(\d)", lambda m: f"features.stage{m[1]}.unit{int(m[2]) + 1}"),
    (r"(\.unit\d)\.(conv|bn)(\d)", r"\1.body.conv\3.\2"),
    (r"downsample\.0", "identity_conv.conv"),
    (r"downsample\.1", "identity_conv.bn"),
    (r"se\.fc", "se.conv"),
    (r"^fc", "output"),
)
CADENE = ((r"^(conv1|bn1)", r"layer0.\1"), (r"\.se\.", ".se_module."), (r"^fc", "last_linear"))
LAYOUTS = {
    "own": lambda state: state,
    "data parallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "cadene": lambda state: renamed(state, *CADENE),
    "pytorchcv": lambda state: renamed(state, *PYTORCHCV),
    "caffe": caffe,
    "caffe, dots": lambda state: caffe(state, "."),
    "caffe, slashes, two layers a norm": lambda state: caffe(state, "/", two_layers=True),
    "linear": lambda state: {k: v.flatten(1) if re.search(r"se\.fc\d\.w", k) else v for k, v in state.items()},
    # MMPretrain's
    "nested": lambda state: renamed(state, (r"^", "backbone."), (r"se\.fc(\d)", r"se_layer.conv\1.conv")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout):
    model, state = gated(), published()
    assert se_inject.load_se_weights(model, shuffled(LAYOUTS[layout](state))) is model
    assert_loaded(model, state)


def caffe_inception(state):
    """SE-BN-Inception with the names of the authors' published model."""
    paths = [["1x1"], ["3x3_reduce", "3x3"], ["double_3x3_reduce", "double_3x3_1", "double_3x3_2"], ["", "pool_proj"]]
    stem = {"conv1": "conv1_7x7_s2", "conv2_reduce": "conv2_3x3_reduce", "conv2": "conv2_3x3"}
    result = {}
    for key, value in state.items():
        block, *path, kind, name = key.split(".")
        if path[:1] == ["paths"]:
            _, number, *layer = path
            halves = f"{block}.paths.3.1.conv.weight" not in state
            block += "_" + paths[int(number) + halves][int(layer[0]) if layer else 0]
        elif path == ["se"]:
            block += "_1x1_down" if kind == "fc1" else "_1x1_up"
        result[f"{stem.get(block, block)}{'_bn' if kind == 'bn' else ''}.{name}"] = value
    return result


def test_inception():
    """Paths of which the convolutions look alike; two of the modules have no path 0, so that numbers shift."""
    network = recipes.get("se_bn_inception").build(num_classes=5)
    state = {key: torch.rand(value.shape) for key, value in network.state_dict().items() if "batches" not in key}
    theirs = caffe_inception({key: value for key, value in state.items() if not key.startswith("fc.")})
    theirs |= {"classifier.weight": state["fc.weight"], "classifier.bias": state["fc.bias"]}
    assert len(theirs) == len(state) and "inception_3a_double_3x3_2_bn.bias" in theirs
    se_inject.load_se_weights(network, shuffled(theirs))
    assert all(torch.equal(network.state_dict()[key], value) for key, value in state.items())


@settings(max_examples=6, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([name for name in LAYOUTS if name != "own"]))
def test_order_of_keys_plays_no_role(random, layout):
    state = published()
    keys = list(LAYOUTS[layout](state).items())
    random.shuffle(keys)
    assert_loaded(se_inject.load_se_weights(gated(), dict(keys)), state)


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False), st.booleans())
def test_other_words_are_never_taken_for_others(random, by_node):
    """Whatever the words are, alike in all blocks or in none: the right assignment or an error."""
    state, words = published(), {}

    def word(*key):
        return words.setdefault(key, "".join(random.choices("abcdefgh", k=5)))

    def rename(key):
        *path, name = key.split(".")
        for depth, part in enumerate(path):
            above = path[:depth] if by_node else ()
            path[depth] = re.sub("[a-z]+", lambda found, above=above: word(*above, found[0]), part)
        return ".".join([*path, name])

    theirs, model = {rename(key): value for key, value in state.items()}, gated()
    assume(len(theirs) == len(state))
    try:
        se_inject.load_se_weights(model, theirs)
    except LayoutError as error:
        assert by_node and "names do not tell" in str(error)
    else:
        assert_loaded(model, state)


NARROW = "torchvision.ops.SqueezeExcitation(channels, channels // 16)"


@pytest.mark.parametrize(
    ("pair", "gates"),
    [
        (Pair("timm", "seresnext50_32x4d", "resnext50_32x4d", "torchvision"), "reduction=16"),
        (Pair("timm", "seresnet50t", "resnet50t"), "reduction=16"),
        (Pair("timm", "legacy_seresnet18", "resnet18"), None),
        (Pair("pytorchcv", "seresnet10", "resnet10"), None),
        (Pair("pytorchcv", "sepreresnet10", "preresnet10"), None),
        (Pair("pytorchcv", "seresnet20_cifar10", "resnet20_cifar10"), None),
    ],
    ids=str,
)
def test_twins(pair, gates):
    if "pytorchcv" in (pair.library, pair.plain_library):
        pytest.importorskip("pytorchcv", reason="needs the extra zoo")
    row = compare(pair)
    assert row["gates"] == (gates or NARROW)
    if not pair.gated.startswith("legacy"):  # they round up in their first pool
        assert row["difference"] < 1e-5 < 1e-2 < row["exchanged"]


def test_gate_whose_forward_doubles_it():
    """NFNets' gates are of the identity form, which weights do not tell: docs/weights.md says what to do."""
    torch.manual_seed(0)
    x = torch.randn(1, 3, 64, 64)
    twin, model = randomize(timm.create_model("nf_seresnet26"), x), timm.create_model("nf_resnet26").eval()
    se_inject.load_se_weights(se_inject.apply(model, init="standard"), twin.state_dict())
    assert not torch.allclose(model(x), twin(x), rtol=1e-2)
    for _, gate in se_inject.gates(model):
        gate.set_form("identity")
    torch.testing.assert_close(model(x), twin(x))


def test_linear_gates_without_biases():
    model, state = gated(), published()
    theirs = {key: value for key, value in state.items() if not re.search(r"se\.fc\d\.bias", key)}
    theirs = {key: value.flatten(1) if re.search(r"se\.fc\d", key) else value for key, value in theirs.items()}
    se_inject.load_se_weights(model, renamed(theirs, (r"se\.fc1", "se.fc.0"), (r"se\.fc2", "se.fc.2")))
    assert_loaded(model, {key: theirs.get(key, torch.zeros_like(value)).view_as(value) for key, value in state.items()})


def test_one_gate():
    """With the words of timm's EfficientNets, which are no numbers."""
    gate, theirs = se_inject.SqueezeExcitation(64, init="standard"), torchvision.ops.SqueezeExcitation(64, 8)
    state = {"conv_reduce.weight": theirs.fc1.weight.detach(), "conv_expand.weight": theirs.fc2.weight.detach()}
    se_inject.load_se_weights(gate, state)
    assert torch.equal(gate.fc2.weight, theirs.fc2.weight) and not gate.fc1.bias.any() and not gate.fc2.bias.any()


def test_counters_may_be_missing():
    model, state = gated(), published()
    model.bn1.num_batches_tracked.fill_(7)
    without = {key: value for key, value in state.items() if "num_batches" not in key}
    for layout in (LAYOUTS["own"], LAYOUTS["caffe"]):
        se_inject.load_se_weights(model, layout(without))
        assert model.bn1.num_batches_tracked == 7 and torch.equal(model.bn1.weight, state["bn1.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype):
    """A state dict of which somebody cast everything, counters too."""
    model, state = gated(), {key: value.to(dtype) for key, value in published().items()}
    assert_loaded(se_inject.load_se_weights(model, LAYOUTS["pytorchcv"](state)), state)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32, torch.int64}


def test_parameters_stay_the_same_objects():
    model = gated()
    before = [(id(p), p.requires_grad_(i % 2 == 0).requires_grad) for i, p in enumerate(model.parameters())]
    se_inject.load_se_weights(model, published())
    assert before == [(id(p), p.requires_grad) for p in model.parameters()]


def test_wrapped_models():
    state = published()
    assert_loaded(se_inject.load_se_weights(nn.DataParallel(gated()), state).module, state)
    compiled = torch.compile(gated(), backend="eager")
    se_inject.load_se_weights(compiled, state)
    assert_loaded(compiled._orig_mod, state)


def without(key):
    return lambda state: {name: value for name, value in state.items() if name != key}


def with_extra(**extra):
    return lambda state: state | {name.replace("__", "."): value for name, value in extra.items()}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (without("layer1.1.bn2.running_mean"), r"layer1\.1\.bn2"),
        (without("layer1.1.conv2.weight"), r"missing: layer1\.1\.conv2|missing: 1 of the 2 like layer1\.\d\.conv2"),
        (without("layer2.0.se.fc2.bias"), r"layer2\.0\.se"),
        (with_extra(aux__head__weight=torch.ones(3)), r"left over: (module\.|backbone\.)?aux\.head \(weight \[3\]\)$"),
        (with_extra(layer1__0__downsample__2__fc1__weight=torch.ones(8, 256, 1, 1)), r"layer1\.0\.downsample\.2\.fc1"),
        (lambda state: {}, "missing: "),
        (lambda state: renamed(state, (r"^fc\.bias", "fc.beta")), r"fc.*be?"),
    ],
)
@pytest.mark.parametrize("layout", ["own", "data parallel", "nested"])
def test_what_is_left_or_missing_is_named(layout, change, match):
    assert_refused(LayoutError, match, gated(), LAYOUTS[layout](change(published())))


def test_other_shapes_under_the_same_names():
    """Names are believed: a layer is not taken for another one because its shape would fit there."""
    state = published()
    state["layer1.0.conv1.weight"], state["layer1.1.conv1.weight"] = (
        state["layer1.1.conv1.weight"],
        state["layer1.0.conv1.weight"],
    )
    assert_refused(LayoutError, r"layer1\.0\.conv1\.weight is \(16, 256\), not \(16, 64\)", gated(), state)
    assert_refused(LayoutError, r"fc\.weight is \(5, 2048\), not \(7, 2048\)", other_head(), published())


def other_head():
    model = gated()
    model.fc = nn.Linear(2048, 7)
    return model


@pytest.mark.parametrize(
    ("asked", "advice"),
    [
        ({"reduction": 4}, {"reduction": 4}),
        ({"reduction": lambda site: 4 if site.channels < 1000 else 8}, None),
    ],
)
def test_other_reduction(asked, advice):
    state = gated(**asked).state_dict()
    model = gated()
    with pytest.raises(LayoutError, match="gates of 256 channels have width 64 in the state dict, 16 in the") as raised:
        se_inject.load_se_weights(model, LAYOUTS["caffe"](state))
    said = eval(f"dict({str(raised.value).rpartition('apply with ')[2]})")
    assert advice is None or said == advice
    se_inject.load_se_weights(gated(**said), LAYOUTS["caffe"](state))


def test_weights_without_gates():
    state = network().state_dict()
    assert_refused(LayoutError, "of a network without gates: load it with load_state_dict, before", gated(), state)


def test_models_that_cannot_take_them():
    state = published()
    with pytest.raises(NoGateError, match='apply\\(model, init="standard"\\)'):
        se_inject.load_se_weights(network(), state)
    with pytest.raises(NotAModuleError):
        se_inject.load_se_weights(state, gated())
    assert_refused(InvalidArgumentError, "layer1.0.se: published gates .*standard", se_inject.apply(network()), state)
    blended = se_inject.apply(network(), gate=lambda channels: nn.Sigmoid())
    assert_refused(InvalidArgumentError, "published gates are of the standard form", blended, state)
    with torch.device("meta"):
        on_meta = se_inject.apply(network(), init="standard")
    with pytest.raises(InvalidArgumentError, match="of the model is on the meta device"):
        se_inject.load_se_weights(on_meta, state)
    with pytest.raises(WrappedModelError, match="optimize"):
        se_inject.load_se_weights(se_inject.optimize(gated().eval()), state)


def test_gates_of_another_kind():
    eca = se_inject.apply(network(), gate="eca", init="standard")
    assert_refused(LayoutError, r"gates fits.*layer1\.0\.se\.fc1.*missing: layer1\.0\.se\.conv", eca, published())
    se_inject.load_se_weights(eca, eca.state_dict())


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        (lambda state: {"epoch": 3, "state_dict": state}, InvalidArgumentError, r'its part \["state_dict"\]'),
        (lambda state: {"model": state, "model_ema": state}, InvalidArgumentError, r'its part \["model"\]'),
        (lambda state: se_inject.apply(network()).state_dict(), InvalidArgumentError, "gates are se_inject's of"),
        (lambda state: "weights.pth", ArgumentTypeError, "got str: read the file first"),
        (lambda state: list(state.items()), ArgumentTypeError, "got list"),
        (lambda state: network(), ArgumentTypeError, r"got ResNet: pass its state_dict\(\)"),
        (lambda state: state | {"epoch": 3}, ArgumentTypeError, "epoch is no tensor, but int"),
        (lambda state: state | {3: state["fc.bias"]}, ArgumentTypeError, "strings, got 3"),
        (
            lambda state: state | {"fc.bias": state["fc.bias"].numpy()},
            ArgumentTypeError,
            "fc.bias is no tensor",
        ),
        (
            lambda state: state | {"fc.bias": state["fc.bias"].to("meta")},
            InvalidArgumentError,
            "fc.bias is on the meta",
        ),
        (lambda state: state | {"fc.bias": torch.ones(5).int()}, InvalidArgumentError, "fc.bias is torch.int32"),
        (lambda state: state | {"fc.bias": torch.ones(5) * 1j}, InvalidArgumentError, "fc.bias is torch.complex64"),
        (lambda state: state | {"fc.weight": state["fc.weight"].to_sparse()}, InvalidArgumentError, "sparse"),
        (
            lambda state: state | {"bn1.num_batches_tracked": torch.tensor(0.5)},
            InvalidArgumentError,
            r"bn1\.num_batches_tracked is torch\.float32",
        ),
    ],
)
def test_what_is_no_state_dict_of_weights(wrong, error, match):
    assert_refused(error, match, gated(), wrong(published()))


def test_what_is_too_large_for_the_dtype():
    state = published()
    state["fc.weight"][0, 0] = 1e6
    assert_refused(InvalidArgumentError, r"fc\.weight has values that are too large.*float16", gated().half(), state)
    se_inject.load_se_weights(gated().bfloat16(), state)
    state["fc.weight"][0, 0] = torch.inf
    assert_loaded(se_inject.load_se_weights(gated().half(), state), {k: v.half() for k, v in state.items()})


def test_what_has_no_shape():
    state = published() | {"fc.bias": nn.UninitializedParameter()}
    assert_refused(InvalidArgumentError, r"fc\.bias has no shape", gated(), state)
    state["fc.bias"] = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)
    assert_refused(InvalidArgumentError, r"fc\.bias has no shape", gated(), state)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Block()
        self.register_buffer("scale", torch.ones(1).expand(8))

    def forward(self, x):
        return self.block(x) * self.scale[:, None, None]


def test_buffers_without_memory_of_their_own():
    model = se_inject.apply(Scaled(), init="standard")
    state = {key: value + 1 for key, value in model.state_dict().items()}
    assert_refused(InvalidArgumentError, "^scale of the model is expanded", model, state)
    assert torch.equal(se_inject.to_layout(model, state)["scale"], model.scale)


def test_a_model_of_inference_mode():
    with torch.inference_mode():
        model, state = se_inject.apply(network(), init="standard"), published()
    assert model.fc.weight.is_inference()
    assert_loaded(se_inject.load_se_weights(model, state), state)
    model = gated()
    with torch.inference_mode():
        se_inject.load_se_weights(model, published())
    assert_loaded(model, published())
    assert not any(tensor.is_inference() for tensor in model.state_dict().values())


def test_a_state_dict_that_hooks_make():
    model, state = gated(), published()

    def rename(module, state_dict, prefix, metadata):
        for key in list(state_dict):
            state_dict[f"net.{key}"] = state_dict.pop(key).clone()

    model._register_state_dict_hook(rename)
    se_inject.load_se_weights(model, model.state_dict() | {f"net.{key}": value for key, value in state.items()})
    assert all(torch.equal(value, state[key.removeprefix("net.")]) for key, value in model.state_dict().items())


def test_an_interrupted_load_is_undone(monkeypatch):
    model, state, done = gated(), published(), []

    def interrupted(tensor, value):
        if len(done) == 9:
            raise KeyboardInterrupt
        done.append(tensor.copy_(value))

    before = {key: value.clone() for key, value in model.state_dict().items()}
    monkeypatch.setattr("se_inject.layouts.weights.write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        se_inject.load_se_weights(model, state)
    assert len(done) == 9
    assert_loaded(model, before)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(self.conv1(x))


def blocks(*names):
    """Stages of equal shapes."""
    return se_inject.apply(nn.Sequential(OrderedDict((name, Block()) for name in names)), init="standard")


def test_stages_of_equal_shapes():
    """Their numbers tell them apart, whatever the order of keys; where there are none, it is an error."""
    model, source = blocks("layer1", "layer2"), blocks("stage10", "stage9")
    state = source.state_dict()
    se_inject.load_se_weights(model, state)
    assert torch.equal(model.layer1.conv1.weight, source.stage9.conv1.weight)
    assert_refused(LayoutError, "names do not tell which is which", blocks("early", "late"), state)
    assert_refused(LayoutError, "names do not tell", model, blocks("early", "late").state_dict())
    model, source = blocks("early", "late"), blocks("late", "early")
    rules = (("^", "net."), ("conv1", "conv.0"), ("conv2", "conv.1"))
    se_inject.load_se_weights(model, renamed(source.state_dict(), *rules))
    assert_loaded(model, source.state_dict())


def test_the_models_own_tensors_under_exchanged_names():
    model = blocks("layer1", "layer2")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    exchanged = {f"stage{3 - int(key[5])}{key[6:]}": value for key, value in model.state_dict().items()}
    se_inject.load_se_weights(model, exchanged)
    assert_loaded(model, {f"layer{3 - int(key[5])}{key[6:]}": value for key, value in before.items()})


def test_layers_of_equal_shapes():
    model, state = blocks("0"), blocks("0").state_dict()
    unlike = renamed(state, ("conv1", "first"), ("conv2", "second"))
    assert_refused(LayoutError, r"0\.first, 0\.second have the shapes of the model's 0\.conv1, 0\.conv2", model, unlike)
    se_inject.load_se_weights(model, renamed(state, ("conv1", "conv8"), ("conv2", "conv16")))
    assert torch.equal(model[0].conv2.weight, state["0.conv2.weight"])
    alike = renamed(state, ("conv1", "conv_1"), ("conv2", "conv.1"))
    assert_refused(LayoutError, r"differ in dots, underscores and slashes", model, alike)


class Named(Block):
    def __init__(self):
        super().__init__()
        self.first, self.second = self.conv1, self.conv2
        del self.conv1, self.conv2

    def forward(self, x):
        return x + self.second(self.first(x))


def test_equal_names_without_numbers():
    model, source = (se_inject.apply(nn.Sequential(Named()), init="standard") for _ in range(2))
    se_inject.load_se_weights(model, shuffled(renamed(source.state_dict(), ("^", "net."))))
    assert_loaded(model, source.state_dict())


class TwoPlaces(Block):
    """As timm's CSP networks, whose SE twins have the gate in the middle."""

    def __init__(self):
        super().__init__()
        self.attn = nn.Identity()

    def forward(self, x):
        return x + self.conv2(self.attn(self.conv1(x)))


def test_gates_in_another_place():
    model = se_inject.apply(nn.Sequential(TwoPlaces()), init="standard")
    state = model.state_dict()
    moved = renamed(state, (r"\.se\.", ".attn."))
    assert_refused(LayoutError, r"^0\.attn: the published gate is in this place of its author's", model, moved)
    assert_refused(LayoutError, r"^module\.0\.attn: the", model, renamed(moved, ("^", "module.")))
    with pytest.raises(LayoutError, match=r"^0\.attn: the published gate"):
        se_inject.to_layout(model, moved)


class Projected(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 1)
        self.shortcut = nn.Conv2d(8, 16, 1)

    def forward(self, x):
        return self.shortcut(x) + self.conv2(self.conv1(x))


def test_branch_and_shortcut_of_equal_shapes():
    """Names that mean something elsewhere decide, and otherwise nobody does."""
    unlike = (("conv2", "main"), ("shortcut", "side"))
    alone = se_inject.apply(nn.Sequential(Projected()), init="standard")
    assert_refused(LayoutError, r"0\.main, 0\.side have the", alone, renamed(alone.state_dict(), *unlike))

    def network():
        larger = Projected()
        larger.conv1, larger.conv2, larger.shortcut = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 32, 1), nn.Conv2d(16, 32, 1)
        return se_inject.apply(nn.Sequential(Projected(), larger), init="standard")

    model, source = network(), network()
    se_inject.load_se_weights(model, renamed(source.state_dict(), *unlike))
    assert_loaded(model, source.state_dict())


class Normed(Projected):
    def __init__(self):
        super().__init__()
        self.norm2 = nn.BatchNorm2d(16)
        self.shortcut = nn.Sequential(self.shortcut, nn.BatchNorm2d(16))

    def forward(self, x):
        return self.shortcut(x) + self.norm2(self.conv2(self.conv1(x)))


def test_a_convolution_with_its_norm_is_not_told_by_being_together():
    """Here they are together in the shortcut, there at the end of the branch."""
    model = se_inject.apply(nn.Sequential(Normed()), init="standard")
    rules = (("conv2", "last.conv"), ("norm2", "last.bn"), (r"shortcut\.0", "side"), (r"shortcut\.1", "sidenorm"))
    assert_refused(LayoutError, r"0\.last\.\w+, 0\.side\w* have the shapes", model, renamed(model.state_dict(), *rules))
