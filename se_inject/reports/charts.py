"""Charts of a page, as SVG: what gates add, and what values they take by channel and class."""

import html
import math

from .gate_values import Activations
from .table import Report

_WIDTH, _LEFT, _RIGHT, _ROW = 640, 130, 110, 34
_POINTS = 160  # of a line, at most: a page of 50 gates must stay small


def added_chart(report: Report) -> str:
    """Bars of what the gates add, in per cent, with the quartiles of the latency."""
    bars = _bars(report)
    spans = [value for _, *values in bars for value in values]
    low, high = min(0.0, *spans), max(1.0, *spans)  # differences below 1 % do not look large

    def x(value: float) -> str:
        return f"{_LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT):.1f}"

    parts = []
    for row, (name, lower, value, upper) in enumerate(bars):
        top, middle = row * _ROW + 9, row * _ROW + 19
        left, right = sorted((0.0, value))
        parts += [
            f'<text x="{_LEFT - 12}" y="{middle + 4}" text-anchor="end">{html.escape(name)}</text>',
            f'<rect class="bar" x="{x(left)}" y="{top}" width="{float(x(right)) - float(x(left)):.1f}" height="20"/>',
            f'<text x="{float(x(max(upper, 0))) + 8:.1f}" y="{middle + 4}">{value:+.2f} %</text>',
        ]
        if lower < upper:
            ends = f"M{x(lower)} {middle - 6}v12M{x(upper)} {middle - 6}v12"
            parts.append(f'<path class="whisker" d="M{x(lower)} {middle}H{x(upper)}{ends}"/>')
    height = len(bars) * _ROW + 6
    parts.append(f'<path class="axis" d="M{x(0)} 2V{height - 2}"/>')
    return _svg(_WIDTH, height, "What the gates add, in per cent of the plain network", parts)


def _bars(report: Report) -> list[tuple[str, float, float, float]]:
    """The name of each bar, with lower quartile, median and upper quartile in per cent."""
    plain, gated = report.plain, report.gated
    pairs = [
        ("parameters", plain.parameters, gated.parameters),
        ("multiply-adds", plain.multiply_adds, gated.multiply_adds),
        ("peak memory", plain.peak_memory or 0, gated.peak_memory or 0),
    ]
    bars = [(name, *[100 * (after / before - 1)] * 3) for name, before, after in pairs if before]
    if report.ratio is not None:
        low, middle, high = (100 * (ratio - 1) for ratio in report.ratio)
        bars.insert(2, ("latency", low, middle, high))
    return bars  # type: ignore[return-value]


def values_chart(found: Activations, gate: str, classes: list[int]) -> str:
    """A gate's values by channel: a line a class, and a dashed one for the mean of all classes."""
    values = found.values[gate]
    lines = [values.nanmean(0).tolist(), *values[classes].tolist()]
    shown = [_thinned(line) for line in lines]
    known = [value for line in shown for value in line if not math.isnan(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    low, high = (low, high) if high - low > 0.01 else (low - 0.01, high + 0.01)
    width, height, left = 320, 150, 44

    def points(line: list[float]) -> str:
        step = (width - left - 8) / max(len(line) - 1, 1)
        places = ((left + i * step, 8 + (high - v) / (high - low) * (height - 32)) for i, v in enumerate(line))
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in places if not math.isnan(y))

    names = ["line mean", *(f"line c{number}" for number in range(len(classes)))]
    parts = [f'<polyline class="{name}" points="{points(line)}"/>' for name, line in zip(names, shown, strict=True)]
    parts += [
        f'<path class="axis" d="M{left} 8V{height - 24}H{width - 8}"/>',
        f'<text x="{left - 6}" y="14" text-anchor="end">{high:.2f}</text>',
        f'<text x="{left - 6}" y="{height - 24}" text-anchor="end">{low:.2f}</text>',
        f'<text x="{width - 8}" y="{height - 8}" text-anchor="end">channel {values.shape[1] - 1}</text>',
        f'<text x="{left}" y="{height - 8}">0</text>',
    ]
    return _svg(width, height, f"{found.measured[gate]} of {gate} by channel", parts)


def _thinned(line: list[float]) -> list[float]:
    """Means of neighbours, where there are more channels than a chart can show."""
    size = -(-len(line) // _POINTS)
    parts = [line[start : start + size] for start in range(0, len(line), size)]
    known = [[value for value in part if not math.isnan(value)] for part in parts]
    return [sum(part) / len(part) if part else math.nan for part in known]


def _svg(width: int, height: int, label: str, parts: list[str]) -> str:
    name = html.escape(label)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{name}">{"".join(parts)}</svg>'
