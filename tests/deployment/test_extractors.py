"""Extractors of features: gates are nodes of their own names, and features are gated."""

import pytest
import timm
import torch
from timm.models import FeatureGraphNet, FeatureHookNet, FeatureListNet
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

import se_inject

from .networks import awake, gated, images, names

X = images()


def features_at(model, name):
    """What the module of that name returns."""
    found = []
    handle = model.get_submodule(name).register_forward_hook(lambda _, __, output: found.append(output.clone()))
    with torch.no_grad():
        model(X)
    handle.remove()
    return found[0]


@pytest.mark.parametrize("whole", [False, True])
def test_torchvision_takes_gates_as_nodes(whole):
    model = gated("resnet")
    options = {"tracer_kwargs": {"leaf_modules": [se_inject.SqueezeExcitation]}} if whole else {}
    _, nodes = get_graph_node_names(model, **options)
    for name in names(model):
        of_gate = [node for node in nodes if node == name or node.startswith(f"{name}.")]
        assert of_gate == [name] if whole else len(of_gate) > 1
        # One at a time, as the add after a gate may be in place.
        extractor = create_feature_extractor(model, [name], **options)
        with torch.no_grad():
            torch.testing.assert_close(extractor(X)[name], features_at(model, name), rtol=1e-4, atol=1e-5)


def test_torchvision_layer_getter():
    model = gated("resnet")
    layers = {"layer1": "low", "layer3": "high"}
    with torch.no_grad():
        features = IntermediateLayerGetter(model, layers)(X)
    assert all(torch.equal(features[out], features_at(model, layer)) for layer, out in layers.items())


def test_timm_backbones_are_gated():
    backbone = awake(timm.create_model("test_resnet", features_only=True)).eval()
    plain = backbone(X)
    se_inject.apply(backbone)
    assert all(map(torch.equal, backbone(X), plain))
    awake(backbone)
    changed = [not torch.equal(ours, theirs) for ours, theirs in zip(backbone(X), plain, strict=True)]
    assert len(names(backbone)) == 4 and changed == [False, True, True, True, True]


@pytest.mark.parametrize("extractor", [FeatureListNet, FeatureHookNet, FeatureGraphNet])
def test_timm_extractors_of_gated_networks(extractor):
    model = gated("resnet")
    expected = [features_at(model, f"layer{i}") for i in (1, 3)]
    options = {} if extractor is FeatureGraphNet else {"flatten_sequential": False}
    with torch.no_grad():
        features = extractor(model, out_indices=(1, 3), **options)(X)
    for ours, theirs in zip(features, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_timm_intermediates():
    model = gated("convnext2")
    with torch.no_grad():
        output, features = model.forward_intermediates(X)
        torch.testing.assert_close(model.forward_head(output), model(X))
    assert torch.equal(features[-2], features_at(model, "stages.2"))
