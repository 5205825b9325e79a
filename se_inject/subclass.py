"""Extending a live module by giving it a generated subclass of its own class."""

import copyreg
import pickle
from collections.abc import Callable
from typing import Any

from torch import nn


class QuietSubclass:
    """Keeps a generated subclass from triggering the user's ``__init_subclass__`` (registries and the like)."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        pass


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
