"""What a report holds, and how it prints."""

import html
from collections.abc import Callable
from dataclasses import dataclass

from ..sites.site import Sites
from ..sites.tables import html_table, text_table
from ..source.diff import Diff
from . import units
from .costs import Cost, Spread


@dataclass(frozen=True, repr=False)
class Report:
    """What ``report`` measured, and what was gated; prints as a table.

    ``ratio`` is the latency with gates as a ratio to the plain network's, of pairs of runs. ``classes`` and ``gates``
    describe blocks and gates by their paths.
    """

    model: str
    inputs: tuple[str, ...]
    device: str
    threads: int
    rounds: int
    plain: Cost
    gated: Cost
    ratio: Spread | None
    sites: Sites
    diff: Diff
    classes: dict[str, str]
    gates: dict[str, str]

    def __repr__(self) -> str:
        return "\n".join([*text_table(_HEAD, self.rows()), self.about()])

    def _repr_html_(self) -> str:
        return f"{html_table(_HEAD, self.rows())}<p>{html.escape(self.about())}</p>"

    def rows(self) -> list[tuple[str, str, str, str]]:
        """The table: what, of the plain network, with gates, and what the gates add."""
        plain, gated = self.plain, self.gated
        rows = [
            _row("parameters", plain.parameters, gated.parameters, "{:,}".format),
            _row("multiply-adds", plain.multiply_adds, gated.multiply_adds, units.count),
        ]
        if plain.latency is not None and gated.latency is not None and self.ratio is not None:
            low, middle, high = map(units.added, self.ratio)
            rows.append(("latency", _latency(plain.latency), _latency(gated.latency), f"{middle} ({low} to {high})"))
        if plain.peak_memory is not None and gated.peak_memory is not None:
            rows.append(_row("peak memory", plain.peak_memory, gated.peak_memory, units.memory))
        return rows

    def about(self) -> str:
        """A line on how it was measured."""
        number = len(self.gates)
        parts = [f"{number} gate{'s' * (number != 1)} in {self.model}", f"inputs {', '.join(self.inputs)}"]
        if self.ratio is None:
            return "; ".join([*parts, "on the meta device, which tells neither time nor memory"])
        threads = f", {self.threads} thread{'s' * (self.threads != 1)}" if self.device == "cpu" else ""
        return "; ".join([*parts, f"{self.device}{threads}", f"medians of {self.rounds} rounds, with quartiles"])


_HEAD = ("", "plain", "with gates", "added")


def _row(name: str, plain: int, gated: int, shown: Callable[[int], str]) -> tuple[str, str, str, str]:
    return name, shown(plain), shown(gated), units.added(gated / plain) if plain else ""


def _latency(latency: Spread) -> str:
    low, middle, high = map(units.seconds, latency)
    return f"{middle} ({low} to {high})"
