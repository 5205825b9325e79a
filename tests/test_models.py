"""Real models of torchvision and timm: the sites that the definitions say, and all promises on them."""

import pytest
import timm
import torch
import torchvision
from torchvision.models import segmentation, video

import se_inject

from .support.promises import check_promises


def images(size=64, batch=2, channels=3):
    return lambda: (torch.randn(batch, channels, size, size),)


def video_clip():
    return (torch.randn(2, 3, 4, 32, 32),)


tv = torchvision.models
MODELS = {
    "resnet18": (lambda: tv.resnet18(), images(), 8),
    "resnet50": (lambda: tv.resnet50(), images(), 16),
    "resnext50_32x4d": (lambda: tv.resnext50_32x4d(), images(), 16),
    "googlenet": (lambda: tv.googlenet(init_weights=False), images(), 9),
    "inception_v3": (lambda: tv.inception_v3(init_weights=False, aux_logits=False), images(96), 11),
    "mobilenet_v2": (lambda: tv.mobilenet_v2(), images(), 10),
    "regnet_x_400mf": (lambda: tv.regnet_x_400mf(), images(), 22),
    "deeplabv3_resnet50": (lambda: segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None), images(), 16),
    "r3d_18": (lambda: video.r3d_18(), video_clip, 8),
    "timm resnet50": (lambda: timm.create_model("resnet50"), images(), 16),
    "timm inception_resnet_v2": (lambda: timm.create_model("inception_resnet_v2"), images(96), 43),
    "timm resnetv2_50": (lambda: timm.create_model("resnetv2_50"), images(), 16),
    "timm darknet53": (lambda: timm.create_model("darknet53"), images(), 23),
    "timm convnext_atto": (lambda: timm.create_model("convnext_atto", drop_path_rate=0.2), images(batch=8), 12),
}


@pytest.mark.filterwarnings("ignore:.*(GoogleNet|Inception v3) model will be changed.*:FutureWarning")
@pytest.mark.parametrize("name", MODELS)
def test_promises(name):
    build, inputs, sites = MODELS[name]
    torch.manual_seed(0)
    check_promises(build(), inputs, sites)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: tv.regnet_y_400mf(), "already gated"),
        (lambda: timm.create_model("seresnet50"), "already gated"),
        (lambda: timm.create_model("ecaresnet26t"), "already gated"),
        (lambda: timm.create_model("resnet26d", block_args={"attn_layer": "cbam"}), "already gated"),
        (lambda: timm.create_model("skresnet18"), "already gated"),
        (lambda: timm.create_model("resnest14d"), "already gated"),
        (lambda: timm.create_model("efficientnet_b0"), "already gated"),
        (lambda: timm.create_model("repvgg_a0"), "ambiguous add"),
        (lambda: timm.create_model("mobileone_s0"), "ambiguous add"),
    ],
)
def test_models_without_a_site(build, reason):
    found = se_inject.find_sites(build())
    assert len(found) == 0
    assert any(why.startswith(reason) for _, why in found.skipped), found


def test_dense_concats_are_not_sites():
    found = se_inject.find_sites(tv.densenet121())
    assert len(found) == 0
    assert sum(why.startswith("dense concat") for _, why in found.skipped) == 4


def test_gate_goes_before_layer_scale_and_drop_path():
    model = timm.create_model("convnext_atto", drop_path_rate=0.2)
    sites = se_inject.find_sites(model)
    assert {site.node for site in sites} == {"mlp"}
    scaled = timm.create_model("inception_resnet_v2")
    assert {site.node for site in se_inject.find_sites(scaled, kinds=["residual"])} == {"conv2d"}


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("focalnet_tiny_srf", {"FocalNetBlock"}),
        ("mixnet_s", {"DepthwiseSeparableConv", "InvertedResidual"}),
        ("res2net50_26w_4s", {"Bottle2neck"}),
        ("gcresnet50t", {"BottleneckBlock"}),
    ],
)
def test_helpers_inside_blocks_are_no_sites(name, classes):
    """Sums and concats inside modulations, mixed convolutions and split branches belong to a larger block."""
    model = timm.create_model(name)
    assert {type(model.get_submodule(site.path)).__name__ for site in se_inject.find_sites(model)} == classes
