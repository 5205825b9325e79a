"""Extending a live module by giving it a generated subclass of its own class."""

import abc
import copyreg
import pickle
import types
from collections.abc import Callable
from typing import Any

from torch import nn


class QuietSubclass:
    """Keeps a generated subclass from triggering the user's ``__init_subclass__`` (registries and the like)."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        pass


def quiet_class(name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
    """A class that no metaclass of the user's hears of. Raises ``TypeError`` where a class cannot be extended.

    >>> quiet_class("Quiet", (QuietSubclass, nn.ReLU), {}).__mro__[2]
    <class 'torch.nn.modules.activation.ReLU'>
    """
    metaclass = types.prepare_class(name, bases)[0]
    make = abc.ABCMeta if issubclass(metaclass, abc.ABCMeta) else type
    return make.__new__(metaclass, name, bases, body)


def reduce_to(original: type[nn.Module], reduced: Any, restore: Callable[..., nn.Module], recipe: object) -> Any:
    """What ``__reduce_ex__`` of a generated class returns: ``restore(recipe, ...)`` makes it anew when unpickled.

    ``reduced`` is what the original class returns. Raises ``pickle.PicklingError`` if it pickles in its own way.
    """
    build, arguments, *rest = reduced
    if build is not copyreg.__newobj__:  # type: ignore[attr-defined]
        raise pickle.PicklingError(
            f"{original.__qualname__} pickles itself in its own way, which does not know what se_inject changed;"
            " save model.state_dict() instead"
        )
    return (restore, (recipe, *arguments[1:]), *rest)
