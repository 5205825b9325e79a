"""Networks of timm, torchvision and pytorchcv, by ``LIBRARY/NAME``: how they are built, and what their inputs are."""

import difflib
import math
from collections.abc import Collection
from typing import Any

import timm
import torchvision
from torch import nn

from ..data.transforms import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from ..errors import SettingsError, UnknownNameError
from .skeleton import skeleton

# their auxiliary classifiers serve training from scratch, and their published weights take inputs from -1 to 1
_WITH_AUXILIARY = ("googlenet", "inception_v3")
_SMALL_IMAGES = ("_cifar10", "_cifar100", "_svhn")  # pytorchcv's networks for these take them whole, normalized so:
_CIFAR = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def build(name: str, num_classes: int | None) -> nn.Module:
    """The classifier of that name, randomly initialized: ``(N, 3, H, W)`` to ``(N, num_classes)``.

    Without ``num_classes`` it has as many outputs as its library gives it. GoogLeNet and Inception-v3 of torchvision
    come without their auxiliary classifiers.

    Raises ``UnknownNameError``, with the nearest names, and ``SettingsError`` where it cannot have as many classes,
    or its library lacks a package for it.

    >>> build("timm/resnet_18", 10)
    Traceback (most recent call last):
    ...
    recipes.errors.UnknownNameError: timm/resnet_18: there is no such model; did you mean timm/resnet18, ...?
    """
    library, rest = _known(name)
    options = {} if num_classes is None else {"num_classes": num_classes}
    try:
        network = _made(library, rest, options)
    except ImportError as error:
        raise SettingsError(f"{name}: its library needs a package that is not installed: {error}") from error
    except (AssertionError, TypeError, ValueError, RuntimeError) as error:
        text = f" ({error})" if str(error) else ""
        outputs = "" if num_classes is None else f" with {num_classes} outputs"
        raise SettingsError(f"{name}: its library does not build it{outputs}{text}") from error
    return network


def _made(library: str, rest: str, options: dict[str, Any]) -> nn.Module:
    network: Any
    if library == "timm":
        network = timm.create_model(rest, **options)
    elif library == "torchvision":
        options = options | ({"aux_logits": False, "init_weights": False} if rest in _WITH_AUXILIARY else {})
        network = torchvision.models.get_model(rest, **options)
    else:
        network = _provider().get_model(rest, **options)
        if isinstance(getattr(getattr(network, "features", None), "final_pool", None), nn.AvgPool2d):
            network.features.final_pool = nn.AdaptiveAvgPool2d(1)  # the same at its own size, and now it takes others
    return network  # type: ignore[no-any-return]


def inputs(name: str) -> Preprocess:
    """The inputs that the library evaluates the network with; where it has several, those of its first weights.

    Raises ``UnknownNameError``.

    >>> inputs("torchvision/inception_v3").size, inputs("timm/inception_v4").mean
    (299, (0.5, 0.5, 0.5))
    """
    library, rest = _known(name)
    if library == "timm":
        c = timm.data.resolve_data_config(timm.get_pretrained_cfg(rest).to_dict())
        size = c["input_size"][-1]
        return Preprocess(size, int(size / c["crop_pct"]), c["interpolation"], tuple(c["mean"]), tuple(c["std"]))
    if library == "pytorchcv":
        size = _own(name, "in_size")[0]
        if name.endswith(_SMALL_IMAGES):
            return Preprocess(size, size, "bilinear", *_CIFAR)
        return Preprocess(size, math.ceil(size / 0.875), "bilinear", IMAGENET_MEAN, IMAGENET_STD)
    c = next(iter(torchvision.models.get_model_weights(rest))).transforms()
    mean, std = ((0.5,) * 3, (0.5,) * 3) if rest in _WITH_AUXILIARY else (tuple(c.mean), tuple(c.std))
    return Preprocess(c.crop_size[0], c.resize_size[0], c.interpolation.value, mean, std)


def outputs(name: str) -> int:
    """As many outputs as the network of that name is published with, in pytorchcv; ImageNet's in the others.

    Raises ``UnknownNameError``.

    >>> outputs("pytorchcv/resnet20_cifar100"), outputs("torchvision/resnet18")
    (100, 1000)
    """
    library, _ = _known(name)
    return int(_own(name, "num_classes")) if library == "pytorchcv" else 1000


def _own(name: str, attribute: str) -> Any:
    """What a network of pytorchcv says of itself, if it is a classifier of images."""
    network = skeleton(build, name, None)
    if not isinstance(getattr(network, "in_size", None), tuple) or not hasattr(network, "num_classes"):
        raise SettingsError(f"{name}: is no classifier of images; choose another network")
    return getattr(network, attribute)


def _known(name: str) -> tuple[str, str]:
    library, _, rest = name.partition("/")
    known = _names(library, rest)
    if rest not in known:
        near = ", ".join(f"{library}/{other}" for other in difflib.get_close_matches(rest, known, 3))
        remedy = (
            f"did you mean {near}?" if near else "give timm/NAME, torchvision/NAME or pytorchcv/NAME of a classifier"
        )
        raise UnknownNameError(f"{name}: there is no such model; {remedy}")
    return library, rest


def _names(library: str, like: str) -> Collection[str]:
    if library == "timm":
        names: Collection[str] = timm.list_pretrained() if "." in like else timm.list_models()  # ARCHITECTURE.TAG
    elif library == "torchvision":
        names = torchvision.models.list_models(module=torchvision.models)
    else:
        names = _provider()._models if library == "pytorchcv" else ()
    return names


def _provider() -> Any:
    import pytorchcv.model_provider as provider  # takes a while

    return provider
