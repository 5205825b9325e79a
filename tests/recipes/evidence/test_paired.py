"""The statistics are those of textbooks; rates are chosen on held-out images; differences are of the same seeds."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from recipes.evidence.paired import difference, done, finalists, holm, interval, of_arm, p_value, whole

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


def test_the_rates_with_the_lowest_held_out_errors_of_the_first_seed_are_finalists():
    tiny = experiment(rates=(0.1, 0.2, 0.3, 0.4))
    found = [
        record(tiny, "gates", 0, 0.1, 9.0, held_out=12.0),
        record(tiny, "gates", 0, 0.2, 11.0, held_out=10.0),
        record(tiny, "gates", 0, 0.4, 11.0, held_out=9.0),
        record(tiny, "gates", 1, 0.1, 8.0, held_out=1.0),
        record(tiny, "plain", 0, 0.1, 8.0, held_out=1.0),
    ]
    assert finalists(found, tiny, "gates") == {} and of_arm(found, tiny, "gates") == []
    found.append(record(tiny, "gates", 0, 0.3, 11.0, held_out=10.0))
    assert [*finalists(found, tiny, "gates")] == [0.4, 0.2]
    assert [each.job.lr for each in of_arm(found, tiny, "gates")] == [0.4]
    assert done(found, tiny) == 5 and tiny.planned == 2 * (4 + 2 * 2)
    assert experiment(rates=(0.1,)).planned == 2 * 3


def test_the_finalist_with_the_lowest_mean_held_out_error_is_chosen():
    """A first seed that is lucky is one of all."""
    tiny = experiment(rates=(0.1, 0.2, 0.3))
    held_out = {0.1: [8.0, 12.0, 12.0], 0.2: [9.0, 10.0, 10.0], 0.3: [9.5, 1.0, 1.0]}
    jobs = [(lr, seed) for seed in range(3) for lr in (0.2, 0.1)]
    found = [record(tiny, "gates", 0, 0.3, 1.0, held_out=9.5)]
    rates = []
    for lr, seed in jobs:
        found.append(record(tiny, "gates", seed, lr, 10 * lr, held_out=held_out[lr][seed]))
        rates.append([(each.job.lr, each.job.seed) for each in of_arm(found, tiny, "gates")])
        assert whole(found, tiny, "gates") == ((lr, seed) == jobs[-1])
    assert rates[1] == [(0.1, 0)]
    assert rates[2] == [(0.1, 0)]  # the other one has no second seed yet
    assert rates[3] == [(0.2, 0), (0.2, 1)]
    assert rates[5] == [(0.2, 0), (0.2, 1), (0.2, 2)]
    assert done(found, tiny) == len(found) == 7
    assert not whole([], tiny, "gates")


def test_trainings_of_another_length_are_no_part_of_an_experiment():
    tiny = experiment()
    found = trained(replace(tiny, epochs=3), gates=[9.0, 9.0, 9.0])
    assert of_arm(found, tiny, "gates") == []
    assert not any(tiny.includes(each.job) for each in found)
    assert all(tiny.includes(each.job) for each in trained(tiny, plain=[9.0], gates=[9.0, 9.0, 9.0]))
    others = [tiny.job("late", 0, 0.1), tiny.job("gates", 3, 0.1), tiny.job("gates", 0, 0.4)]
    assert not any(tiny.includes(job) for job in others)


def test_differences_are_paired_by_seed():
    tiny = experiment()
    found = trained(tiny, plain=[10.0, 20.0, 30.0], gates=[9.0, 18.5, 28.0])
    one = difference(found[::-1], tiny, "gates")
    assert (one.mean, one.half) == pytest.approx(interval([-1.0, -1.5, -2.0]))
    assert one.outside and one.complete
    assert not difference(trained(tiny, plain=[10.0, 20.0, 30.0], gates=[9.0, 18.5, 31.0]), tiny, "gates").outside
    assert difference(found, tiny, "gates", "calibration error").mean == pytest.approx(-1.5 / 4)
    assert difference(found, tiny, "gates", "error under corruptions").mean == pytest.approx(-1.5 * 2.5)
    less = [each for each in found if (each.job.arm, each.job.seed) != ("plain", 1)]
    one = difference(less, tiny, "gates")
    assert one.mean == pytest.approx(-1.5) and not one.complete
    for arm in ("plain", "gates"):  # a rate that was not chosen counts, too: it might have been
        less = [each for each in found if each.job != tiny.job(arm, 1, 0.2)]
        assert not difference(less, tiny, "gates").complete
    assert difference(trained(tiny, gates=[9.0]), tiny, "gates") is None
    for arm in ("plain", "gates"):
        diverged = [replace(each, ece=None) if each.job.arm == arm and each.job.seed == 2 else each for each in found]
        one = difference(diverged, tiny, "gates", "calibration error")
        assert one.mean == pytest.approx(-1.25 / 4) and not one.complete
