"""Error by epoch, of a plain network and its SE twin in each panel, or of any runs in one (figure 1)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..errors import SettingsError
from ..training.log import Row, read_log
from .layout import legend, panels, write

_MARKERS = "os^Dv*XP"
_VALIDATION: dict[str, Any] = {"linestyle": "-"}
_TRAINING: dict[str, Any] = {"linestyle": "--", "markerfacecolor": "white"}


def curves(runs: Sequence[Path], pairs: bool = False) -> Figure:
    """Top-1 error in per cent by epoch: dashed on training images, as augmented, solid on validation images.

    With ``pairs``, ``runs`` are a plain network's, its twin's with gates, another plain one's, and so on, and each pair
    has a panel; otherwise one panel has them all, each in a colour of its own.

    Raises ``DataError`` for a folder without a log, ``SettingsError`` for half a pair.
    """
    if pairs and len(runs) % 2:
        raise SettingsError(f"--pairs needs an even number of runs, plain and with gates in turn, got {len(runs)}")
    logs, names = [read_log(run) for run in runs], short_names(runs)
    size = 2 if pairs else len(runs)
    figure, all_axes = panels(len(runs) // size, "epoch", "top-1 error (%)")
    for i, axes in enumerate(all_axes):
        members = slice(i * size, (i + 1) * size)
        _draw(axes, logs[members], names[members])
        if pairs:
            write(axes.title, " | ".join(names[members]), 45)
    titles = ["plain", "with gates"] if pairs else names
    styles = [Line2D([], [], color="black", marker="o", **style) for style in (_VALIDATION, _TRAINING)]
    legend(figure, [*(Line2D([], [], **_style(i)) for i in range(size)), *styles], [*titles, "validation", "training"])
    return figure


def short_names(runs: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as tell them apart.

    >>> short_names([Path("/a/plain/seed-0"), Path("/a/se/seed-0")])
    ['plain/seed-0', 'se/seed-0']
    """
    parts = [run.resolve().parts for run in runs]
    depth = 1
    while len({part[-depth:] for part in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(part[-depth:]) for part in parts]


def _draw(axes: Axes, logs: Sequence[Sequence[Row]], names: Sequence[str]) -> None:
    lines = []
    for i, (rows, name) in enumerate(zip(logs, names, strict=True)):
        epochs = [row["epoch"] for row in rows]
        for metric, title, style in (("val_top1", "validation", _VALIDATION), ("train_top1", "training", _TRAINING)):
            lines.append([row[metric] for row in rows])
            look = _style(i) | style | {"markersize": 4, "markevery": max(1, len(rows) // 20)}
            axes.plot(epochs, lines[-1], label=f"{name}, {title}", **look)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if limits := robust_limits(lines):
        axes.set_ylim(limits)
        said = f"axis cut at {limits[1]:.3g} %, the highest error is {max(map(max, lines)):.3g} %"
        note = axes.text(0.98, 0.96, said, transform=axes.transAxes, ha="right", va="top", fontsize="small")
        note.set_backgroundcolor("white")


def robust_limits(lines: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """Limits of an axis that a spike does not flatten, or ``None`` where the lines need none.

    Each line is seen up to Tukey's fence, the upper quartile and 1.5 times the range between quartiles, and its end.

    >>> [round(float(end)) for end in robust_limits([[90, 9, 8, 8, 7, 7, 6, 6]])]
    [6, 11]
    """
    tops = []
    for values in lines:
        low, high = np.quantile(values, [0.25, 0.75])
        tops.append(max(values[-1], min(max(values), high + 1.5 * (high - low))))
    bottom, top, highest = min(map(min, lines)), max(tops), max(map(max, lines))
    margin = max(0.05 * (top - bottom), 0.1)
    return (bottom - margin, top + margin) if highest - bottom > 1.5 * (top - bottom + margin) else None


def _style(number: int) -> dict[str, Any]:
    return {"color": f"C{number % 10}", "marker": _MARKERS[number // 10 % len(_MARKERS)]}
