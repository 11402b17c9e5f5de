"""The energy distance between sets of points, and the support of the checkerboard."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from fmbench.metrics.points import SUPPORTS, energy_distance, on_checkerboard


def rotation(dimensions: int, seed: int) -> NDArray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dimensions, dimensions)))[0]


def brute_force(x: NDArray, y: NDArray) -> float:
    def mean(a: NDArray, b: NDArray, same: bool) -> float:
        pairs = [math.dist(p, q) for i, p in enumerate(a) for j, q in enumerate(b) if not (same and i == j)]
        return sum(pairs) / len(pairs)

    return 2 * mean(x, y, False) - mean(x, x, True) - mean(y, y, True)


@pytest.mark.parametrize(("n", "m", "dimensions"), [(2, 2, 1), (5, 9, 2), (30, 11, 3)])
def test_energy_distance_is_the_sum_over_pairs(n, m, dimensions):
    g = np.random.default_rng(n)
    x, y = g.standard_normal((n, dimensions)), g.standard_normal((m, dimensions)) + 1
    assert energy_distance(x, y) == pytest.approx(brute_force(x, y), rel=1e-12)


def test_energy_distance_does_not_depend_on_blocks():
    """More rows than one block has."""
    from scipy.spatial.distance import cdist

    g = np.random.default_rng(0)
    x, y = g.standard_normal((2100, 2)), g.standard_normal((1025, 2))
    n, m = len(x), len(y)
    expected = 2 * cdist(x, y).mean() - cdist(x, x).sum() / (n * (n - 1)) - cdist(y, y).sum() / (m * (m - 1))
    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_energy_distance_of_two_normals_has_a_closed_form():
    """In one dimension E|X - Y| of N(0, 1) and N(d, 1) is the mean of a folded normal of variance 2."""
    g, n, d = np.random.default_rng(1), 4000, 1.5
    folded = 2 / math.sqrt(math.pi) * math.exp(-(d**2) / 4) + d * math.erf(d / 2)
    expected = 2 * folded - 2 * 2 / math.sqrt(math.pi)
    found = energy_distance(g.standard_normal((n, 1)), g.standard_normal((n, 1)) + d)
    assert found == pytest.approx(expected, rel=0.05)


def test_energy_distance_is_unbiased_for_equal_distributions():
    """Around zero, on both sides of it; with the pairs of a point and itself it would be about 2 E|X - X'| / n = 0.35."""
    g = np.random.default_rng(2)
    found = [energy_distance(g.standard_normal((10, 2)), g.standard_normal((10, 2))) for _ in range(300)]
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(300)
    assert min(found) < 0 < max(found)


def test_energy_distance_is_invariant_to_motions_and_scales_with_the_points():
    g, q = np.random.default_rng(3), rotation(2, 3)
    x, y = g.standard_normal((40, 2)), 2 * g.standard_normal((30, 2))
    plain = energy_distance(x, y)
    assert energy_distance(y, x) == pytest.approx(plain)
    assert energy_distance(x @ q + 7, y @ q + 7) == pytest.approx(plain)
    assert energy_distance(3 * x, 3 * y) == pytest.approx(3 * plain)
    assert energy_distance(g.permutation(x), y) == pytest.approx(plain)


@pytest.mark.parametrize(("n", "m"), [(1, 5), (5, 1), (0, 2)])
def test_energy_distance_needs_pairs(n, m):
    with pytest.raises(ValueError, match=f"at least two points on each side, not {n} and {m}"):
        energy_distance(np.zeros((n, 2)), np.zeros((m, 2)))


# The support of the checkerboard


@pytest.mark.parametrize(
    ("point", "inside"),
    [
        ((0.5, 0.5), True),
        ((-0.5, -0.5), True),
        ((0.5, -0.5), False),
        ((-0.5, 0.5), False),
        ((1.5, 0.5), False),
        ((1.5, -0.5), True),
        ((-1.9, 1.9), False),
        ((-1.9, -1.9), True),
        ((1.9, 1.9), True),
        ((2.1, 0.5), False),
        ((2.5, 2.5), False),
        ((0.5, -2.5), False),
        ((-4.5, 0.5), False),
        ((float("nan"), 0.5), False),
        ((float("inf"), 0.5), False),
    ],
)
def test_on_checkerboard(point, inside):
    with np.errstate(invalid="ignore"):
        assert on_checkerboard(np.array([point])).tolist() == [inside]


def test_half_of_the_board_is_filled():
    points = np.random.default_rng(0).uniform(-2, 2, (20_000, 2))
    assert on_checkerboard(points).mean() == pytest.approx(0.5, abs=0.02)
    around = np.random.default_rng(0).uniform(-4, 4, (20_000, 2))
    assert on_checkerboard(around).mean() == pytest.approx(1 / 8, abs=0.01)


def test_supports_by_name():
    assert SUPPORTS["checkerboard"] is on_checkerboard
