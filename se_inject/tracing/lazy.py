"""Children and parameters of a stand-in, made when they are asked for."""

from collections.abc import Callable, Iterator
from typing import Any


class Lazy(dict[str, Any]):
    """Children or parameters of a shadow."""

    _se_is_stand_in = True

    def __init__(self, real: dict[str, Any], make: Callable[[str, Any], Any], note_walk: Callable[[], Any]) -> None:
        super().__init__(real)
        self._make = make
        self._note_walk = note_walk
        self._made: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        if key not in self._made:
            real = super().__getitem__(key)
            self._made[key] = None if real is None else self._make(key, real)
        return self._made[key]

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._made[key] = value

    def get(self, key: str, default: Any = None) -> Any:
        """As of any dict, for the stand-in."""
        return self[key] if key in self else default  # noqa: SIM401 - that would get the real one

    def __iter__(self) -> Iterator[str]:
        self._note_walk()
        return super().__iter__()

    def __len__(self) -> int:
        self._note_walk()
        return super().__len__()

    def keys(self) -> Any:
        """The names, which are walked through."""
        self._note_walk()
        return super().keys()

    def values(self) -> Any:
        """The stand-ins, which are walked through."""
        return [self[key] for key in self]

    def items(self) -> Any:
        """The names and the stand-ins, which are walked through."""
        return [(key, self[key]) for key in self]
