"""The published networks: exact added parameters, and timm's own SE networks reproduced.

Site lists are (channels, squeezed channels) in the order of the network, from the authors' published definitions at
https://github.com/hujie-frank/SENet (commit 0262d43) and, for the derived networks, from timm 1.0.31.
"""

import pytest
import timm
import torch
import torchvision

import se_inject

tv = torchvision.models


def stages(*counts):
    return [width for width, count in zip((256, 512, 1024, 2048), counts, strict=True) for _ in range(count)]


INCEPTION_RESNET_V2 = [320] * 11 + [1088] * 21 + [2080] * 11
GOOGLENET = [256, 480, 512, 512, 512, 528, 832, 832, 1024]

# network: base, widths of the sites, learnable parameters without and with gates
NETWORKS = {
    "SE-ResNet-50": (lambda: tv.resnet50(), stages(3, 4, 6, 3), 25_557_032, 28_088_024),
    "SE-ResNet-101": (lambda: tv.resnet101(), stages(3, 4, 23, 3), 44_549_160, 49_326_872),
    "SE-ResNet-152": (lambda: tv.resnet152(), stages(3, 8, 36, 3), 60_192_808, 66_821_848),
    "SE-ResNeXt-50": (lambda: tv.resnext50_32x4d(), stages(3, 4, 6, 3), 25_028_904, 27_559_896),
    "SE-ResNeXt-101": (lambda: timm.create_model("resnext101_32x4d"), stages(3, 4, 23, 3), 44_177_704, 48_955_416),
    "SE-Inception-ResNet-v2": (
        lambda: timm.create_model("inception_resnet_v2"),
        INCEPTION_RESNET_V2,
        55_843_464,
        65_092_718,
    ),
    "SE-GoogLeNet": (lambda: tv.googlenet(aux_logits=False, init_weights=False), GOOGLENET, 6_624_904, 7_105_007),
}


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_added_parameters(name):
    build, widths, plain, gated = NETWORKS[name]
    with torch.device("meta"):
        model = build()
    assert count(model) == plain
    se_inject.apply(model, reduction=16, init="standard")
    assert [gate.fc1.weight.shape[:2] for _, gate in se_inject.gates(model)] == [(c // 16, c) for c in widths]
    assert count(model) == gated


def test_residual_branches_alone():
    with torch.device("meta"):
        model = timm.create_model("inception_resnet_v2")
    se_inject.apply(model, kinds=["residual"])
    assert count(model) == 64_387_444 and len(list(se_inject.gates(model))) == 40


@pytest.mark.parametrize(("reduction", "total"), [(2, 45_699_240), (4, 35_635_688), (8, 30_603_912), (32, 26_830_080)])
def test_reductions_of_the_paper(reduction, total):
    """Table 10 of the paper, with biases."""
    with torch.device("meta"):
        assert count(se_inject.apply(tv.resnet50(), reduction)) == total


@pytest.mark.parametrize(
    ("where", "total"), [("layer1.*", 25_582_424), ("layer2.*", 25_690_280), ("layer3.*", 26_349_992)]
)
def test_stages_of_the_paper(where, total):
    """Table 13 of the paper, with biases."""
    with torch.device("meta"):
        assert count(se_inject.apply(tv.resnet50(), where=where)) == total


@pytest.mark.parametrize(
    ("base", "twin"),
    [
        (lambda: tv.resnet50(), "seresnet50"),
        (lambda: tv.resnext50_32x4d(), "seresnext50_32x4d"),
        (lambda: timm.create_model("resnet50"), "seresnet50"),
        (lambda: timm.create_model("resnet18"), "seresnet18"),
        (lambda: timm.create_model("resnext101_32x4d"), "seresnext101_32x4d"),
    ],
)
def test_timm_twin_loads_and_agrees(base, twin):
    torch.manual_seed(0)
    published = timm.create_model(twin, zero_init_last=False).eval()
    for module in published.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    ours = se_inject.apply(base(), init="standard").eval()
    ours.load_state_dict(published.state_dict(), strict=True)
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        difference = (ours(x) - published(x)).abs().max()
        scale = published(x).abs().max()
    assert scale > 0.01 and difference <= 1e-5 * max(1, scale)
