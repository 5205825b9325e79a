"""Pretrained networks for other classes: heads, weights of others, what learns, and features that are computed once."""

import copy
import json
import sys
from argparse import Namespace
from dataclasses import replace
from types import SimpleNamespace

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

import se_inject
from recipes.commands import finetune
from recipes.commands.transfer import Pretrained
from recipes.errors import CheckpointError, SettingsError, UnknownNameError
from recipes.networks.any_model import Model
from recipes.networks.base import build_base, own_preprocess
from recipes.networks.heads import find_head, replace_head
from recipes.training.features import cut
from recipes.training.partial import freeze_rest, trained_modules, training_mode
from recipes.weights.described import Description, load_model, save_model
from recipes.weights.load import read_weights
from recipes.weights.pretrained import load_pretrained, renamed

from .runs import Tiny, short_run, train

CLASSES = ["ant", "bee", "cat"]


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("timm/resnet18", "fc"),
        ("timm/convnext_atto", "head.fc"),
        ("timm/deit_tiny_distilled_patch16_224", "head head_dist"),
        ("torchvision/squeezenet1_1", "classifier.1"),  # a convolution
        ("torchvision/vgg11", "classifier.6"),
        ("torchvision/googlenet", "fc"),
        ("torchvision/regnet_y_400mf", "fc"),  # is not built on the meta device
        ("pytorchcv/mobilenetv2_wd4", "output"),  # a convolution
        ("pytorchcv/inceptionv4", "output.fc"),
        ("pytorchcv/resnet20_cifar10", "output"),  # has 10 or 100 outputs
        ("se_bn_inception", "fc"),
    ],
)
def test_the_head_is_found(name, head):
    assert " ".join(find_head(name)) == head


def test_a_named_head_is_replaced():
    network = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.Flatten(), nn.Linear(8, 5, bias=False))
    replace_head(network, ["0", "2"], 7)
    assert (network[0].out_channels, network[2].out_features) == (7, 7)
    assert network[0].bias is None and network[2].bias is None
    for name, says in (("1", "it is a Flatten"), ("3", "no such layer"), ("", "no such layer")):
        with pytest.raises(SettingsError, match=says):
            replace_head(network, ["2", name], 9)
    assert network[2].out_features == 7


@pytest.fixture
def my_networks(tmp_path, monkeypatch):
    """A module of the user's with functions that make networks."""
    (tmp_path / "my_networks.py").write_text(
        "import torchvision\n"
        "def told(num_classes=1000): return torchvision.models.squeezenet1_1(num_classes=num_classes)\n"
        "def alone(): return torchvision.models.resnet18()\n"
        "def wrong(): return 3\n"
        "def broken(): raise KeyError('weights')\n"
        "network = torchvision.models.squeezenet1_1()\n"
        "builtin = dict\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_networks", None)


def test_networks_of_a_function(my_networks):
    told = Model("my_networks:told", "none", 3)
    assert told.build()(torch.zeros(1, 3, 32, 32)).shape == (1, 3) and told.head_layers() == ("classifier.1",)
    with pytest.raises(SettingsError, match=r"no layer follows the number of classes; .* such as --head fc"):
        Model("my_networks:alone", "none", 3).head_layers()
    alone = Model("my_networks:alone", "identity", 3, head=("fc",))
    assert alone.build().fc.out_features == 3 and alone.head_layers() == ("fc",)
    for name, error, says in (
        ("no_such:alone", UnknownNameError, "ModuleNotFoundError"),
        ("my_networks:nothing", UnknownNameError, "AttributeError"),
        ("my_networks:wrong", SettingsError, "must return a torch.nn.Module, got int"),
        ("my_networks:broken", SettingsError, r"fails \(KeyError"),
        ("my_networks:network", SettingsError, "must be a function"),
        ("my_networks:builtin", SettingsError, r"fails \(ValueError: no signature"),
    ):
        with pytest.raises(error, match=says):
            build_base(name, 3)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_with_auxiliary_classifiers(name, tmp_path):
    """Published weights have them, and take inputs from -1 to 1, which torchvision's networks make of ImageNet's."""
    torch.manual_seed(0)
    published = torchvision.models.get_model(name, init_weights=False, transform_input=True).eval()
    for module in published.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)  # or outputs hardly depend on inputs
    torch.save(published.state_dict(), tmp_path / "w.pth")
    model = Model(f"torchvision/{name}", "none", 1000)
    network = model.build()
    origin = load_pretrained(network, model, tmp_path / "w.pth", [str(i) for i in range(1000)])
    assert not origin.new_head
    images, own = torch.rand(2, 3, 96, 96), own_preprocess(model.name)
    normalized, imagenet = (
        torchvision.transforms.functional.normalize(images, p.mean, p.std)
        for p in (own, own_preprocess("torchvision/resnet18"))
    )
    assert own.size == (299 if name == "inception_v3" else 224)
    torch.testing.assert_close(network.eval()(normalized), published(imagenet), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(network(imagenet), published(imagenet), rtol=1e-2, atol=1e-2)
    assert isinstance(network.train()(normalized), torch.Tensor)  # the main output alone


def old_names(state):
    """MobileNetV2 as published before torchvision's: layers of a block in one sequence, no classifier, wrapped."""
    found = {}
    for key, value in state.items():
        block, _, rest = key.partition(".conv.")
        if rest:
            path = rest.split(".")
            inner = 3 * int(path[0]) + int(path[1]) if len(path) == 3 else None
            steps = 3 * sum(f"{block}.conv.{i}.0.weight" in state for i in (0, 1))
            if inner is None:
                first = max(int(k.split(".")[3]) for k in state if k.startswith(f"{block}.conv.")) - 1
                inner = steps + int(path[0]) - first
            key = f"{block}.conv.{inner}.{path[-1]}"
        if not key.startswith("classifier"):
            found[f"module.{key}"] = value
    return dict(sorted(found.items()))  # as files of safetensors have them


@pytest.fixture(scope="module")
def mobilenet():
    torch.manual_seed(1)
    return torchvision.models.mobilenet_v2().state_dict()


_OTHER = "the file has 1000 outputs, the data 3 classes"


@pytest.mark.parametrize("rename", [old_names, lambda state: {f"module.{key}": state[key] for key in state}, dict])
def test_pretrained_weights_under_other_names(mobilenet, rename, tmp_path):
    state = rename(mobilenet)
    save_file(state, tmp_path / "w.safetensors")
    model = Model("torchvision/mobilenet_v2", "none", 3)
    network = model.build()
    head = network.classifier[1].weight.clone()
    origin = load_pretrained(network, model, tmp_path / "w.safetensors", CLASSES)
    assert origin.new_head == ("classifier.1",)
    assert origin.why == (
        "the file has none" if rename is old_names else "the file has 1000 outputs, the data 3 classes"
    )
    found = network.state_dict()
    assert all(torch.equal(found[key], mobilenet[key]) for key in found if not key.startswith("classifier"))
    assert torch.equal(network.classifier[1].weight, head)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
def test_weights_inside_a_checkpoint(wrapper, tmp_path):
    torch.save({"epoch": 3, wrapper: {"fc.bias": torch.ones(2)}}, tmp_path / "w.pth")
    assert list(read_weights(tmp_path / "w.pth")) == ["fc.bias"]


def test_numbers_in_names_count_as_numbers():
    theirs = {f"layers.{i}.weight": torch.full((2,), float(i)) for i in (10, 9, 11, 8)}
    found = renamed(theirs, {f"layers.{i}.weight": torch.zeros(2) for i in range(4)})
    assert {key: value[0].item() for key, value in found.items()} == {f"layers.{i}.weight": 8 + i for i in range(4)}


def test_pretrained_weights_that_do_not_fit(mobilenet, tmp_path):
    model = Model("torchvision/mobilenet_v2", "none", 3)
    network = model.build()
    before = copy.deepcopy(network.state_dict())
    other = dict(old_names(mobilenet))
    other["module.features.4.conv.3.weight"] = torch.zeros(9, 1, 3, 3)
    lacks = {key: value for key, value in mobilenet.items() if not key.startswith("features.17.")}
    more = mobilenet | {"features.19.0.weight": torch.zeros(3)}
    projector = old_names(mobilenet) | {"module.projector.weight": torch.zeros(3)}
    for state in (other, lacks, more, projector, {"weight": torch.zeros(2)}):
        torch.save(state, tmp_path / "w.pth")
        with pytest.raises(CheckpointError, match="another network"):
            load_pretrained(network, model, tmp_path / "w.pth", CLASSES)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_when_the_head_stays(tmp_path):
    model = Model("se_resnet20", "none", 3)
    torch.manual_seed(1)
    trained = model.build()
    save_model(tmp_path / "m.safetensors", trained, Description(model, model.preprocess(8), CLASSES))
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    torch.save(Model("se_resnet20", "none", 5).build().state_dict(), tmp_path / "five.pth")

    def new_head(file, classes=CLASSES, **options):
        network = model.build()
        origin = load_pretrained(network, model, tmp_path / file, classes, **options)
        assert torch.equal(network.fc.weight, trained.fc.weight) is not bool(origin.new_head)
        if "five" not in file:
            assert torch.equal(network.conv1.weight, trained.conv1.weight)
        return origin.why

    assert new_head("m.safetensors") == "" and new_head("w.pth") == ""
    assert new_head("w.pth", ["x", "y", "z"]) == ""  # it does not say which classes: as many
    assert new_head("m.safetensors", ["ant", "bee", "dog"]).startswith("the file is of 3 classes (ant, bee, cat), the")
    assert new_head("m.safetensors", new_head=True) == new_head("w.pth", new_head=True) == "as asked for"
    assert new_head("five.pth") == "the file has 5 outputs, the data 3 classes"
    with pytest.raises(CheckpointError, match="holds weights of se_resnet20, not of se_resnet56"):
        load_pretrained(model.build(), replace(model, name="se_resnet56"), tmp_path / "m.safetensors", CLASSES)
    gated = replace(model, gates="identity")
    save_model(tmp_path / "g.safetensors", gated.build(), Description(gated, model.preprocess(8), CLASSES))
    with pytest.raises(CheckpointError, match="has gates already"):
        load_pretrained(model.build(), model, tmp_path / "g.safetensors", CLASSES)


def prepared(name, trained, **fields):
    """A network for three classes in its training mode, with the modules that learn."""
    torch.manual_seed(0)
    model = Model(name, "identity" if "gates" in trained else "none", 3, **fields)
    network = model.build()
    for _, gate in se_inject.gates(network):
        nn.init.normal_(gate.fc2.weight)
    freeze_rest(network, trained, model.head_layers())
    training_mode(network, trained, model.head_layers())
    return network, trained_modules(network, trained, model.head_layers())


@pytest.mark.parametrize(
    ("name", "trained", "fields"),
    [
        ("torchvision/mobilenet_v2", "gates", {"kinds": ("residual", "noskip")}),
        ("timm/test_resnet", "gates+norm", {}),
        ("timm/test_resnet", "gates", {"position": "pre"}),
        ("torchvision/googlenet", "gates", {}),
        ("timm/test_convnext", "head", {}),
        ("timm/test_convnext", "norm", {}),
    ],
)
def test_a_network_is_cut_before_what_learns(name, trained, fields):
    """Both parts one after the other make what the whole makes, and give what learns the same gradients."""
    network, learning = prepared(name, trained, **fields)
    images = torch.randn(2, 3, 64, 64)
    whole = copy.deepcopy(network)
    parts = cut(network, learning, images)
    features = parts.frozen(images)
    assert not any(value.requires_grad for value in features)
    logits, expected = parts.rest(features), whole(images)
    torch.testing.assert_close(logits, expected)
    logits.square().sum().backward()
    expected.square().sum().backward()
    gradients = {name: p.grad for name, p in whole.named_parameters() if p.requires_grad}
    assert gradients
    for name, parameter in network.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name])
    for name, buffer in network.named_buffers():  # statistics of norms that learn moved once
        torch.testing.assert_close(buffer, whole.get_buffer(name))


def test_statistics_that_move_are_not_cached():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False), nn.Flatten(), nn.Linear(16, 2))
    network.eval().requires_grad_(False)
    parts = cut(network, [network[1].train(), network[3].train().requires_grad_()], torch.randn(2, 3, 2, 2))
    (features,) = parts.frozen(torch.randn(2, 3, 2, 2))
    assert features.shape == (2, 4, 2, 2) and not network[1].running_mean.any()
    parts.rest([features])
    assert network[1].running_mean.any()


class Branching(nn.Sequential):
    def forward(self, x):
        return super().forward(x if x.mean() > 0 else -x)


class Random(nn.Sequential):
    def forward(self, x):
        return super().forward(x + torch.rand_like(x))


class Lists(nn.Module):
    """Its branches come as a list, which it writes to, as HRNet's."""

    def forward(self, branches):
        branches[0] = branches[0] + 1
        return branches[0]


class Branched(nn.Sequential):
    def forward(self, x):
        return self[1](self[0]([x]))


def test_networks_that_cannot_be_cut():
    layers = [nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(16, 2)]
    images = torch.ones(2, 3, 2, 2)
    for network, learning, says in (
        (Branching(*layers), 2, "its forward cannot be traced"),
        (Branched(Lists(), nn.Flatten(), nn.Linear(12, 2)), 2, "its forward cannot be traced"),
        (Random(*layers), 2, "its parts do not make what the whole network makes"),
        (nn.Sequential(*layers), 0, "nothing is frozen before"),
    ):
        network.eval().requires_grad_(False)
        with pytest.raises(SettingsError, match=f"cannot be cached: {says}.*leave out --cache"):
            cut(network, [network[learning].requires_grad_().train()], images)


@pytest.mark.parametrize(("trained", "changes"), [("gates", {}), ("head", {"ema": 0.5}), ("gates+norm", {"clip": 1.0})])
def test_training_on_cached_features_ends_with_the_same_weights(trained, changes, tmp_path):
    runs = []
    for cache in (False, True):
        run = short_run(tmp_path / str(cache), augmentation="none", trained=trained, head=("fc.2",), **changes)
        network = Tiny()
        rows, _ = train(replace(run, cache=cache), network)
        runs.append((rows, network.state_dict(), load_file(run.folder / "model.safetensors")))
    (rows, weights, saved), (cached_rows, cached_weights, cached_saved) = runs
    start = Tiny().state_dict()
    assert any(not torch.allclose(weights[key], start[key]) for key in weights)
    for key in weights:
        torch.testing.assert_close(cached_weights[key], weights[key], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(cached_saved[key], saved[key], rtol=1e-5, atol=1e-6)
    for row, cached in zip(rows, cached_rows, strict=True):
        assert cached["val_loss"] == pytest.approx(row["val_loss"], rel=1e-5) and cached["val_top1"] == row["val_top1"]


def test_features_are_not_cached_where_they_would_change(tmp_path, monkeypatch):
    run = short_run(tmp_path / "run", augmentation="none", trained="gates")
    for settings, trained in (({"augmentation": "small"}, "gates"), ({"mixup": 0.2}, "gates"), ({}, "all")):
        with pytest.raises(SettingsError, match="features cannot be cached"):
            replace(run, settings=replace(run.settings, **settings), trained=trained, cache=True)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=20000))
    with pytest.raises(SettingsError, match=r"136 images before the first trained layer take 0\.0 MB of memory, and"):
        train(replace(run, cache=True))


FLAGS = ["--epochs", "1", "--batch", "6", "--size", "16", "--augmentation", "none"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A plain network's, for ten classes."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.save(Model("se_resnet20", "none", 10).build().state_dict(), path)
    return path


@pytest.mark.parametrize("way", ["head", "norm", "gates+norm"])
def test_finetune_trains_what_was_asked_for(way, weights, folders, tmp_path, capsys):
    flags = ["--model", "se_resnet20", "--weights", str(weights), "--data", str(folders), "--train", way, *FLAGS]
    report = finetune.main([*flags, "--out", str(tmp_path / "run"), *(["--cache"] * (way != "norm"))])
    said = capsys.readouterr().out
    assert "new head fc: the file has 10 outputs, the data 3 classes" in said
    assert ("unchanged by the gates, to the bit" in said) is ("gates" in way)
    folder = "gates" if "gates" in way else way
    before, after = torch.load(weights), load_file(tmp_path / "run" / folder / "model.safetensors")
    moved = {key for key in before if before[key].shape != after[key].shape or not torch.equal(before[key], after[key])}
    norms = {key for key in before if "bn" in key or (".1." in key and "layer" in key)}
    assert moved - norms == {"fc.weight", "fc.bias"}
    assert bool({key for key in moved if "running" in key}) is ("norm" in way)
    assert any(".se." in key for key in after) is ("gates" in way)
    control = load_file(tmp_path / "run" / "plain" / "model.safetensors")
    assert control.keys() == before.keys() and not torch.equal(control["conv1.weight"], before["conv1.weight"])
    assert len(report) == 3 and json.loads((tmp_path / "run" / "report.json").read_text()) == report


def test_finetune_puts_gates_where_and_as_asked_for(mobilenet, folders, tmp_path):
    torch.save(mobilenet, tmp_path / "w.pth")
    flags = ["--model", "torchvision/mobilenet_v2", "--weights", str(tmp_path / "w.pth"), "--data", str(folders)]
    gates = ["--kinds", "residual", "noskip", "--gate", "eca", "--train", "gates", "--batch", "12"]
    finetune.main([*flags, *FLAGS, *gates, "--per-class", "4", "--val-per-class", "1", "--out", str(tmp_path / "run")])
    network, about = load_model(tmp_path / "run" / "gates" / "model.safetensors")
    found = dict(se_inject.gates(network))
    assert [f"features.{i}.se" for i in range(1, 18)] == list(found)
    assert all(isinstance(gate.gate, timm.layers.EcaModule) for gate in found.values())
    assert about.classes == CLASSES and about.model.kinds == ("residual", "noskip")


def test_finetune_refuses(weights, folders, tmp_path, monkeypatch):
    monkeypatch.setattr("recipes.training.state.Training.train_on", lambda *_: pytest.fail("it trained"))
    flags = ["--model", "se_resnet20", "--weights", str(weights), "--data", str(folders), *FLAGS]
    for more, error, says in (
        (["--cache"], SettingsError, "--train all leaves nothing frozen"),
        (["--cache", "--train", "head", "--augmentation", "small"], SettingsError, "need --augmentation none"),
        (["--kinds", "residuals"], se_inject.errors.InvalidArgumentError, "kinds must be one or more of"),
        (["--position", "first"], se_inject.errors.InvalidArgumentError, "position must be one of"),
        (["--gate", "no_such"], se_inject.errors.InvalidArgumentError, "no_such"),
        (["--head", "layer9"], SettingsError, "--head layer9: the network has no such layer"),
        (["--train", "everything"], SystemExit, "2"),
        (["--per-class", "0"], SystemExit, "2"),
    ):
        with pytest.raises(error, match=says):
            finetune.main([*flags, *more, "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_networks_without_what_was_asked_for(tmp_path):
    """The error says which flag to change."""
    plain = Model("timm/test_vit", "none", 3)
    vit = Pretrained(tmp_path / "w.pth", plain, replace(plain, gates="identity"), CLASSES)
    with pytest.raises(SettingsError, match=r"nothing to gate: .*; --train head or norm trains without gates"):
        vit.begin("gates", plain.build(), 0)
    with pytest.raises(SettingsError, match="no norm has parameters; choose another --train than norm"):
        freeze_rest(nn.Linear(2, 3), "norm")


def test_files_that_are_no_weights_of_this_network(tmp_path):
    model, path = Model("se_resnet20", "none", 3), tmp_path / "w.pth"
    network = model.build()
    state = network.state_dict()
    for content, says in (
        (network, r"holds more than tensors \(torch\.nn\.[\w.]+\), or is damaged; if you trust it"),
        ({key: value.to("meta") for key, value in state.items()}, "its tensors have no values"),
        (
            state | {"fc.weight": torch.zeros(3, 7)},
            r"its head is of another network: fc\.weight is \(3, 7\), not \(3, 64\)",
        ),
    ):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=says):
            load_pretrained(network, model, path, CLASSES)
    torch.save(state | {"fc.weight": torch.tensor(1.0), "fc.bias": torch.tensor(1.0)}, path)
    assert load_pretrained(network, model, path, CLASSES).why == "the file has none"
    torch.save({"state_dict": state, "args": Namespace(epochs=3)}, path)  # as timm's training does
    assert not load_pretrained(network, model, path, CLASSES).new_head
