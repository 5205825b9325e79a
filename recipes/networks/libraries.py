"""The plain networks that a name means: the recipes', those of timm, torchvision and pytorchcv, and your own."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import timm
import torch
import torchvision
from torch import nn

from ..data.transforms import Preprocess, shorter_edge
from ..errors import SettingsError, UnknownNameError
from .registry import get

KINDS_OF_NAMES = (
    "timm/NAME, torchvision/NAME or pytorchcv/NAME of a classifier, package.module:function of yours, or a name of "
    "recipes.list_networks()"
)
# torchvision's published weights of these take inputs from -1 to 1, and their auxiliary classifiers serve training
# from scratch alone
_WITH_AUXILIARY = ("googlenet", "inception_v3")


def build_base(name: str, num_classes: int | None) -> nn.Module:
    """The plain network of that name, randomly initialized, with so many outputs, or as many as it has by itself.

    GoogLeNet and Inception-v3 of torchvision come without their auxiliary classifiers. A function of yours is called
    with ``num_classes``, if it takes that.

    Raises ``UnknownNameError``, and ``SettingsError`` for a function that cannot be imported or called.

    >>> build_base("torchvision/squeezenet1_1", 5)(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 5])
    """
    library, slash, rest = name.partition("/")
    if ":" in name:
        return _of_function(name, num_classes)
    if not slash:
        return get(name).build(se=False, num_classes=num_classes)
    network: nn.Module | None = None
    wanted = {} if num_classes is None else {"num_classes": num_classes}
    if library == "timm" and timm.is_model(rest):
        network = timm.create_model(rest, **wanted)
    elif library == "torchvision" and rest in torchvision.models.list_models(module=torchvision.models):
        options = {"aux_logits": False, "init_weights": False} if rest in _WITH_AUXILIARY else {}
        network = torchvision.models.get_model(rest, **options, **wanted)
    elif library == "pytorchcv":
        network = _of_pytorchcv(name, wanted)
    if network is None:
        raise UnknownNameError(f"{name}: no such model; give {KINDS_OF_NAMES}")
    return network


def own_preprocess(name: str) -> Preprocess:
    """The inputs that the network of that name was made for.

    >>> own_preprocess("torchvision/inception_v3").size
    299
    """
    library, slash, rest = name.partition("/")
    if ":" in name:
        return Preprocess(224, shorter_edge(224))
    if not slash:
        recipe = get(name)
        return Preprocess(recipe.size, shorter_edge(recipe.size), mean=recipe.mean, std=recipe.std)
    if library == "timm":
        c = timm.data.resolve_data_config(timm.get_pretrained_cfg(rest).to_dict())
        size = c["input_size"][-1]
        return Preprocess(size, int(size / c["crop_pct"]), c["interpolation"], tuple(c["mean"]), tuple(c["std"]))
    if library == "pytorchcv":
        with torch.device("meta"):
            size = int(getattr(build_base(name, None), "in_size", (224, 224))[0])
        return Preprocess(size, shorter_edge(size))
    size = 299 if rest == "inception_v3" else 224
    if rest in _WITH_AUXILIARY:
        return Preprocess(size, shorter_edge(size), mean=(0.5,) * 3, std=(0.5,) * 3)
    return Preprocess(size, shorter_edge(size))


def _of_pytorchcv(name: str, wanted: dict[str, int]) -> nn.Module | None:
    try:
        from pytorchcv.model_provider import get_model
    except ImportError as error:
        raise UnknownNameError(f"{name}: needs pytorchcv; pip install pytorchcv") from error
    try:
        network: nn.Module = get_model(name.partition("/")[2], **wanted)
    except ValueError:  # it knows no such name
        return None
    return network


def _of_function(name: str, num_classes: int | None) -> nn.Module:
    function = _imported(name)
    takes_classes = num_classes is not None and "num_classes" in inspect.signature(function).parameters
    try:
        network = function(num_classes=num_classes) if takes_classes else function()
    except Exception as error:  # the user's code
        raise SettingsError(f"{name}: fails ({type(error).__name__}: {error})") from error
    if not isinstance(network, nn.Module):
        raise SettingsError(f"{name}: must return a torch.nn.Module, got {type(network).__name__}")
    return network


def _imported(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # the user's code
        raise UnknownNameError(
            f"{name}: cannot be imported ({type(error).__name__}: {error}); start the command where it can be"
        ) from error
    if not callable(function) or isinstance(function, nn.Module):
        raise SettingsError(f"{name}: must be a function that makes the network, got {type(function).__name__}")
    result: Callable[..., Any] = function
    return result
