"""Student's interval and the jackknife's values, against closed forms and simulation."""

import math

import numpy as np
import pytest
from claim_simulation import NOISES
from scipy import stats

from fmbench.report.claims.claim06_stable_training import log_spreads
from fmbench.report.claims.comparison import error_of_difference, relative_difference, scaled_difference
from fmbench.report.claims.student import coverage, mean_test, student
from fmbench.report.claims.verdicts import ALPHA, INCONCLUSIVE, LEVEL


@pytest.mark.parametrize("values", [[1.0, 2.5], [1.0, 2.5, 2.0], [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0]])
def test_the_interval_and_the_p_values_are_scipys(values):
    test = mean_test(values, 1.2)
    interval = stats.t.interval(LEVEL, len(values) - 1, np.mean(values), stats.sem(values))
    assert student(values) == pytest.approx(interval) and test.bounds == pytest.approx(interval)
    assert test.p_holds == pytest.approx(stats.ttest_1samp(values, 1.2, alternative="less").pvalue)
    assert test.p_fails == pytest.approx(stats.ttest_1samp(values, 1.2, alternative="greater").pvalue)
    assert mean_test(values, 1.2, below=False).p_holds == pytest.approx(test.p_fails)


def test_the_interval_excludes_the_threshold_where_a_one_sided_test_is_significant():
    for shift in np.linspace(-3, 3, 61):
        test = mean_test([shift - 0.6, shift, shift + 0.9], 0.0)
        low, high = test.bounds
        assert (high < 0, low > 0) == (test.p_holds < ALPHA, test.p_fails < ALPHA)


def test_one_value_has_no_interval():
    assert all(map(math.isnan, (*student([1.0]), *mean_test([1.0]).bounds))) and coverage(1) is None
    assert mean_test([math.nan, math.inf]).seeds == 0


@pytest.mark.parametrize("seeds", [2, 3, 6, 8, 12])
def test_the_coverage_of_normal_values_is_that_of_the_level(seeds):
    """40,000 draws: three standard errors of a share of 0.95 are 0.0033."""
    x = NOISES["normal"](np.random.default_rng(seeds), (40_000, seeds))
    half = stats.t.ppf((1 + LEVEL) / 2, seeds - 1) * x.std(1, ddof=1) / math.sqrt(seeds)
    low, high = student(x[0].tolist())
    assert (high - low) / 2 == pytest.approx(half[0])
    assert float((np.abs(x.mean(1)) < half).mean()) == pytest.approx(coverage(seeds), abs=0.0033)


def test_the_spread_is_at_least_the_sampling_error():
    """The root mean square of the errors of the seeds, if it is larger: here sqrt((9 + 1) / 2)."""
    values, errors = [-2.0, -2.5], [3.0, 1.0, math.nan]
    test, plain = mean_test(values, errors=errors), mean_test(values)
    assert test.deviation == test.sampling == pytest.approx(math.sqrt(5)) and test.mean == plain.mean == -2.25
    half = stats.t.ppf((1 + LEVEL) / 2, 1) * math.sqrt(5 / 2)
    assert test.bounds == pytest.approx((-2.25 - half, -2.25 + half))
    assert test.p_holds == pytest.approx(stats.t.sf(2.25 / math.sqrt(5 / 2), 1)) and test.p_holds > plain.p_holds
    assert test.reason(INCONCLUSIVE, "") == "with 2 seeds and the sampling error as their spread the 95 % t interval includes 0"
    assert "sampling" not in plain.reason(INCONCLUSIVE, "")


@pytest.mark.parametrize("errors", [[], [math.nan], [0.1, 0.2, 0.3]])
def test_a_sampling_error_that_is_unknown_or_smaller_changes_nothing(errors):
    values = [1.0, 2.5, 2.0]
    test, plain = mean_test(values, errors=errors), mean_test(values)
    assert (test.bounds, test.p_holds, test.p_fails) == (plain.bounds, plain.p_holds, plain.p_fails)
    assert test.reason(INCONCLUSIVE, "") == plain.reason(INCONCLUSIVE, "")


def test_equal_values_have_the_sampling_error_as_their_spread_and_one_seed_has_none():
    equal = mean_test([-1.0] * 6, errors=[2.0] * 6)
    assert mean_test([-1.0] * 6).p_holds == 0.5**6 and equal.p_holds > 0.1 and equal.bounds[0] < 0 < equal.bounds[1]
    assert math.isnan(mean_test([1.0], errors=[2.0]).deviation)


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_a_small_spread_by_chance_is_not_significant(seeds):
    """Values that are sampling error alone: Student's test is wrong in 2.5 % of cases, of two seeds by a small spread."""
    rng, runs = np.random.default_rng(seeds), 4000
    draws = rng.standard_normal((runs, seeds))
    wrong = [sum(mean_test(x, errors=e).p_holds <= ALPHA for x in draws) / runs for e in ([], [1.0])]
    assert 0.015 < wrong[0] < 0.035 and wrong[1] < 0.7 * wrong[0]
    assert seeds > 2 or wrong[1] == 0


@pytest.mark.parametrize("noise", NOISES)
def test_simulated_noise_has_mean_0_and_variance_1(noise):
    x = NOISES[noise](np.random.default_rng(0), (400_000,))
    assert x.mean() == pytest.approx(0, abs=0.01) and np.median((x - x.mean()) ** 2) < 1
    if noise != "t3":  # whose sample variance converges slowly
        assert x.var() == pytest.approx(1, rel=0.05)


def test_the_jackknifes_values_are_those_of_its_definition():
    x = np.array([1.0, 2.0, 4.0, 8.0])
    by_hand = [4 * math.log(x.std(ddof=1)) - 3 * math.log(np.delete(x, i).std(ddof=1)) for i in range(4)]
    assert log_spreads(x) == pytest.approx(by_hand)
    assert np.isinf(log_spreads(np.array([1.0, 2.0]))).all() and np.isinf(log_spreads(np.array([1.0, 1.0, 2.0]))).any()


@pytest.mark.parametrize(("seeds", "noise"), [(4, "normal"), (8, "normal"), (8, "t3")])
def test_the_test_of_two_spreads_keeps_its_level_where_the_f_test_does_not(seeds, noise):
    """Equal spreads, 4,000 draws: 5 % and three standard errors are 6 %. The F test has 9.7 % for t3 at 8 seeds."""
    rng = np.random.default_rng(1)
    below = beyond = 0
    limit = stats.f.ppf(ALPHA, seeds - 1, seeds - 1)
    for _ in range(4000):
        a, b = NOISES[noise](rng, (2, seeds))
        below += mean_test(log_spreads(a) - log_spreads(b)).p_holds <= ALPHA
        beyond += (a.std(ddof=1) / b.std(ddof=1)) ** 2 < limit
    assert below / 4000 < 0.05
    assert beyond / 4000 > 0.08 or noise == "normal"


@pytest.mark.parametrize("scale", [None, 2.5])
def test_the_error_of_a_difference_is_that_of_independent_errors_to_first_order(scale):
    a, b, error_a, error_b = np.array([3.0, 8.0]), np.array([5.0, 2.0]), np.array([0.1, 0.2]), np.array([0.3, 0.4])
    step = 1e-6
    by_a, by_b = (
        (scaled_difference(a + da, b + db, scale) - scaled_difference(a - da, b - db, scale)) / (2 * step)
        for da, db in ((step, 0.0), (0.0, step))
    )
    expected = np.hypot(by_a * error_a, by_b * error_b)
    assert error_of_difference((a, b), (error_a, error_b), scale) == pytest.approx(expected, rel=1e-6)
    assert np.isnan(error_of_difference((a, b), (error_a, np.array([np.nan, 0.4])), scale)).tolist() == [True, False]


def test_the_relative_difference():
    found = relative_difference(np.array([1.0, 2.0, 0.0, -1.0, 1.0]), np.array([2.0, 1.0, 0.0, 1.0, 1.0]))
    assert found == pytest.approx([-2 / 3, 2 / 3, 0, -2, 0])
