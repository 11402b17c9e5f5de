"""The jackknife and the standard errors of distances: closed forms, values by hand, and the spread of repeated draws."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from fmbench.metrics.frechet import feature_statistics, frechet_distance
from fmbench.metrics.jackknife import group_of_each, jackknife_stderr
from fmbench.metrics.points import energy_distance
from fmbench.metrics.sampling_error import GROUPS, energy_distance_stderr, frechet_stderr

rng = np.random.default_rng


def root_mean_square(values: list[float]) -> float:
    return math.sqrt(np.mean(np.square(values)))


# The jackknife


def test_the_error_of_a_mean_is_the_usual_standard_error():
    x = rng(0).exponential(size=17)
    left_out = [np.delete(x, i).mean() for i in range(17)]
    assert jackknife_stderr(left_out) == pytest.approx(x.std(ddof=1) / math.sqrt(17), rel=1e-12)


def test_the_error_of_a_mean_from_equal_groups_is_that_of_the_means_of_the_groups():
    x = rng(1).exponential(size=60)
    group = group_of_each(60, 5)
    left_out = [x[group != g].mean() for g in range(5)]
    means = x.reshape(5, 12).mean(1)
    assert jackknife_stderr(left_out) == pytest.approx(means.std(ddof=1) / math.sqrt(5), rel=1e-12)


@pytest.mark.parametrize(("n", "groups", "sizes"), [(6, 3, [2, 2, 2]), (7, 3, [3, 2, 2]), (3, 3, [1, 1, 1])])
def test_groups_are_neighbours_of_nearly_equal_number(n, groups, sizes):
    group = group_of_each(n, groups)
    assert (np.diff(group) >= 0).all() and np.bincount(group).tolist() == sizes


@pytest.mark.parametrize("groups", [0, 1, 4])
def test_a_jackknife_needs_two_groups_and_a_sample_in_each(groups):
    with pytest.raises(ValueError, match=f"of 3 samples needs from 2 to 3 groups, not {groups}"):
        group_of_each(3, groups)


# The Frechet distance


@pytest.mark.parametrize(("n", "dimensions"), [(3, 2), (7, 12), (50, 4), (333, 30)])
def test_the_statistics_without_a_group_are_those_of_the_other_features(n, dimensions):
    """Also of fewer samples than dimensions, where the covariances have no full rank."""
    x = rng(n).standard_normal((n, dimensions)) + 5
    reference = feature_statistics(rng(1).standard_normal((400, dimensions)))
    order = rng(2).permutation(n)
    groups = min(GROUPS, n)
    left_out = [feature_statistics(np.delete(x, part, 0)) for part in _parts(order, groups)]
    expected = jackknife_stderr([frechet_distance(p, reference) for p in left_out])
    assert frechet_stderr(x, feature_statistics(x), reference, order) == pytest.approx(expected, rel=1e-5)


def _parts(order: NDArray[np.int64], groups: int) -> list[NDArray[np.int64]]:
    return [order[group_of_each(len(order), groups) == g] for g in range(groups)]


def test_the_error_of_one_feature_has_a_closed_form():
    """(m - mu)^2 + (s - sigma)^2 of N(2, 3^2): m has the error s / sqrt(n), and s has s / sqrt(2 n)."""
    n, mean, deviation, mu, sigma = 1000, 2.0, 3.0, 0.0, 1.0
    reference = feature_statistics(np.array([[-1.0], [1.0]]) * sigma / math.sqrt(2) + mu)
    draws = [rng(seed).normal(mean, deviation, (n, 1)) for seed in range(100)]
    found = root_mean_square([frechet_stderr(x, feature_statistics(x), reference) for x in draws])
    expected = math.hypot(2 * (mean - mu), math.sqrt(2) * (deviation - sigma)) * deviation / math.sqrt(n)
    assert found == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize(("shift", "stretch", "low", "high"), [(0.3, 1.5, 0.9, 1.15), (0.05, 1.1, 0.9, 1.25), (0, 1, 1.0, 1.6)])
def test_the_error_is_the_spread_of_repeated_draws(shift, stretch, low, high):
    """At the default run's n = 360 and 64 features. For samples of the reference's own law the error is too large."""
    scale = np.exp(-np.arange(64) / 16)
    reference = feature_statistics(rng(0).standard_normal((1437, 64)) * scale)
    draws = [features_of(rng(seed), shift, stretch, scale) for seed in range(1, 301)]
    spread = np.std([frechet_distance(feature_statistics(x), reference) for x in draws], ddof=1)
    errors = [frechet_stderr(x, feature_statistics(x), reference) for x in draws[:40]]
    assert low < root_mean_square(errors) / spread < high


def features_of(g: np.random.Generator, shift: float, stretch: float, scale: NDArray) -> NDArray:
    return (g.standard_normal((360, 64)) * stretch + shift) * scale


# The energy distance


@pytest.mark.parametrize(("n", "m", "dimensions"), [(3, 1, 1), (12, 9, 2), (40, 11, 3)])
def test_the_error_leaves_out_one_point_after_another(n, m, dimensions):
    x, y = rng(n).standard_normal((n, dimensions)), rng(m).standard_normal((m, dimensions))
    y = np.concatenate([y, y + 1])  # the distance needs two
    expected = jackknife_stderr([energy_distance(np.delete(x, i, 0), y) for i in range(n)])
    assert energy_distance_stderr(x, y) == pytest.approx(expected, rel=1e-9)
    assert energy_distance_stderr(x, y, rows=5) == pytest.approx(expected, rel=1e-9)


def test_the_error_of_the_energy_distance_has_a_closed_form():
    """Uniform points on [0, 1] against a point at 10: x counts 2 (10 - x) - 2 E|x - X'| = 19 - 2 x^2, of variance 16/45."""
    n = 4000
    found = energy_distance_stderr(rng(3).random((n, 1)), np.array([[10.0]]))
    assert found == pytest.approx(math.sqrt(16 / 45 / n), rel=0.03)


@pytest.mark.parametrize(("shift", "low", "high"), [(0.5, 0.9, 1.1), (0.0, 0.95, 2.0)])
def test_the_error_of_the_energy_distance_is_the_spread_of_repeated_draws(shift, low, high):
    y = rng(0).standard_normal((200, 2))
    draws = [rng(seed).standard_normal((200, 2)) + shift for seed in range(1, 401)]
    spread = np.std([energy_distance(x, y) for x in draws], ddof=1)
    assert low < root_mean_square([energy_distance_stderr(x, y) for x in draws[:50]]) / spread < high


def test_an_error_needs_three_samples():
    x, y = np.zeros((2, 1)), np.ones((5, 1))
    with pytest.raises(ValueError, match="at least 3 samples, not 2"):
        energy_distance_stderr(x, y)
    with pytest.raises(ValueError, match="at least 3 samples, not 2"):
        frechet_stderr(x, feature_statistics(x), feature_statistics(y))


def test_fewer_samples_than_features_keep_their_low_rank_form():
    draw = rng(3)
    features, reference = np.zeros((6, 400)), feature_statistics(draw.normal(size=(9, 400)))
    features[:, ::7] = draw.normal(size=(6, 58))
    values = [frechet_distance(feature_statistics(np.delete(features, i, 0)), reference) for i in range(6)]
    assert frechet_stderr(features, feature_statistics(features), reference) == pytest.approx(jackknife_stderr(values), rel=1e-12)
