"""The statistics of the page: means with intervals, differences paired by seed, and what is left after many of them."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from .grid import FINALISTS, Experiment
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


def finalists(records: Sequence[Record], experiment: Experiment, arm: str) -> dict[float, dict[int, Record]]:
    """The learning rates with the lowest held-out errors of the first seed, each with an arm's trainings by seed.

    None until all rates have been tried. Trainings of another network, data or length are left out.
    """
    found = {record.job: record for record in records}
    tried = [experiment.job(arm, 0, lr) for lr in experiment.rates]
    if not all(job in found for job in tried):
        return {}
    best = sorted(tried, key=lambda job: (found[job].held_out, job.lr))[:FINALISTS]
    jobs = {job.lr: {seed: experiment.job(arm, seed, job.lr) for seed in range(experiment.seeds)} for job in best}
    return {lr: {seed: found[job] for seed, job in by_seed.items() if job in found} for lr, by_seed in jobs.items()}


def whole(records: Sequence[Record], experiment: Experiment, arm: str) -> bool:
    """Whether all finalists have been trained with all seeds, so that the choice between them is made."""
    final = finalists(records, experiment, arm)
    return bool(final) and all(len(by_seed) == experiment.seeds for by_seed in final.values())


def of_arm(records: Sequence[Record], experiment: Experiment, arm: str) -> list[Record]:
    """An arm's trainings, by seed, at the rate with the lowest mean held-out error, the lower one of two such.

    The mean is over the seeds that all finalists have been trained with.
    """
    final = finalists(records, experiment, arm)
    if not final:
        return []
    seeds = set.intersection(*(set(by_seed) for by_seed in final.values()))
    means = {lr: statistics.mean(by_seed[seed].held_out for seed in seeds) for lr, by_seed in final.items()}
    return list(final[min(final, key=lambda lr: (means[lr], lr))].values())


def done(records: Sequence[Record], experiment: Experiment) -> int:
    """How many of the planned trainings there are."""
    final = [by_seed for arm in experiment.compared for by_seed in finalists(records, experiment, arm).values()]
    others = sum(seed > 0 for by_seed in final for seed in by_seed)
    return sum(record.job.seed == 0 and experiment.includes(record.job) for record in records) + others


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
    complete: bool  # all of both has been trained

    @property
    def outside(self) -> bool:
        """The 95 % interval excludes zero."""
        return self.p < 0.05


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
    complete = len(values) == experiment.seeds and all(whole(records, experiment, one) for one in (arm, control))
    return Difference(experiment, arm, control, measure, *interval(values), p_value(values), complete)


def whole_difference(records: Sequence[Record], experiment: Experiment, arm: str) -> Difference | None:
    """Of errors, once all has been trained: a picture of less would look surer than it is."""
    found = difference(records, experiment, arm)
    return found if found is not None and found.complete else None
