"""The plain network that a name means: a recipe's, a library's, or what a function of yours returns."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from ..data.transforms import Preprocess, shorter_edge
from ..errors import SettingsError, UnknownNameError
from . import libraries
from .registry import get

NAMES = (
    "timm/NAME, torchvision/NAME or pytorchcv/NAME, package.module:function of yours, or a name of "
    "recipes.list_networks()"
)


def build_base(name: str, num_classes: int | None) -> nn.Module:
    """The plain network of that name, randomly initialized, with so many outputs, or as many as it has by itself.

    A function of yours is called with ``num_classes``, if it takes that.

    Raises ``UnknownNameError``, and ``SettingsError`` for a function that fails.

    >>> build_base("se_resnet20", 5).fc
    Linear(in_features=64, out_features=5, bias=True)
    """
    if is_recipe(name):
        return get(name).build(se=False, num_classes=num_classes)
    return libraries.build(name, num_classes) if "/" in name else _of_function(name, num_classes)


def is_recipe(name: str) -> bool:
    """Whether the name is of no library and of no function.

    >>> is_recipe("se_resnet20"), is_recipe("timm/resnet18"), is_recipe("package.module:function")
    (True, False, False)
    """
    return "/" not in name and ":" not in name


def own_preprocess(name: str) -> Preprocess:
    """The inputs that the network of that name was made for; 224 pixels for a function of yours.

    >>> own_preprocess("se_resnet20").size
    32
    """
    if is_recipe(name):
        recipe = get(name)
        return Preprocess(recipe.size, shorter_edge(recipe.size), mean=recipe.mean, std=recipe.std)
    return libraries.inputs(name) if "/" in name else Preprocess(224, shorter_edge(224))


def own_outputs(name: str) -> int:
    """As many outputs as the network of that name has in the paper or its library; 1,000 for a function of yours.

    >>> own_outputs("se_resnet20")
    10
    """
    if is_recipe(name):
        return get(name).classes
    return libraries.outputs(name) if "/" in name else 1000


def _of_function(name: str, num_classes: int | None) -> nn.Module:
    function = _imported(name)
    try:
        takes_classes = num_classes is not None and "num_classes" in inspect.signature(function).parameters
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
