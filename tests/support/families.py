"""Networks of the libraries' families that are small: fewer blocks, of each kind that the whole networks have."""

import timm
from torch import nn
from torchvision.models import MobileNetV2, googlenet, resnet, vgg


def small_resnet(**options):
    """Blocks with and without a projection."""
    return resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], **{"num_classes": 10} | options)


def small_mobilenet():
    """Blocks with and without a shortcut, and the one without an expansion."""
    return MobileNetV2(num_classes=10, inverted_residual_setting=[[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 2, 2]])


def small_inception_resnet():
    """The whole network has forty residual blocks."""
    model = timm.create_model("inception_resnet_v2", num_classes=10)
    for name, blocks in (("repeat", 2), ("repeat_1", 1), ("repeat_2", 1)):
        setattr(model, name, getattr(model, name)[:blocks])
    return model


def small_googlenet():
    """Without the modules that are as wide as what they read."""
    model = googlenet(num_classes=10, aux_logits=False, init_weights=False)
    model.inception4b = model.inception4c = model.inception5a = nn.Identity()
    return model


def vgg_features(norm=False):
    """VGG-11 without its head, which has nearly all of its weights."""
    return vgg.make_layers(vgg.cfgs["A"], batch_norm=norm)
