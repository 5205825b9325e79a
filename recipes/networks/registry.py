"""Every network of the paper, by name."""

import difflib

from torch import nn

from ..errors import UnknownNameError
from .bn_inception import BNInception
from .recipe import Published, Recipe
from .resnet import caffe, resnet, small_resnet
from .senet154 import SENet154Base


def _inception_resnet_v2(num_classes: int) -> nn.Module:
    import timm  # the one network that needs it

    network: nn.Module = timm.create_model("inception_resnet_v2", num_classes=num_classes)
    return network


_RESNET50 = Published((24.80, 23.29), (7.48, 6.62), (3.86, 3.87))
_RESNET101 = Published((23.17, 22.38), (6.52, 6.07), (7.58, 7.60))
_RESNET152 = Published((22.42, 21.57), (6.34, 5.73), (11.30, 11.32))
_RESNEXT50 = Published((22.11, 21.10), (5.90, 5.49), (4.24, 4.25))
_RESNEXT101 = Published((21.18, 20.70), (5.57, 5.01), (7.99, 8.00))

_ALL = [
    Recipe("se_resnet50", lambda n: resnet(50, n), twin="seresnet50", paper=_RESNET50),
    Recipe("se_resnet101", lambda n: resnet(101, n), twin="seresnet101", paper=_RESNET101),
    Recipe("se_resnet152", lambda n: resnet(152, n), twin="seresnet152", paper=_RESNET152),
    Recipe("se_resnet50_caffe", lambda n: caffe(resnet(50, n)), twin="legacy_seresnet50", paper=_RESNET50),
    Recipe("se_resnet101_caffe", lambda n: caffe(resnet(101, n)), twin="legacy_seresnet101", paper=_RESNET101),
    Recipe("se_resnet152_caffe", lambda n: caffe(resnet(152, n)), twin="legacy_seresnet152", paper=_RESNET152),
    Recipe("se_resnext50_32x4d", lambda n: resnet(50, n, 32, 4), twin="seresnext50_32x4d", paper=_RESNEXT50),
    Recipe("se_resnext101_32x4d", lambda n: resnet(101, n, 32, 4), twin="seresnext101_32x4d", paper=_RESNEXT101),
    Recipe(
        "se_resnext50_32x4d_caffe",
        lambda n: caffe(resnet(50, n, 32, 4)),
        twin="legacy_seresnext50_32x4d",
        paper=_RESNEXT50,
    ),
    Recipe(
        "se_resnext101_32x4d_caffe",
        lambda n: caffe(resnet(101, n, 32, 4)),
        twin="legacy_seresnext101_32x4d",
        paper=_RESNEXT101,
    ),
    Recipe("se_bn_inception", BNInception, paper=Published((25.38, 24.23), (7.89, 7.14), (2.03, 2.04))),
    Recipe(
        "se_inception_resnet_v2",
        _inception_resnet_v2,
        size=299,
        mean=(0.5, 0.5, 0.5),  # of timm's weights for the base
        std=(0.5, 0.5, 0.5),
        paper=Published((20.37, 19.80), (5.21, 4.79), (11.75, 11.76)),
    ),
    Recipe("senet154", SENet154Base, twin="legacy_senet154", paper=Published((None, 18.68), (None, 4.47))),
    Recipe("se_resnet20", lambda n: small_resnet(20, n), size=32, classes=10),
    Recipe("se_resnet56", lambda n: small_resnet(56, n), size=32, classes=10),
    Recipe("se_resnet110", lambda n: small_resnet(110, n), size=32, classes=10, paper=Published((6.37, 5.21))),
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
