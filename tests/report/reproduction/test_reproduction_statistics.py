"""The interval for the mean of new seeds, Holm's procedure, and the test of all numbers together."""

import itertools

import numpy as np
import pytest
from scipy import stats

from fmbench.report.reproduction import statistics
from fmbench.report.reproduction.statistics import holm, joint_p, moments, p_values, quantile, standard_error


def test_moments_leave_out_missing_values():
    values = np.array([[1.0, 2.0, 6.0], [np.nan, 5.0, np.nan], [np.nan] * 3, [1.0, np.nan, 2.0]])
    n, mean, spread = moments(values)
    assert n.tolist() == [3, 1, 0, 2]
    assert mean[:2].tolist() == [3.0, 5.0] and np.isnan(mean[2]) and mean[3] == 1.5
    assert spread[0] == pytest.approx(np.sqrt(7)) and np.isnan(spread[1:3]).all() and spread[3] == pytest.approx(np.sqrt(0.5))


@pytest.mark.parametrize(("n", "m"), [(2, 2), (8, 1), (8, 2), (3, 5)])
def test_the_mean_of_new_seeds_is_within_the_interval_as_often_as_it_says(n, m):
    rng = np.random.default_rng(n * m)
    x, y = rng.normal(3, 2, (20000, n)), rng.normal(3, 2, (20000, m))
    count, centre, spread = moments(x)
    error = standard_error(spread, count, np.full(len(y), m))
    z = (y.mean(axis=1) - centre) / error
    for level in (0.3, 0.05):
        outside = np.abs(z) > quantile(level, count)
        assert outside.mean() == pytest.approx(level, abs=4 * np.sqrt(level / 20000))
        assert ((p_values(z, count) <= level) == outside).all()


def test_the_interval_of_a_single_new_seed_is_the_prediction_interval_of_the_textbook():
    x = np.array([[2.0, 4.0, 9.0]])
    n, mean, spread = moments(x)
    half = float((quantile(0.05, n) * standard_error(spread, n, np.array([1])))[0])
    assert half == pytest.approx(stats.t(2).ppf(0.975) * np.sqrt(13) * np.sqrt(1 + 1 / 3)) and mean[0] == 5


def test_one_seed_gives_no_interval():
    assert np.isnan(quantile(0.05, np.array([1]))).all() and np.isnan(p_values(np.array([3.0]), np.array([1]))).all()


def test_holms_procedure_matches_a_calculation_by_hand():
    # 0.01 <= 0.05 / 4, 0.012 <= 0.05 / 3, 0.03 > 0.05 / 2
    significant, level = holm(np.array([0.03, 0.01, np.nan, 0.9, 0.012]), 0.05)
    assert significant.tolist() == [False, True, False, False, True] and level == pytest.approx(0.05 / 2)
    significant, level = holm(np.array([0.04, 0.03]), 0.05)
    assert not significant.any() and level == pytest.approx(0.025)
    assert holm(np.array([np.nan]), 0.05)[0].tolist() == [False]


def test_a_p_value_is_significant_exactly_if_it_is_at_most_the_level_of_holm():
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = rng.random(12) ** 3
        significant, level = holm(p, 0.2)
        assert (significant == (p <= level)).all()


def test_the_joint_p_value_matches_a_count_of_all_choices_by_hand():
    reference, run = np.array([[0.0, 1.0, 2.0]]), np.array([[10.0]])
    assert joint_p(reference, run) == pytest.approx(1 / 4)
    # A single seed in the middle is as far from the mean of the others as any other choice, or nearer.
    assert joint_p(np.array([[0.0, 10.0, 6.0]]), np.array([[5.0]])) == 1


def test_the_joint_p_value_is_exact_for_numbers_that_depend_on_each_other():
    """Among all choices of the run's seeds out of the same values, p <= k / 10 holds for at most k of 10."""
    rng = np.random.default_rng(1)
    common = rng.standard_t(2, (1, 5))
    pool = common + 0.1 * rng.standard_t(2, (30, 5))
    found = []
    for chosen in itertools.combinations(range(5), 2):
        others = [i for i in range(5) if i not in chosen]
        found.append(joint_p(pool[:, others], pool[:, list(chosen)]))
    assert sorted(found) == pytest.approx(np.arange(1, 11) / 10)


def test_many_seeds_take_a_random_choice_of_partitions(monkeypatch):
    rng = np.random.default_rng(2)
    x, y = rng.normal(0, 1, (50, 6)), rng.normal(0, 1, (50, 4))
    exact = joint_p(x, y)
    monkeypatch.setattr(statistics, "PARTITIONS", 150)  # of 210
    assert joint_p(x, y) == pytest.approx(exact, abs=0.12)
    assert joint_p(x, y + 3) <= 0.05


def test_numbers_without_a_spread_or_with_missing_values_do_not_count_in_the_joint_test():
    assert np.isnan(joint_p(np.array([[2.0, 2.0], [np.nan, 1.0]]), np.array([[2.0], [3.0]])))
