"""Evaluation of any network, plain or with gates, at the paper's protocols and its library's own, and ensembles."""

import json
import re
import shutil
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from PIL import Image
from pytorchcv.model_provider import get_model
from torch import nn
from torchvision.transforms import v2

import se_inject
from recipes.commands import evaluate
from recipes.data import open_data
from recipes.errors import CheckpointError, DataError, SettingsError, UnknownNameError
from recipes.networks import libraries
from recipes.networks.any_model import Model
from recipes.weights.described import Description, save_model

from .images import write_images

CLASSES = ["ant", "bee", "cat"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Six images to evaluate on, of three classes, and none to train on."""
    root = write_images(tmp_path_factory.mktemp("evaluate"), train=0)
    shutil.rmtree(root / "train")
    return root


@pytest.fixture
def run(images, tmp_path):
    """Calls the command on these images."""
    return lambda *flags: evaluate.main([*map(str, flags), "--data", str(images), "--out", str(tmp_path / "e.json")])


@pytest.fixture
def save(tmp_path):
    """Saves a network of random weights, all of which count, as others do or as we do."""

    def save(network, name="w.pth", model=None):
        torch.manual_seed(0)
        for value in network.state_dict().values():
            if value.is_floating_point() and value.ndim < 2:
                value.add_(torch.rand(value.shape))
        path = tmp_path / name
        if model is None:
            torch.save(network.state_dict(), path)
        else:
            save_model(path, network, Description(model, model.preprocess(None), CLASSES))
        return path

    return save


def predictions(network, transform, root):
    """Probabilities of the validation images, and their labels, without any code of ours."""
    data = torchvision.datasets.ImageFolder(str(root / "val"))
    with torch.no_grad():
        rows = [network.eval()(transform(image)).softmax(1).mean(0) for image, _ in data]
    return torch.stack(rows), torch.tensor(data.targets)


def check(row, probability, labels):
    assert row["loss"] == pytest.approx(-probability[range(len(labels)), labels].log().mean().item(), rel=1e-3)
    assert row["top1"] == pytest.approx(100 * (probability.argmax(1) != labels).float().mean().item(), abs=1e-4)


def _of_timm(name):
    config = timm.data.resolve_data_config(timm.get_pretrained_cfg(name).to_dict())
    return timm.data.create_transform(**config)


def _of_pytorchcv(size):
    """As its own evaluation has it: the crop is 0.875 of the shorter edge, rounded up."""
    normalize = v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    steps = [v2.Resize(-(-size * 8 // 7)), v2.CenterCrop(size), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    return v2.Compose([*steps, normalize])


LIBRARIES = {
    "timm/test_resnet.r160_in1k": lambda: (timm.create_model("test_resnet", num_classes=3), _of_timm("test_resnet")),
    "torchvision/mobilenet_v3_small": lambda: (
        torchvision.models.mobilenet_v3_small(num_classes=3),
        torchvision.models.MobileNet_V3_Small_Weights.IMAGENET1K_V1.transforms(),
    ),
    "pytorchcv/mobilenetv2_wd4": lambda: (get_model("mobilenetv2_wd4", num_classes=3), _of_pytorchcv(224)),
}


@pytest.mark.parametrize("name", LIBRARIES)
def test_plain_network_of_any_library(name, run, save, images):
    """With the library's own inputs, and its own predictions; networks with gates of their own are as they are."""
    network, transform = LIBRARIES[name]()
    path = save(network)
    (row,) = run("--network", name, "--plain", "--checkpoint", path)
    assert (row["network"], row["gates"], row["crops"]) == (name, "none", 1)
    check(row, *predictions(network, lambda image: transform(image)[None], images))
    assert run("--network", name, "--checkpoint", path) == [row]  # the file has no gates, whether that is said or not


@pytest.mark.parametrize("init", ["standard", "identity"])
@pytest.mark.parametrize("name", ["pytorchcv/mobilenetv2_wd4", "se_resnet20"])
def test_gates_are_as_the_file_has_them(name, init, run, save):
    network = se_inject.apply(Model(name, "none", 3).build(), init=init)
    path = save(network)
    (row,) = run("--network", name, "--checkpoint", path)
    assert row["gates"] == init
    with pytest.raises(CheckpointError, match=r"w\.pth: has \d+ tensors that the plain .* lacks .*leave --plain out"):
        run("--network", name, "--plain", "--checkpoint", path)


def test_network_with_gates_of_its_own(run, save, images):
    network = get_model("seresnet10", num_classes=3)
    (row,) = run("--network", "pytorchcv/seresnet10", "--checkpoint", save(network))
    assert row["gates"] == "none"
    transform = _of_pytorchcv(224)
    check(row, *predictions(network, lambda image: transform(image)[None], images))


def test_files_as_others_published_them(run, save, tmp_path):
    """timm's legacy names; a wrong number of classes; a head for training alone; DenseNet's names of old."""
    with torch.device("meta"):
        legacy = timm.create_model("legacy_seresnet50", num_classes=3).state_dict()
    path = tmp_path / "legacy.pth"
    torch.save({key: torch.zeros(value.shape, dtype=value.dtype) for key, value in legacy.items()}, path)
    with pytest.raises(CheckpointError, match=r"legacy\.pth: does not say which network"):
        run("--checkpoint", path)
    (row,) = run("--network", "se_resnet50_caffe", "--checkpoint", path, "--size", 32)
    assert row["gates"] == "standard"  # under names of timm's that the network does not have
    wide = save(timm.create_model("test_resnet", num_classes=7))
    with pytest.raises(CheckpointError, match=r"for other classes: .*is \(7, .*not \(3, "):
        run("--network", "timm/test_resnet", "--checkpoint", wide)
    with pytest.raises(CheckpointError, match=r"w\.pth: these weights are of another network"):
        run("--network", "se_resnet20", "--checkpoint", wide)

    plain = timm.create_model("test_resnet", num_classes=3)
    (row,) = run("--network", "timm/test_resnet", "--checkpoint", save(plain))
    torch.save({f"module.{key}": value for key, value in plain.state_dict().items()}, tmp_path / "w.pth")
    assert run("--network", "timm/test_resnet", "--plain", "--checkpoint", tmp_path / "w.pth") == [row]
    plain.AuxLogits = nn.Linear(2, 3)
    torch.save(plain.state_dict(), tmp_path / "w.pth")
    assert run("--network", "timm/test_resnet", "--checkpoint", tmp_path / "w.pth") == [row]

    dense = torchvision.models.densenet121(num_classes=3)
    (row,) = run("--network", "torchvision/densenet121", "--checkpoint", save(dense), "--size", 32)
    old = {
        re.sub(r"(norm|conv)(\d)\.", r"\1.\2.", k) if "denselayer" in k else k: v for k, v in dense.state_dict().items()
    }
    assert any(".norm.1." in key for key in old)
    torch.save(old, tmp_path / "w.pth")
    assert run("--network", "torchvision/densenet121", "--checkpoint", tmp_path / "w.pth", "--size", 32) == [row]


def test_names_that_are_wrong(run, save):
    path = save(timm.create_model("test_resnet", num_classes=3))
    for name, says in [
        ("timm/resnet5O", "timm/resnet50"),
        ("pytorchcv/preresnet200c", "pytorchcv/preresnet200b"),
        ("timm/resnet50.no_such_tag", "no such model"),
        ("caffe/resnet50", "no such model"),
        ("se_resnet_200", "se_resnet200"),
    ]:
        with pytest.raises(UnknownNameError, match=says):
            run("--network", name, "--checkpoint", path)
    with pytest.raises(SettingsError, match="pytorchcv/resnet20_cifar10: its library does not build it with 3 outputs"):
        run("--network", "pytorchcv/resnet20_cifar10", "--checkpoint", path)
    with pytest.raises(SettingsError, match="--network has 2 names for 1 files"):
        run("--network", "timm/test_resnet", "se_resnet20", "--checkpoint", path)
    with pytest.raises(SettingsError, match=r"timm/test_vit cannot take images of 33 pixels.*try another --size$"):
        run(
            "--network",
            "timm/test_vit",
            "--size",
            33,
            "--checkpoint",
            save(timm.create_model("test_vit", num_classes=3)),
        )


def test_inputs_of_the_libraries():
    """Those of the weights, where the name tells which."""
    found = {
        name: libraries.inputs(name)
        for name in ("timm/inception_v4", "timm/resnet50.a1_in1k", "torchvision/inception_v3", "pytorchcv/polynet")
    }
    assert [(one.size, one.resize) for one in found.values()] == [(299, 341), (224, 235), (299, 342), (331, 379)]
    small = libraries.inputs("pytorchcv/resnet20_cifar10")
    assert (small.size, small.resize, small.mean) == (32, 32, (0.4914, 0.4822, 0.4465))
    assert found["timm/inception_v4"].interpolation == "bicubic" and found["timm/inception_v4"].mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("size", "own", "papers"), [(None, 168, 183), (224, 256, 256), (320, 352, 352), (299, 352, 352)]
)
def test_protocols(size, own, papers, run, save):
    """At another size than its own, a network has the paper's shorter edge; with --protocol paper at its own, too."""
    name = "timm/test_resnet.r160_in1k"
    path = save(Model(name, "none", 3).build())
    sizes = ["--size", size] if size else []
    for protocol, resize in (("own", own), ("paper", papers)):
        (row,) = run("--checkpoint", path, "--network", name, *sizes, "--protocol", protocol)
        assert (row["size"], row["resize"], row["crops"]) == (size or 160, resize, 1)


def test_ensemble_of_networks_sizes_and_crops(run, save, images, tmp_path):
    """As for the challenge entry: each network at each size, and the mean of all probabilities."""
    model = Model("se_resnet20", "standard", 3)
    ours = model.build()
    theirs = get_model("mobilenetv2_wd4", num_classes=3)
    files = [save(ours, "m.safetensors", model), save(theirs)]
    theirs.features.final_pool = nn.AdaptiveAvgPool2d(1)  # its own is for 224 pixels alone
    names = ["--network", "se_resnet20", "pytorchcv/mobilenetv2_wd4"]
    for flags, crops in ([["--flip"], 2], [["--flip", "--ten-crop"], 10]):
        rows = run("--checkpoint", *files, *names, "--size", 14, 21, *flags)
        assert [row.get("size") for row in rows] == [14, 21, 14, 21, None]
        assert [row.get("crops") for row in rows] == [crops] * 4 + [None]
        assert rows[-1]["checkpoint"] == "ensemble of 4"
        fused = []
        for network in (ours, theirs):
            for size, edge in ((14, 16), (21, 24)):
                transform = _crops(size, edge, crops)
                fused.append(predictions(network, transform, images)[0])
        check(rows[-1], torch.stack(fused).mean(0), predictions(ours, _crops(14, 16, 1), images)[1])
    assert json.loads((tmp_path / "e.json").read_text()) == {"images": 6, "results": rows}


def _crops(size, edge, crops):
    normalize = v2.Compose(
        [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )

    def of(image: Image.Image) -> torch.Tensor:
        image = v2.Resize(edge)(image)
        parts = v2.TenCrop(size)(image) if crops == 10 else [v2.CenterCrop(size)(image)]
        if crops == 2:
            parts.append(v2.RandomHorizontalFlip(1.0)(parts[0]))
        return torch.stack([normalize(part) for part in parts])

    return of


def test_refuses(run, save, images, tmp_path):
    model = Model("se_resnet20", "standard", 3)
    file = save(model.build(), "m.safetensors", model)
    wide = Model("se_resnet20", "standard", 12)
    both = [file, save(wide.build(), "wide.safetensors", wide)]
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:5000])
    out = ["--out", str(tmp_path / "e.json")]
    for flags, error, says in [
        (["--checkpoint", *both], SettingsError, "different numbers of outputs"),
        (["--checkpoint", file, "--resize", 4], SettingsError, "smaller than the crop"),
        (["--checkpoint", file, "--plain"], CheckpointError, r"holds se_resnet20 with gates, not the plain network"),
        (["--checkpoint", file, "--network", "se_resnet56"], CheckpointError, "of se_resnet20, not of se_resnet56"),
        (["--checkpoint", tmp_path / "cut.safetensors"], CheckpointError, r"cut\.safetensors: cannot be read"),
        (["--checkpoint", tmp_path / "none.pth", "--network", "se_resnet20"], CheckpointError, "no such file"),
        (["--checkpoint", file, "--size", 0], SystemExit, "2"),
    ]:
        with pytest.raises(error, match=says):
            run(*flags)
    with pytest.raises(CheckpointError, match="was trained on other classes"):
        evaluate.main(["--checkpoint", str(file), *out])  # the digits
    with pytest.raises(SettingsError, match="need a larger --resize"):
        digits = Model("se_resnet20", "none", 10)
        save_model(file, digits.build(), Description(digits, digits.preprocess(8), open_data(None).classes))
        evaluate.main(["--checkpoint", str(file), "--ten-crop", *out])
    with pytest.raises(SettingsError, match="cannot be written"):
        evaluate.main(["--checkpoint", str(file), "--out", str(file / "e")])
    with pytest.raises(DataError, match="no such directory"):
        evaluate.main(["--checkpoint", str(file), "--data", "nowhere", *out])
    assert not Path(out[1]).exists()
