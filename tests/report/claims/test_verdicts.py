"""Intervals over seeds and verdicts, against closed forms."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from fmbench.report.claims.claim import Finding
from fmbench.report.claims.comparison import relative_difference
from fmbench.report.claims.verdicts import (
    ENOUGH_SEEDS,
    FAILS,
    HOLDS,
    INCONCLUSIVE,
    LEVEL,
    NOT_TESTED,
    bootstrap,
    combine,
    combine_leaning,
    coverage,
    judge,
    student,
)


@pytest.mark.parametrize("values", [(3.0, 1.0), (0.2, -1.0, 4.0), (0.0, 1.0, 10.0, 100.0), (1.0, 2.0, 4.0, 8.0, 16.0)])
def test_the_bootstrap_of_few_values_is_that_of_all_resamples(values):
    means = np.sort([np.mean(pick) for pick in itertools.product(values, repeat=len(values))])
    share = np.arange(1, len(means) + 1) / len(means)
    low = means[np.argmax(share > 0.025 + 1e-12)]
    high = means[np.argmax(share >= 0.975 - 1e-12)]
    assert bootstrap(values) == (pytest.approx(low), pytest.approx(high))


def test_the_interval_of_two_or_three_values_is_their_range_and_of_four_it_is_narrower():
    assert bootstrap([5.0, 2.0]) == (2.0, 5.0)
    assert bootstrap([5.0, 2.0, 3.0]) == (2.0, 5.0)
    low, high = bootstrap([0.0, 1.0, 2.0, 3.0])
    assert 0 < low < high < 3


def test_one_value_has_no_interval():
    assert all(math.isnan(v) for v in (*bootstrap([1.0]), *student([1.0])))
    assert coverage(1) is None


def test_many_values_have_the_interval_of_normal_theory_and_the_same_one_each_time():
    values = stats.norm.ppf((np.arange(400) + 0.5) / 400).tolist()
    low, high = bootstrap(values)
    assert (low, high) == bootstrap(values)
    half = 1.96 * np.std(values) / 20
    assert low == pytest.approx(-half, abs=0.004) and high == pytest.approx(half, abs=0.004)


def test_the_coverage_is_that_of_the_range_for_the_median():
    """Of two draws both lie on one side of the median half of the time, whatever they are drawn from."""
    draws = np.random.default_rng(0).exponential(size=(20000, 3))
    median = math.log(2)
    for n in (2, 3):
        inside = (draws[:, :n].min(1) < median) & (median < draws[:, :n].max(1))
        assert coverage(n) == pytest.approx(inside.mean(), abs=0.015)
    assert coverage(ENOUGH_SEEDS - 1) < LEVEL == coverage(ENOUGH_SEEDS)


def test_students_interval_is_scipys():
    values = [1.0, 2.5, 2.0]
    assert student(values) == pytest.approx(stats.t.interval(0.95, 2, np.mean(values), stats.sem(values)))


@pytest.mark.parametrize(
    ("values", "below", "verdict", "leans"),
    [
        ([-1.0, -1.1, -0.9, -1.2, -0.8, -1.0], True, HOLDS, ""),
        ([-1.0, -1.1, -0.9, -1.2, -0.8, -1.0], False, FAILS, ""),
        ([1.0, 1.1, 0.9, 1.2, 0.8, 1.0], True, FAILS, ""),
        ([-1.0, 1.1, -0.9, 1.2, -0.8, 1.0], True, INCONCLUSIVE, ""),
        # Two seeds: 12.7 standard errors must lie between the mean and the threshold.
        ([-1.00, -1.01], True, HOLDS, ""),
        ([-1.0, -2.0], True, INCONCLUSIVE, HOLDS),
        ([1.0, 2.0], True, INCONCLUSIVE, FAILS),
        ([1.0, -2.0], True, INCONCLUSIVE, ""),
        ([-1000.0], True, INCONCLUSIVE, ""),
        ([], True, NOT_TESTED, ""),
        ([math.nan, math.inf], True, NOT_TESTED, ""),
    ],
)
def test_a_verdict_by_the_values_of_the_seeds(values, below, verdict, leans):
    judged = judge(values, 0.0, below)
    assert (judged.verdict, judged.leans) == (verdict, leans) and judged.why
    if len(values) == 1:
        assert math.isnan(judged.low) and judged.value == values[0]


def test_with_five_seeds_a_verdict_also_needs_students_interval():
    values = [-0.1, -0.1, -0.1, -0.1, -3.0]
    assert bootstrap(values)[1] < 0 < student(values)[1]
    assert (judge(values, 0.0).verdict, judge(values, 0.0).leans) == (INCONCLUSIVE, HOLDS)
    assert judge([*values, -0.1], 0.0).verdict == HOLDS


def test_verdicts_are_combined():
    assert combine([HOLDS, HOLDS, NOT_TESTED]) == HOLDS
    assert combine([HOLDS, INCONCLUSIVE]) == INCONCLUSIVE
    assert combine([HOLDS, INCONCLUSIVE, FAILS]) == FAILS
    assert combine([NOT_TESTED]) == combine([]) == NOT_TESTED
    assert combine_leaning([(HOLDS, ""), (INCONCLUSIVE, HOLDS)]) == HOLDS
    assert combine_leaning([(HOLDS, ""), (INCONCLUSIVE, FAILS)]) == FAILS
    assert combine_leaning([(INCONCLUSIVE, ""), (INCONCLUSIVE, HOLDS)]) == ""
    assert combine_leaning([(FAILS, ""), (INCONCLUSIVE, HOLDS)]) == ""


def test_a_finding_has_a_known_verdict_and_a_reason():
    with pytest.raises(ValueError, match="a verdict is one of holds, fails"):
        Finding(1, "d", "trained", "", "true", "because")
    with pytest.raises(ValueError, match="needs a reason"):
        Finding(1, "d", "trained", "", HOLDS, "")


def test_the_relative_difference():
    found = relative_difference(np.array([1.0, 2.0, 0.0, -1.0, 1.0]), np.array([2.0, 1.0, 0.0, 1.0, 1.0]))
    assert found == pytest.approx([-2 / 3, 2 / 3, 0, -2, 0])
