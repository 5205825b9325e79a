"""Pictures of the page: error by parameters, differences to the control, and networks trained from scratch."""

import io
import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from ..figures.layout import legend, panels, write
from .arms import ARMS
from .grid import Experiment
from .paired import Difference, Evidence, interval, of_arm, whole_difference
from .records import Record
from .sections import OVERVIEW_ARMS, SECTIONS
from .tables import against

_MARKERS = "osv^DpXP*<>h"
_ROW, _BAR = 0.2, 0.6  # inches of a row, and rows of a bar where several share a label


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


def in_overview(experiment: Experiment) -> list[str]:
    """The experiment's arms in the overview, without those whose control has gates too."""
    gated = [arm for arm in OVERVIEW_ARMS if arm in experiment.gated]
    return [arm for arm in gated if not ARMS[experiment.control_of(arm)].gates]


def overview(evidence: Evidence) -> Figure:
    """A few gated arms' errors as differences to their controls, a row an experiment, a panel a question."""
    colors = {arm: f"C{number}" for number, arm in enumerate(OVERVIEW_ARMS)}
    names: dict[str, str] = {}
    made = [_Panel(section.title) for section in SECTIONS.values()]
    for experiment, records in evidence.items():
        panel = made[list(SECTIONS).index(experiment.question)]
        names |= {arm: ARMS[arm].title + against(experiment, arm) for arm in in_overview(experiment)}
        if found := [one for arm in in_overview(experiment) if (one := whole_difference(records, experiment, arm))]:
            panel.labels.append((panel.end + _BAR * (len(found) - 1) / 2, experiment.title))
            panel.bars += [(panel.end + _BAR * number, one, colors[one.arm]) for number, one in enumerate(found)]
            panel.end += _BAR * len(found) + 0.4
    figure = _forest([panel for panel in made if panel.bars])
    drawn = {one.arm for panel in made for _, one, _ in panel.bars}
    shown = [arm for arm in OVERVIEW_ARMS if arm in drawn]
    lines = [Line2D([], [], color=colors[arm], marker="o") for arm in shown]
    legend(figure, lines, [names[arm] for arm in shown])
    return figure


def differences(evidence: Evidence) -> Figure:
    """All gated arms' errors as differences to their controls, with 95 % intervals, a row an arm."""
    panel = _Panel("")
    for experiment, records in evidence.items():
        if found := [one for arm in experiment.gated if (one := whole_difference(records, experiment, arm))]:
            panel.labels.append((panel.end, experiment.title))
            panel.headings.add(experiment.title)
            for place, one in enumerate(found, 1):
                panel.labels.append((panel.end + place, ARMS[one.arm].title + against(experiment, one.arm)))
                panel.bars.append((panel.end + place, one, "C0" if one.mean < 0 else "C3"))
            panel.end += len(found) + 1
    return _forest([panel])


@dataclass
class _Panel:
    """Bars and labels at their places from the top, in rows; ``end`` is where the next one goes."""

    title: str
    bars: list[tuple[float, Difference, str]] = field(default_factory=list)
    labels: list[tuple[float, str]] = field(default_factory=list)
    headings: set[str] = field(default_factory=set)
    end: float = 0


def _forest(made: Sequence[_Panel]) -> Figure:
    figure = Figure(figsize=(8.2, sum(_ROW * panel.end + 0.75 for panel in made) + 0.3), layout="constrained")
    heights = [panel.end + 1 for panel in made]
    all_axes = figure.subplots(len(made), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, panel in zip(all_axes, made, strict=True):
        axes.set_title(panel.title, loc="left", fontsize="medium", fontweight="bold")
        axes.axvline(0, color="black", linewidth=0.8)
        reach = _reach([one for _, one, _ in panel.bars])
        for place, one, color in panel.bars:
            _bar(axes, place, one, color, reach)
        labels = [textwrap.shorten(label, 56, placeholder=" ...") for _, label in panel.labels]
        axes.set_yticks([place for place, _ in panel.labels], labels, fontsize="small")
        for label, (_, text) in zip(axes.get_yticklabels(), panel.labels, strict=True):
            label.set_fontweight("bold" if text in panel.headings else "normal")
        axes.tick_params("y", length=0)
        axes.set(ylim=(panel.end - 0.4, -0.6), xlim=(-reach, reach))
        axes.grid(axis="x", alpha=0.3)
    what = "top-1 error less the control's (left: better; filled: interval excludes 0)"
    all_axes[-1].set_xlabel(what, fontsize="small")
    return figure


def _reach(found: Sequence[Difference]) -> float:
    """As far as the intervals reach, but for a few that reach much further, as of two seeds."""
    ends = sorted(abs(one.mean) + (0 if math.isnan(one.half) else one.half) for one in found)
    usual = 3 * ends[3 * (len(ends) - 1) // 4]
    return 1.1 * max(min(ends[-1], usual), 0.1)


def _bar(axes: Axes, place: float, one: Difference, color: str, reach: float) -> None:
    """A mean with its interval; arrows where it goes on beyond the axis."""
    if abs(one.mean) > reach:
        right, said = one.mean > 0, f"{one.mean:+.1f}"
        said = f"{said} \N{RIGHTWARDS ARROW} " if right else f" \N{LEFTWARDS ARROW} {said}"
        at = math.copysign(reach, one.mean)
        axes.text(at, place, said, ha="right" if right else "left", va="center", color=color, fontsize="small")
        return
    half = 0 if math.isnan(one.half) else one.half
    low, high = max(one.mean - half, -reach), min(one.mean + half, reach)
    axes.plot([low, high], [place, place], color=color, linewidth=1.3)
    axes.plot(one.mean, place, "o", color=color, markersize=5, markerfacecolor=color if one.outside else "white")
    for end, cut, marker in ((low, one.mean - half < -reach, "<"), (high, one.mean + half > reach, ">")):
        axes.plot(end, place, marker if cut else "|", color=color, markersize=5, clip_on=False)
