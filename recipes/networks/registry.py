"""Every network of the paper, by name."""

import difflib
from collections.abc import Callable

from torch import nn
from torchvision.models import densenet161, vgg16_bn

from ..errors import UnknownNameError
from . import paper
from .bn_inception import BNInception
from .recipe import Recipe
from .resnet import caffe, resnet, small_resnet
from .senet154 import SENet154Base


def _library(name: str) -> Callable[[int], nn.Module]:
    def build(num_classes: int) -> nn.Module:
        from . import libraries  # takes a while

        return libraries.build(name, num_classes)

    return build


# what published weights of these plain bases were trained with
_INCEPTION = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_DPN = ((124 / 255, 117 / 255, 104 / 255), (1 / (0.0167 * 255),) * 3)

_ALL = [
    Recipe("se_resnet50", lambda n: resnet(50, n), twin="seresnet50", paper=paper.RESNET50),
    Recipe("se_resnet101", lambda n: resnet(101, n), twin="seresnet101", paper=paper.RESNET101),
    Recipe("se_resnet152", lambda n: resnet(152, n), twin="seresnet152", paper=paper.RESNET152),
    Recipe("se_resnet50_caffe", lambda n: caffe(resnet(50, n)), twin="legacy_seresnet50", paper=paper.RESNET50),
    Recipe("se_resnet101_caffe", lambda n: caffe(resnet(101, n)), twin="legacy_seresnet101", paper=paper.RESNET101),
    Recipe("se_resnet152_caffe", lambda n: caffe(resnet(152, n)), twin="legacy_seresnet152", paper=paper.RESNET152),
    # He et al., "Identity Mappings in Deep Residual Networks", with fb.resnet.torch's stride in the 3x3 convolution
    Recipe("se_resnet200", _library("pytorchcv/preresnet200b"), paper=paper.RESNET200),
    Recipe("se_resnext50_32x4d", lambda n: resnet(50, n, 32, 4), twin="seresnext50_32x4d", paper=paper.RESNEXT50),
    Recipe("se_resnext101_32x4d", lambda n: resnet(101, n, 32, 4), twin="seresnext101_32x4d", paper=paper.RESNEXT101),
    Recipe(
        "se_resnext50_32x4d_caffe",
        lambda n: caffe(resnet(50, n, 32, 4)),
        twin="legacy_seresnext50_32x4d",
        paper=paper.RESNEXT50,
    ),
    Recipe(
        "se_resnext101_32x4d_caffe",
        lambda n: caffe(resnet(101, n, 32, 4)),
        twin="legacy_seresnext101_32x4d",
        paper=paper.RESNEXT101,
    ),
    Recipe(
        "se_resnext101_64x4d", lambda n: resnet(101, n, 64, 4), twin="seresnext101_64x4d", paper=paper.RESNEXT101_64X4D
    ),
    # after the non-linearity that follows each convolution (section 3.3 of the journal version)
    Recipe("se_vgg16", lambda n: vgg16_bn(num_classes=n), paper=paper.VGG16, kinds=("plain",)),
    Recipe("se_bn_inception", BNInception, paper=paper.BN_INCEPTION),
    Recipe(
        "se_inception_v3",
        _library("timm/inception_v3"),
        299,
        paper=paper.INCEPTION_V3,
        mean=_INCEPTION[0],
        std=_INCEPTION[1],
    ),
    Recipe(
        "se_inception_v4",
        _library("timm/inception_v4"),
        299,
        paper=paper.INCEPTION_V4,
        mean=_INCEPTION[0],
        std=_INCEPTION[1],
    ),
    Recipe(
        "se_inception_resnet_v2",
        _library("timm/inception_resnet_v2"),
        size=299,
        mean=_INCEPTION[0],
        std=_INCEPTION[1],
        paper=paper.INCEPTION_RESNET_V2,
    ),
    Recipe("densenet161", lambda n: densenet161(num_classes=n), paper=paper.DENSENET161, kinds=()),
    Recipe("se_polynet", _library("pytorchcv/polynet"), size=331, paper=paper.POLYNET),
    Recipe("se_dpn131", _library("timm/dpn131"), mean=_DPN[0], std=_DPN[1], paper=paper.DPN131),
    Recipe("senet154", SENet154Base, twin="legacy_senet154", paper=paper.SENET154),
    Recipe("se_resnet20", lambda n: small_resnet(20, n), size=32, classes=10),
    Recipe("se_resnet56", lambda n: small_resnet(56, n), size=32, classes=10),
    Recipe("se_resnet110", lambda n: small_resnet(110, n), size=32, classes=10, paper=paper.RESNET110),
]
NETWORKS = {recipe.name: recipe for recipe in _ALL}


def get(name: str) -> Recipe:
    """The recipe of that name.

    Raises ``UnknownNameError``, with the nearest names.

    >>> get("se_bn_inception").size
    224
    """
    if name not in NETWORKS:
        near = difflib.get_close_matches(str(name), NETWORKS, 3) or NETWORKS
        raise UnknownNameError(f"unknown network {name!r}; did you mean {', '.join(near)}? see recipes.list_networks()")
    return NETWORKS[name]
