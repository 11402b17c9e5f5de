"""Sliced Wasserstein distance and MMD of points."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from fmbench.metrics.mmd import gaussian_kernel, median_distance, unbiased_mmd
from fmbench.metrics.points import sliced_wasserstein


def normal(*shape: int, seed: int = 0) -> NDArray:
    return np.random.default_rng(seed).standard_normal(shape)


def gaussian_mmd(x: NDArray, y: NDArray, bandwidths: list[float], rows: int = 1024) -> float:
    return unbiased_mmd(x, y, gaussian_kernel(bandwidths), rows)


# Sliced Wasserstein


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(("n", "m"), [(40, 40), (40, 17), (1, 30), (12, 18), (7, 49)])
def test_in_one_dimension_it_is_the_wasserstein_distance(n, m, order):
    """Against every sample repeated m (n) times, which makes both sets n m large and the coupling that of sorted points."""
    x, y = normal(n, 1, seed=1), normal(m, 1, seed=2) + 1
    a, b = np.sort(np.repeat(x[:, 0], m)), np.sort(np.repeat(y[:, 0], n))
    expected = (np.abs(a - b) ** order).mean() ** (1 / order)
    assert sliced_wasserstein(x, y, np.array([[2.0]]), order) == pytest.approx(expected, rel=1e-12)
    if order == 1:
        assert expected == pytest.approx(wasserstein_distance(x[:, 0], y[:, 0]), rel=1e-12)


def test_a_shift_is_seen_by_its_projections():
    """A set and itself moved by v: |v . u| in direction u, so |v| / sqrt 2 over all directions of the plane."""
    x, v = normal(50, 2), np.array([3.0, -4.0])
    directions = normal(7, 2, seed=1)
    units = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    found = sliced_wasserstein(x, x + v, directions)
    assert found == pytest.approx(math.sqrt(((units @ v) ** 2).mean()), rel=1e-12)
    angles = np.linspace(0, np.pi, 64, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    assert sliced_wasserstein(x, x + v, circle) == pytest.approx(5 / math.sqrt(2), rel=1e-12)


def test_a_scaled_set_has_a_closed_form():
    """x and 3 x, coupled as they are: 2 |x . u|, so the root of 4 tr(E x x^T) / 2 over the plane's directions."""
    x = normal(80, 2)
    angles = np.linspace(0, np.pi, 64, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    assert sliced_wasserstein(x, 3 * x, circle) == pytest.approx(math.sqrt(2 * (x**2).sum(1).mean()), rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(30, 30), (30, 20)])
def test_invariant_to_the_order_of_points_and_the_lengths_of_directions(n, m):
    x, y, directions = normal(n, 3), 2 * normal(m, 3, seed=1), normal(11, 3, seed=2)
    plain = sliced_wasserstein(x, y, directions)
    assert sliced_wasserstein(y, x, directions) == pytest.approx(plain, rel=1e-12)
    assert sliced_wasserstein(x[::-1], np.roll(y, 3, 0), -5 * directions) == pytest.approx(plain, rel=1e-12)
    assert sliced_wasserstein(x + 7, y + 7, directions) == pytest.approx(plain, rel=1e-9)
    assert sliced_wasserstein(x, np.repeat(x, 3, 0), directions) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("m", [100, 73])
def test_directions_in_pieces_are_the_same_as_together(m):
    x, y, directions = normal(100, 2), normal(m, 2, seed=1), normal(33, 2, seed=2)
    assert sliced_wasserstein(x, y, directions, elements=500) == pytest.approx(sliced_wasserstein(x, y, directions), rel=1e-12)


@pytest.mark.parametrize(
    ("x", "y", "directions", "order", "message"),
    [
        (np.ones((3, 2)), np.ones((3, 3)), np.ones((1, 2)), 2, "need"),
        (np.ones((3, 2)), np.ones(3), np.ones((1, 2)), 2, "need"),
        (np.ones((0, 2)), np.ones((3, 2)), np.ones((1, 2)), 2, "need points"),
        (np.ones((3, 2)), np.ones((3, 2)), np.ones((0, 2)), 2, "directions"),
        (np.ones((3, 2)), np.ones((3, 2)), np.ones((1, 2)), 0, "order >= 1"),
        (np.ones((3, 2)), np.ones((3, 2)), np.zeros((1, 2)), 2, "no direction"),
        (np.ones((3, 2)), np.full((3, 2), np.inf), np.ones((1, 2)), 2, "not all finite"),
    ],
)
def test_points_without_a_sliced_distance_are_an_error(x, y, directions, order, message):
    with pytest.raises(ValueError, match=message):
        sliced_wasserstein(x, y, directions, order)


# Maximum mean discrepancy


def brute_force(x: NDArray, y: NDArray, bandwidths: list[float]) -> float:
    def k(a: NDArray, b: NDArray) -> float:
        return float(np.mean([math.exp(-((a - b) ** 2).sum() / (2 * h * h)) for h in bandwidths]))

    def mean(a: NDArray, b: NDArray, same: bool) -> float:
        return float(np.mean([k(p, q) for i, p in enumerate(a) for j, q in enumerate(b) if not (same and i == j)]))

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (7, 12), (25, 10)])
@pytest.mark.parametrize("rows", [3, 1024])
def test_mmd_is_the_sum_over_pairs(n, m, rows):
    x, y = normal(n, 2), normal(m, 2, seed=1) + 1
    for bandwidths in ([0.7], [0.3, 1.0, 4.0]):
        assert gaussian_mmd(x, y, bandwidths, rows) == pytest.approx(brute_force(x, y, bandwidths), rel=1e-11)


def test_mmd_of_two_normals_has_a_closed_form():
    """E k(X, Y) of N(0, s^2 I) and N(v, s^2 I) is (h^2 / (h^2 + 2 s^2))^(D/2) exp(-|v|^2 / (2 (h^2 + 2 s^2)))."""
    h, v = 1.3, np.array([0.8, -0.5])
    factor = h**2 / (h**2 + 2)
    expected = 2 * factor * (1 - math.exp(-(v @ v) / (2 * (h**2 + 2))))
    assert gaussian_mmd(normal(4000, 2), normal(4000, 2, seed=1) + v, [h]) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_mmd_is_unbiased(shift):
    """The mean over small sets is the value of the distributions; with pairs of a point and itself it would be 0.1 larger."""
    g = np.random.default_rng(3)
    found = [gaussian_mmd(g.standard_normal((8, 2)), g.standard_normal((12, 2)) + np.r_[shift, 0], [1.0]) for _ in range(1500)]
    expected = 2 / 3 * (1 - math.exp(-(shift**2) / 6))
    assert abs(np.mean(found) - expected) < 4 * np.std(found) / math.sqrt(1500)
    assert min(found) < 0 < max(found)


def test_the_median_of_distances():
    x, y = np.array([[0.0], [1.0]]), np.array([[3.0]])
    assert median_distance(x, y) == 2  # of 1, 2, 3
    big = normal(5000, 2)
    assert median_distance(big, big + 0.01) == pytest.approx(2 * math.sqrt(math.log(2)), rel=0.05)  # of N(0, 2 I): Rayleigh


def test_near_points_far_from_zero_keep_their_distance():
    x, y = normal(20, 2), normal(20, 2, seed=1)
    assert gaussian_mmd(1e7 + x, 1e7 + y, [1.0]) == pytest.approx(gaussian_mmd(x, y, [1.0]), rel=1e-6)


@pytest.mark.parametrize("bandwidths", [[], [0.0], [1.0, -1.0], [math.inf], [math.nan]])
def test_impossible_bandwidths_are_an_error(bandwidths):
    with pytest.raises(ValueError, match="bandwidths must be positive and finite"):
        gaussian_kernel(bandwidths)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((1, 2)), np.ones((3, 2)), r"n >= 2, not \(1, 2\)"),
        (np.ones((3, 2)), np.ones(3), r"not \(3,\)"),
        (np.ones((3, 2)), np.ones((3, 3)), "2 and 3 dimensions"),
        (np.ones((3, 2)), np.full((3, 2), np.nan), "not all finite"),
    ],
)
def test_points_without_an_mmd_are_an_error(x, y, message):
    with pytest.raises(ValueError, match=message):
        unbiased_mmd(x, y, gaussian_kernel([1.0]))
    with pytest.raises(ValueError, match="more than half of all pairs of points coincide"):
        median_distance(np.ones((5, 2)), np.ones((5, 2)))


def test_tensors_and_arrays_give_equal_values():
    x, y = normal(9, 2), normal(9, 2, seed=1)
    assert unbiased_mmd(torch.from_numpy(x), torch.from_numpy(y), gaussian_kernel([1.0])) == gaussian_mmd(x, y, [1.0])
