"""Pictures of the page: error by parameters, differences to the control, and networks trained from scratch."""

import io
import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from ..figures.layout import legend, panels, write
from .arms import ARMS
from .paired import Difference, Evidence, difference, interval, of_arm
from .records import Record
from .sections import SECTIONS

_MARKERS = "osv^DpXP*<>h"
_ROW = 0.2  # inches


def save(figure: Figure, path: Path) -> None:
    """As PNG, in as many colors as it needs, which is a third of the size."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    with Image.open(buffer) as image:
        image.convert("RGB").quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)


def by_parameters(evidence: Evidence) -> Figure:
    """Error by the number of parameters trained, a panel an experiment, with 95 % intervals."""
    figure, all_axes = panels(len(evidence), "parameters trained", "top-1 error (%)")
    styles = _styles(evidence)
    for (experiment, records), axes in zip(evidence.items(), all_axes, strict=True):
        axes.set_xscale("log")
        write(axes.title, experiment.title, 45)
        found = {arm: of_arm(records, experiment, arm) for arm in experiment.compared}
        points = [(of[0].parameters, of, styles[arm]) for arm, of in found.items() if of]
        _draw(axes, points)
        counts = [count for count, _, _ in points]
        axes.set_xlim(min(counts) / 1.5, max(counts) * 1.5)
    _legend(figure, styles)
    return figure


def from_scratch(evidence: Evidence) -> Figure:
    """Error of every arm by network, a panel a data set, with 95 % intervals."""
    sets = list(dict.fromkeys(experiment.data for experiment in evidence))
    figure, all_axes = panels(len(sets), "", "top-1 error (%)")
    styles = _styles(evidence)
    for data, axes in zip(sets, all_axes, strict=True):
        write(axes.title, data, 45)
        experiments = [experiment for experiment in evidence if experiment.data == data]
        points = []
        for place, experiment in enumerate(experiments):
            arms = experiment.compared
            for number, arm in enumerate(arms):
                if found := of_arm(evidence[experiment], experiment, arm):
                    points.append((place + 0.12 * (number - (len(arms) - 1) / 2), found, styles[arm]))
        _draw(axes, points)
        names = [textwrap.fill(experiment.network, 14) for experiment in experiments]
        axes.set_xticks(range(len(experiments)), names)
        axes.set_xlim(-0.5, len(experiments) - 0.5)
    _legend(figure, styles)
    return figure


def _styles(evidence: Evidence) -> dict[str, Line2D]:
    """A color and a marker for each arm; controls are black."""
    controls = dict.fromkeys(experiment.control for experiment in evidence)
    arms = dict.fromkeys(arm for experiment in evidence for arm in experiment.compared)
    colors = {arm: "black" if arm in controls else f"C{number % 10}" for number, arm in enumerate(arms)}
    return {
        arm: Line2D([], [], linestyle="", color=colors[arm], marker=_MARKERS[number % len(_MARKERS)])
        for number, arm in enumerate(arms)
    }


def _draw(axes: Axes, points: Sequence[tuple[float, Sequence[Record], Line2D]]) -> None:
    """Means with intervals at their places; one far above the others, as where trainings diverged, is said instead."""
    errors = [interval([record.top1 for record in found]) for _, found, _ in points]
    most = 2 * statistics.median(mean for mean, _ in errors)
    for (x, _, style), (mean, half) in zip(points, errors, strict=True):
        if mean > most:
            top = axes.annotate(f"\N{UPWARDS ARROW} {mean:.0f}", (x, 0.99), xycoords=("data", "axes fraction"))
            top.set(ha="center", va="top", color=style.get_color())
        else:
            spread = None if math.isnan(half) else half
            axes.errorbar(x, mean, spread, fmt=style.get_marker(), color=style.get_color(), capsize=3, markersize=5)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0), min(high, 100))  # intervals of few seeds reach further than errors do


def _legend(figure: Figure, styles: Mapping[str, Line2D]) -> None:
    legend(figure, list(styles.values()), [ARMS[arm].title for arm in styles])


def differences(evidence: Evidence) -> Figure:
    """Gated arms' errors as differences to their controls, with 95 % intervals; a panel a question."""
    rows = {question: _rows(evidence, question) for question in SECTIONS}
    shown = [question for question in SECTIONS if rows[question]]
    lines = sum(len(rows[question]) for question in shown)
    figure = Figure(figsize=(8.2, _ROW * lines + 0.75 * len(shown) + 0.3), layout="constrained")
    heights = [len(rows[question]) + 1 for question in shown]
    all_axes = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, question in zip(all_axes, shown, strict=True):
        axes.set_title(SECTIONS[question].title, loc="left", fontsize="medium", fontweight="bold")
        _forest(axes, rows[question])
    all_axes[-1].set_xlabel("top-1 error less the control's, in points (left: better; colored: interval excludes 0)")
    return figure


def _rows(evidence: Evidence, question: str) -> list[tuple[str, Difference | None]]:
    """A row for each experiment, without a difference, and one for each of its gated arms."""
    rows: list[tuple[str, Difference | None]] = []
    for experiment, records in evidence.items():
        found = [one for arm in experiment.gated if (one := difference(records, experiment, arm))]
        if found and experiment.question == question:
            rows.append((experiment.title, None))
            rows += [(ARMS[one.arm].title, one) for one in found]
    return rows


def _forest(axes: Axes, rows: Sequence[tuple[str, Difference | None]]) -> None:
    reach = _reach([one for _, one in rows if one])
    axes.axvline(0, color="black", linewidth=0.8)
    for place, (_, one) in enumerate(rows):
        if one:
            _bar(axes, place, one, reach)
    labels = [textwrap.shorten(label, 46, placeholder=" ...") for label, _ in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize="small")
    for label, (_, one) in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontstyle("normal" if one else "italic")
    axes.tick_params("y", length=0)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(-reach, reach))
    axes.grid(axis="x", alpha=0.3)


def _reach(found: Sequence[Difference]) -> float:
    """As far as most intervals reach; a few that are much wider, as of two seeds, are cut."""
    ends = sorted(abs(one.mean) + (0 if math.isnan(one.half) else one.half) for one in found)
    usual = 3 * ends[(len(ends) - 1) // 2]
    return 1.1 * max(min(ends[-1], usual), 0.1)


def _bar(axes: Axes, place: int, one: Difference, reach: float) -> None:
    color = ("C0" if one.mean < 0 else "C3") if one.outside else "grey"
    if abs(one.mean) > reach:
        at, side = math.copysign(reach, one.mean), "right" if one.mean > 0 else "left"
        said = f" {one.mean:+.1f} " + ("\N{RIGHTWARDS ARROW}" if one.mean > 0 else "\N{LEFTWARDS ARROW}")
        axes.text(at, place, said, ha=side, va="center", color=color, fontsize="small")
        return
    half = 0 if math.isnan(one.half) else one.half
    low, high = max(one.mean - half, -reach), min(one.mean + half, reach)
    axes.plot([low, high], [place, place], color=color, linewidth=1.5)
    axes.plot(one.mean, place, "o", color=color, markersize=5)
    for end, cut, marker in ((low, one.mean - half < -reach, "<"), (high, one.mean + half > reach, ">")):
        axes.plot(end, place, marker if cut else "|", color=color, markersize=5, clip_on=False)
