"""The statistics of the page: means with intervals, differences paired by seed, and what is left after many of them."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from .grid import Experiment
from .records import Record

Evidence = Mapping[Experiment, Sequence[Record]]  # every experiment, and what has been trained of it

MEASURES: dict[str, Callable[[Record], float | None]] = {
    "error": lambda record: record.top1,
    "calibration error": lambda record: record.ece,
    "error under corruptions": lambda record: statistics.mean(record.corrupted.values()) if record.corrupted else None,
}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % confidence interval, by Student's t; of one value, the width is NaN.

    >>> interval([1.0, 2.0, 3.0])
    (2.0, 2.484...)
    """
    mean, count = statistics.mean(values), len(values)
    if count < 2:
        return mean, math.nan
    return mean, float(stats.t.ppf(0.975, count - 1)) * _standard_error(values)


def p_value(values: Sequence[float]) -> float:
    """How probable a mean as far from zero is by chance, by Student's t, two-sided; NaN of one value.

    >>> round(p_value([1.0, 2.0, 3.0]), 3)
    0.074
    """
    if len(values) < 2:
        return math.nan
    mean, error = statistics.mean(values), _standard_error(values)
    return float(2 * stats.t.sf(abs(mean) / error, len(values) - 1)) if error else float(mean == 0)


def _standard_error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values))


def holm(p_values: Sequence[float]) -> list[float]:
    """The same, corrected for their number: below 0.05, none of those is false with a probability of 95 %.

    Holm, "A simple sequentially rejective multiple test procedure", 1979.

    >>> holm([0.03, 0.01])
    [0.03, 0.02]
    """
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = highest
    return corrected


def chosen(records: Sequence[Record], experiment: Experiment, arm: str) -> float | None:
    """The learning rate with which the first seed's held-out error is the lowest, the lower one of two such.

    ``None`` until all rates have been tried.
    """
    found = {record.job: record for record in records}
    jobs = [experiment.job(arm, 0, lr) for lr in experiment.rates]
    if not all(job in found for job in jobs):
        return None
    return min((found[job].held_out, job.lr) for job in jobs)[1]


def of_arm(records: Sequence[Record], experiment: Experiment, arm: str) -> list[Record]:
    """An arm's trainings at its chosen rate, by seed; those of another network, data or length are left out."""
    lr = chosen(records, experiment, arm)
    if lr is None:
        return []
    found = {record.job: record for record in records}
    jobs = [experiment.job(arm, seed, lr) for seed in range(experiment.seeds)]
    return [found[job] for job in jobs if job in found]


def done(records: Sequence[Record], experiment: Experiment) -> int:
    """How many of the planned trainings there are."""
    others = [record for arm in experiment.compared for record in of_arm(records, experiment, arm) if record.job.seed]
    return sum(record.job.seed == 0 and experiment.includes(record.job) for record in records) + len(others)


@dataclass(frozen=True)
class Difference:
    """An arm's mean difference to its control over seeds, below zero where the arm is better."""

    experiment: Experiment
    arm: str
    control: str
    measure: str
    mean: float
    half: float
    p: float
    seeds: int

    @property
    def outside(self) -> bool:
        """The 95 % interval excludes zero."""
        return self.p < 0.05

    @property
    def complete(self) -> bool:
        """All seeds have been trained."""
        return self.seeds == self.experiment.seeds


def difference(
    records: Sequence[Record], experiment: Experiment, arm: str, measure: str = "error", control: str | None = None
) -> Difference | None:
    """Of the seeds that both have been trained with; ``None`` if there are none."""
    value, control = MEASURES[measure], control or experiment.control_of(arm)
    of_control = {record.job.seed: value(record) for record in of_arm(records, experiment, control)}
    values = []
    for record in of_arm(records, experiment, arm):
        ours, theirs = value(record), of_control.get(record.job.seed)
        if ours is not None and theirs is not None:
            values.append(ours - theirs)
    if not values:
        return None
    return Difference(experiment, arm, control, measure, *interval(values), p_value(values), len(values))


def whole_difference(records: Sequence[Record], experiment: Experiment, arm: str) -> Difference | None:
    """Of errors, once all seeds have been trained: a picture of fewer would look surer than it is."""
    found = difference(records, experiment, arm)
    return found if found is not None and found.complete else None
