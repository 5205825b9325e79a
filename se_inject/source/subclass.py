"""Extending a live module by giving it a generated subclass of its own class."""

import abc
import copyreg
import functools
import pickle
import types
from collections.abc import Callable
from typing import Any

from torch import nn


class QuietSubclass:
    """Keeps a generated subclass from triggering the user's ``__init_subclass__`` (registries and the like)."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        pass


def quiet_class(
    name: str, bases: tuple[type, ...], body: dict[str, Any], adapt: Callable[[type], Any] = lambda metaclass: metaclass
) -> Any:
    """A class that no metaclass of the user's hears of. Raises ``TypeError`` where a class cannot be extended.

    >>> quiet_class("Quiet", (QuietSubclass, nn.ReLU), {}).__mro__[2]
    <class 'torch.nn.modules.activation.ReLU'>
    """
    metaclass = types.prepare_class(name, bases)[0]
    make = abc.ABCMeta if issubclass(metaclass, abc.ABCMeta) else type
    return make.__new__(adapt(metaclass), name, bases, body)


@functools.cache
def handing_up(metaclass: type) -> Any:
    """A metaclass whose classes set the author's attributes on the class above them, as the author's code means to.

    >>> class Base:
    ...     count = 0
    >>> cls = quiet_class("Generated", (QuietSubclass, Base), {"_se_above": Base}, handing_up)
    >>> cls.count += 1
    >>> Base.count
    1
    """

    def set_attribute(cls: Any, name: str, value: Any) -> None:
        is_own = name in vars(cls) or name.startswith("__") or "_se_above" not in vars(cls)
        metaclass.__setattr__(cls, name, value) if is_own else setattr(cls._se_above, name, value)  # type: ignore[call-arg]

    return type(metaclass)(metaclass.__name__, (metaclass,), {"__setattr__": set_attribute})


def set_class(module: nn.Module, cls: type) -> None:
    """Change a live module's class, whatever its author's ``__setattr__`` does.

    >>> module = nn.ReLU()
    >>> set_class(module, nn.GELU)
    >>> type(module)
    <class 'torch.nn.modules.activation.GELU'>
    """
    object.__setattr__(module, "__class__", cls)


def reduce_to(original: type[nn.Module], reduced: Any, restore: Callable[..., nn.Module], recipe: object) -> Any:
    """What ``__reduce_ex__`` of a generated class returns: ``restore(recipe, ...)`` makes it anew when unpickled.

    ``reduced`` is what the original class returns. Raises ``pickle.PicklingError`` if it pickles in its own way.
    """
    build, arguments, *rest = reduced
    if build is copyreg.__newobj_ex__:  # type: ignore[attr-defined]
        _, arguments, keywords = arguments
        return (functools.partial(restore, recipe, *arguments, **keywords), (), *rest)
    if build is not copyreg.__newobj__:  # type: ignore[attr-defined]
        raise pickle.PicklingError(
            f"{original.__qualname__} defines its own pickling, which would lose what se_inject changed;"
            " save model.state_dict() instead"
        )
    return (restore, (recipe, *arguments[1:]), *rest)
