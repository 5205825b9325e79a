"""What a copy of a function finds around it: globals and cells of its own, with stand-ins and copies in them."""

import types
from typing import Any

from ..source.functions import is_empty, names_in
from .instrument import HELPERS
from .module_proxies import Shadows
from .reachable import Reach
from .ways import Paths


class Environment:
    """The part of a run that makes it."""

    shadows: Shadows
    paths: Paths

    def __init__(self) -> None:
        self._globals: dict[int, dict[str, Any]] = {}
        self._cells: dict[int, tuple[types.CellType, types.CellType]] = {}
        self._overlay: dict[tuple[int, str], tuple[Any, Any]] = {}
        self._helpers = {name: getattr(self, method) for name, method in HELPERS.items()}

    def own(self, value: Any) -> Any:
        """A value as the run may hold it."""
        return self.shadows.own(value)

    def held(self, value: Any) -> Any:
        """The same for what was there before."""
        return self.shadows.held(value)

    def globals_of(self, function: types.FunctionType, code: types.CodeType) -> dict[str, Any]:
        """The globals that a copy of a function has: what it writes into them stays there."""
        real = function.__globals__
        copy = self._globals.setdefault(id(real), {**real, **self._helpers})
        for name in names_in(code):
            if name in real and copy.get(name) is real[name]:
                copy[name] = self.held(real[name])
        return copy

    def cell(self, cell: types.CellType) -> types.CellType:
        """The same for a variable that it closes over."""
        if id(cell) not in self._cells:
            copy = types.CellType()
            self._cells[id(cell)] = cell, copy
            if not is_empty(cell):
                copy.cell_contents = self.held(cell.cell_contents)
        return self._cells[id(cell)][1]

    def overlay(self, owner: Any, name: str, value: Any) -> None:
        """Note what the forward sets on an object that is not the run's own."""
        self._overlay[id(owner), name] = owner, value

    def overlaid(self, owner: Any, name: str) -> tuple[Any, Any] | None:
        """What it set."""
        return self._overlay.get((id(owner), name))

    def reachable(self, *code: Any) -> Reach:
        """What code can reach, asked once."""
        key = tuple(map(id, code))
        known = self.paths.known.setdefault("reach", {})
        if key not in known:
            known[key] = code, Reach.of(*code)
        return known[key][1]  # type: ignore[no-any-return]
