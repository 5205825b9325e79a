"""The statistics are those of textbooks; rates are chosen on held-out images; differences are of the same seeds."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from recipes.evidence.paired import chosen, difference, done, holm, interval, of_arm, p_value

from .invented import experiment, record, trained


def test_intervals_and_p_values_are_those_of_students_t():
    values = [1.0, 4.0, 2.5, 3.0]
    mean, half = interval(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert p_value(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert interval([3.0])[0] == 3.0 and np.isnan(interval([3.0])[1]) and np.isnan(p_value([3.0]))
    assert (p_value([2.0, 2.0]), p_value([0.0, 0.0])) == (0, 1)


def test_holm():
    """An example of many textbooks, and the promise: all are rejected together only if each step rejects."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1] and holm([]) == [] and holm([0.04]) == [0.04]


def test_the_rate_is_chosen_on_held_out_images_of_the_first_seed():
    tiny = experiment(rates=(0.1, 0.2, 0.3))
    found = [
        record(tiny, "gates", 0, 0.1, 9.0, held_out=12.0),
        record(tiny, "gates", 0, 0.3, 11.0, held_out=10.0),
        record(tiny, "gates", 1, 0.1, 8.0, held_out=1.0),
        record(tiny, "plain", 0, 0.1, 8.0, held_out=1.0),
    ]
    assert chosen(found, tiny, "gates") is None and of_arm(found, tiny, "gates") == []
    found.append(record(tiny, "gates", 0, 0.2, 11.0, held_out=10.0))
    assert chosen(found, tiny, "gates") == 0.2
    assert [each.job.lr for each in of_arm(found, tiny, "gates")] == [0.2]
    assert done(found, tiny) == 4 and tiny.planned == 10


def test_trainings_of_another_length_are_no_part_of_an_experiment():
    tiny = experiment()
    found = trained(replace(tiny, epochs=3), gates=[9.0, 9.0, 9.0])
    assert chosen(found, tiny, "gates") is None
    assert not any(tiny.includes(each.job) for each in found)
    assert all(tiny.includes(each.job) for each in trained(tiny, plain=[9.0], gates=[9.0, 9.0, 9.0]))
    others = [tiny.job("late", 0, 0.1), tiny.job("gates", 3, 0.1), tiny.job("gates", 0, 0.4)]
    assert not any(tiny.includes(job) for job in others)


def test_differences_are_paired_by_seed():
    tiny = experiment()
    found = trained(tiny, plain=[10.0, 20.0, 30.0], gates=[9.0, 18.5, 28.0])
    one = difference(found[::-1], tiny, "gates")
    assert (one.mean, one.half) == pytest.approx(interval([-1.0, -1.5, -2.0]))
    assert one.outside and one.complete and one.seeds == 3
    assert not difference(trained(tiny, plain=[10.0, 20.0, 30.0], gates=[9.0, 18.5, 31.0]), tiny, "gates").outside
    assert difference(found, tiny, "gates", "calibration error").mean == pytest.approx(-1.5 / 4)
    assert difference(found, tiny, "gates", "error under corruptions").mean == pytest.approx(-1.5 * 2.5)
    less = [each for each in found if (each.job.arm, each.job.seed) != ("plain", 1)]
    one = difference(less, tiny, "gates")
    assert one.mean == pytest.approx(-1.5) and one.seeds == 2 and not one.complete
    assert difference(trained(tiny, gates=[9.0]), tiny, "gates") is None
    for arm in ("plain", "gates"):
        diverged = [replace(each, ece=None) if each.job.arm == arm and each.job.seed == 2 else each for each in found]
        assert difference(diverged, tiny, "gates", "calibration error").seeds == 2
