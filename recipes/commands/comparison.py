"""A comparison's table and picture: error with its spread, and what each way of training costs."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from ..evidence.paired import interval
from ..evidence.tables import in_bytes, markdown, plus_minus
from ..training.step_costs import StepCosts
from .transfer import CONTROL

TITLES = {
    CONTROL: "everything, without gates (control)",
    "head": "new head alone",
    "norm": "norms",
    "gates": "gates",
    "gates+norm": "gates and norms",
    "all": "everything, with gates",
}


@dataclass(frozen=True)
class Record:
    """One training: its way and seed, the factor of its learning rates, its length, and the validation at its end.

    Errors are in per cent; ``loss`` is ``None`` if it was no longer a number.
    """

    way: str
    seed: int
    factor: float
    epochs: int
    loss: float | None
    top1: float
    top5: float
    seconds: float


def table(records: Sequence[Record], costs: Mapping[str, StepCosts]) -> str:
    """Markdown, a row for each way of training; differences to the control are paired by seed.

    >>> records = [Record(way, 0, 1.0, 2, 0.5, error, 0.0, 9.0) for way, error in (("plain", 9.0), ("gates", 8.0))]
    >>> print(table(records, dict.fromkeys(("plain", "gates"), StepCosts(20, 80, 32, 0.5, 10**6))).splitlines()[3])
    | gates                               | 8.00            | -1.00            | 20 ...
    """
    headers = ["trained", "top-1 error %", "to the control", "parameters trained", "to store", "step", "peak memory"]
    of_control = {record.seed: record.top1 for record in records if record.way == CONTROL}
    rows = []
    for way, cost in costs.items():
        found = [record for record in records if record.way == way]
        change = "" if way == CONTROL else plus_minus([r.top1 - of_control[r.seed] for r in found], "+.2f")
        errors, diverged = plus_minus([r.top1 for r in found]), sum(record.loss is None for record in found)
        errors += f", {diverged} diverged" if diverged else ""
        sizes = [f"{cost.parameters:,}", in_bytes(cost.stored), f"{1000 * cost.seconds:.0f} ms"]
        rates = f"{found[0].factor:g}"
        rows.append([TITLES[way], errors, change, *sizes, in_bytes(cost.peak_memory), rates, str(found[0].epochs)])
    return markdown(rows, [*headers, "rates x", "epochs"])


def picture(records: Sequence[Record], costs: Mapping[str, StepCosts]) -> Figure:
    """Error by the number of parameters trained, with 95 % intervals."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="parameters trained", ylabel="top-1 error (%)", xscale="log")
    for (way, cost), marker in zip(costs.items(), "sov^Dp", strict=False):
        mean, half = interval([record.top1 for record in records if record.way == way])
        color = "black" if way == CONTROL else None
        spread = None if math.isnan(half) else half
        axes.errorbar(cost.parameters, mean, spread, fmt=marker, capsize=4, color=color, label=TITLES[way])
    counts = [cost.parameters for cost in costs.values()]
    axes.set(xlim=(min(counts) / 2, max(counts) * 2))
    level = statistics.mean(record.top1 for record in records if record.way == CONTROL)
    axes.axhline(level, color="black", linewidth=0.8, linestyle=":")
    low, high = axes.get_ylim()
    axes.set(ylim=(max(low, 0), min(high, 100)))  # intervals of few seeds reach further than errors do
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def page(command: str, about: str, records: Sequence[Record], costs: Mapping[str, StepCosts]) -> str:
    """The comparison as Markdown, with its picture beside it."""
    images = next(iter(costs.values())).images
    return TEXT.format(command=command, about=about, table=table(records, costs), images=images)


TEXT = """# Ways to adapt a pretrained network

```sh
{command}
```

{about}

{table}

![error by parameters trained](compare.png)

Errors are those of the last epoch on the validation images, on which nothing was selected; "±" is half the 95 %
confidence interval of the mean over seeds, by Student's t. Differences to the control are paired by seed. "To store" is
what training changes: parameters, and the statistics of norms. "Step" is the median time of a step on {images} images
of noise, "peak memory" is that of weights, optimizer and what such a step keeps. "rates x" multiplies all learning
rates; of several it was chosen for each way on a fifth of the training images, which was held out for that.
"""
