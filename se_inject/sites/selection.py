"""Which sites a user asks for: ``kinds`` and ``where``, checked."""

import copy
import fnmatch
from collections.abc import Callable, Iterable
from typing import get_args

from ..errors import ArgumentTypeError, InvalidArgumentError
from .site import Kind, Site

KINDS: tuple[Kind, ...] = get_args(Kind)

Where = str | Iterable[str | Site] | Callable[[Site], bool] | None


class Selection:
    """The choice that ``kinds`` and ``where`` make. Raises ``ArgumentTypeError`` and ``InvalidArgumentError``.

    >>> Selection(["residual"], ["layer1.*", "layer2.0"]).names
    ['layer2.0']
    """

    def __init__(self, kinds: Iterable[Kind], where: Where) -> None:
        self._kinds = _checked_kinds(kinds)
        self._predicate = where if callable(where) else None
        chosen = () if callable(where) else _checked(where)
        self.sites = tuple(item for item in chosen if isinstance(item, Site))
        self._patterns = tuple(item for item in chosen if isinstance(item, str))
        self._by_node = True
        self.kinds = self._kinds | {site.kind for site in self.sites}  # to look for

    @property
    def names(self) -> list[str]:
        """The blocks that were asked for by name, not by a pattern."""
        return [pattern for pattern in self._patterns if not any(c in pattern for c in "*?[")]

    def in_graph(self) -> "Selection":
        """The same for a traced model, whose values have other names than those of the model that was traced."""
        selection = copy.copy(self)
        selection._by_node = False
        return selection

    def is_among(self, site: Site, sites: Iterable[Site]) -> bool:
        """Whether a site is one of some."""
        return any(site == other if self._by_node else _without_node(site) == _without_node(other) for other in sites)

    def selects(self, site: Site) -> bool:
        """Whether a site is asked for."""
        if self.is_among(site, self.sites):
            return True
        if site.kind not in self._kinds:
            return False
        if self._predicate is not None:
            return bool(self._predicate(site))
        return any(fnmatch.fnmatchcase(site.path, pattern) for pattern in self._patterns)


def _without_node(site: Site) -> tuple[object, ...]:
    return site.path, site.kind, site.channels, site.gate_path


def _checked_kinds(kinds: Iterable[Kind]) -> frozenset[Kind]:
    if isinstance(kinds, str):
        raise ArgumentTypeError(f'kinds must be a collection such as ("{kinds}",), got the string {kinds!r}')
    try:
        chosen = frozenset(kinds)
    except TypeError as error:
        raise ArgumentTypeError(f"kinds must be a collection of names, got {kinds!r}") from error
    if not chosen or chosen - set(KINDS):
        raise InvalidArgumentError(f"kinds must be one or more of {', '.join(map(repr, KINDS))}, got {kinds!r}")
    return chosen


def _checked(where: str | Iterable[str | Site] | None) -> tuple[str | Site, ...]:
    if where is None or isinstance(where, str | Site):
        return ("*",) if where is None else (where,)
    chosen = tuple(where) if isinstance(where, Iterable) else (where,)
    if not all(isinstance(item, str | Site) for item in chosen):
        raise ArgumentTypeError(f"where must be a predicate on a Site, or one or more patterns or sites, got {where!r}")
    return chosen
