"""Tables in Markdown: a row an arm of one experiment, with its costs, its errors and its differences to the control."""

import math
from collections.abc import Sequence

from tabulate import tabulate

from .arms import ARMS
from .grid import Experiment
from .paired import MEASURES, Difference, Evidence, difference, interval, of_arm, whole
from .records import Record
from .tasks import FEWSHOT, IMAGES, TESTED

HEADERS = [
    "trained",
    "parameters trained",
    "to store",
    "step time",
    "learning rate",
    "error %",
    "to the control",
    "calibration error %",
    "error % under corruptions",
]


def plus_minus(values: Sequence[float], style: str = ".2f") -> str:
    """Mean and half of its 95 % interval, if there is one; nothing of no values.

    >>> plus_minus([1.0, 2.0, 3.0]), plus_minus([-1.0], "+.2f"), plus_minus([])
    ('2.00 ± 2.48', '-1.00', '')
    """
    return with_half(*interval(values), style) if values else ""


def with_half(mean: float, half: float, style: str = "+.2f") -> str:
    """A mean with half of its interval, which may be NaN.

    >>> with_half(-0.5, 0.25)
    '-0.50 ± 0.25'
    """
    return f"{mean:{style}}" if math.isnan(half) else f"{mean:{style}} ± {half:.2f}"


def against(experiment: Experiment, arm: str) -> str:
    """Which control an arm is compared with, where that is not the experiment's."""
    control = experiment.control_of(arm)
    return "" if control == experiment.control else f" (to {ARMS[control].title})"


def marked(difference: Difference | None) -> str:
    """A difference with half of its interval, in bold where that excludes zero and no training is missing."""
    if difference is None:
        return ""
    text = with_half(difference.mean, difference.half)
    return f"**{text}**" if difference.outside and difference.complete else text


def in_bytes(size: int) -> str:
    """Three digits or so, in kB or MB.

    >>> in_bytes(23136), in_bytes(9400000)
    ('23.1 kB', '9.4 MB')
    """
    return f"{size / 1e3:.3g} kB" if size < 1e6 else f"{size / 1e6:.{0 if size > 1e8 else 1}f} MB"


def markdown(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    """A table whose cells stay as they are.

    >>> print(markdown([["1.50"]], ["error"]))
    | error   |
    |---------|
    | 1.50    |
    """
    text: str = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    return text


def arms_table(experiment: Experiment, records: Sequence[Record]) -> str:
    """A row an arm, the control first; cells are empty where trainings are missing."""
    return markdown([_row(experiment, records, arm) for arm in experiment.compared], HEADERS)


def domains_table(experiment: Experiment, records: Sequence[Record]) -> str:
    """A row an arm: its error in each domain; nothing where no training has them."""
    found = {arm: of_arm(records, experiment, arm) for arm in experiment.compared}
    names = sorted({name for of in found.values() for record in of for name in record.domains})
    rows = [
        [_title(experiment, arm), *(plus_minus([r.domains[name] for r in of if name in r.domains]) for name in names)]
        for arm, of in found.items()
    ]
    return markdown(rows, ["error % by domain", *names]) if names else ""


def _title(experiment: Experiment, arm: str) -> str:
    return ARMS[arm].title + (" (control)" if arm == experiment.control else "")


def _row(experiment: Experiment, records: Sequence[Record], arm: str) -> list[str]:
    title = _title(experiment, arm)
    found = of_arm(records, experiment, arm)
    if not found:
        return [title, *[""] * (len(HEADERS) - 1)]
    diverged = sum(record.loss is None for record in found)
    values = {
        name: plus_minus([value for record in found if (value := measure(record)) is not None])
        for name, measure in MEASURES.items()
    }
    return [
        title,
        f"{found[0].parameters:,}",
        in_bytes(found[0].stored),
        _relative_step(records, arm, experiment.control),
        _rate(found[0].job.lr, experiment.rates) + ("" if whole(records, experiment, arm) else ", so far"),
        values["error"] + (f", {diverged} diverged" if diverged else ""),
        _change(experiment, records, arm),
        values["calibration error"],
        values["error under corruptions"],
    ]


def _change(experiment: Experiment, records: Sequence[Record], arm: str) -> str:
    found = None if arm == experiment.control else difference(records, experiment, arm)
    return marked(found) + against(experiment, arm) if found else ""


def _relative_step(records: Sequence[Record], arm: str, control: str) -> str:
    """The ratio of the fastest trainings, at any rate, on the device where the arm was trained most.

    Nothing where an arm trains nothing, or where its times differ by more than a factor of two, as they are those of
    the machine's other work.
    """
    devices = [record.device for record in records if record.job.arm == arm]
    device = max(dict.fromkeys(devices), key=devices.count)
    ours, theirs = (
        [record.step for record in records if (record.job.arm, record.device) == (name, device)]
        for name in (arm, control)
    )
    if not theirs or not min(*ours, *theirs) or max(ours) > 2 * min(ours) or max(theirs) > 2 * min(theirs):
        return ""
    return f"{min(ours) / min(theirs):.2f}"


def _rate(rate: float, rates: Sequence[float]) -> str:
    """With a word where it is the last one of those that were tried, as a better one may lie beyond."""
    edges = {min(rates): ", lowest", max(rates): ", highest"} if len(rates) > 1 else {}
    return f"{rate:g}{edges.get(rate, '')}"


def what_was_run(experiment: Experiment, records: Sequence[Record]) -> str:
    """One line: the network, the data, the budget, and the machines."""
    devices = ", ".join(sorted({record.device for record in records}))
    rates = ", ".join(f"{rate:g}" for rate in experiment.rates)
    hours = sum(record.seconds for record in records) / 3600
    return (
        f"`{experiment.network}` on {_amount(experiment)}, {experiment.seeds} seeds, learning rates {rates}; "
        f"{hours:.1f} hours on {devices}."
    )


def _amount(experiment: Experiment) -> str:
    pixels = f"{experiment.size} pixels"
    if experiment.data in FEWSHOT:
        about, tasks = FEWSHOT[experiment.data], experiment.epochs * experiment.images // IMAGES
        return (
            f"{tasks} tasks of {about.trained}, a step each, {pixels}; rates chosen on {TESTED} tasks of "
            f"{about.chosen}, tested on {TESTED} of {about.tested}"
        )
    images = f"{experiment.images:,}" if experiment.images else "all"
    return f"{images} images of {experiment.data}, {pixels}, {experiment.epochs} epochs"


def robustness_table(evidence: Evidence) -> str:
    """A row a gated arm of every experiment: its calibration and robustness, as differences to the control."""
    rows = []
    for experiment, records in evidence.items():
        for arm in experiment.gated:
            calibration, corruptions = (difference(records, experiment, arm, name) for name in list(MEASURES)[1:])
            if calibration or corruptions:
                title = ARMS[arm].title + against(experiment, arm)
                rows.append([experiment.title, title, marked(calibration), marked(corruptions)])
    return markdown(rows, ["experiment", "trained", *list(MEASURES)[1:]]) if rows else ""
