import math

import numpy as np
import pytest
import scipy.linalg
from numpy.typing import NDArray

from fmbench.metrics.frechet import FeatureStatistics, feature_statistics, frechet_distance
from fmbench.metrics.points import SUPPORTS, energy_distance, on_checkerboard


def rotation(dimensions: int, seed: int) -> NDArray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dimensions, dimensions)))[0]


def gaussian(dimensions: int, seed: int, n: int = 400) -> NDArray:
    """Correlated features whose covariance is well conditioned."""
    g = np.random.default_rng(seed)
    mix = rotation(dimensions, seed) * g.uniform(0.5, 2, dimensions)
    return g.standard_normal((n, dimensions)) @ mix + g.uniform(-1, 1, dimensions)


# Statistics of features


def test_statistics_are_those_of_numpy_in_float64():
    x = gaussian(5, 0).astype(np.float32)
    found = feature_statistics(x)
    assert found.n == 400
    assert found.mean.dtype == found.covariance.dtype == np.float64
    np.testing.assert_allclose(found.mean, x.astype(np.float64).mean(0), rtol=1e-14)
    np.testing.assert_allclose(found.covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-14)


def test_float32_features_with_a_large_mean_keep_their_variance():
    """In float32, 1e4 + noise of 0.01 squared loses every digit of the variance."""
    g = np.random.default_rng(0)
    x = (1e4 + 0.01 * g.standard_normal((5000, 2))).astype(np.float32)
    exact = np.cov(x.astype(np.longdouble).astype(np.float64) - 1e4, rowvar=False)
    np.testing.assert_allclose(feature_statistics(x).covariance, exact, rtol=1e-6)


def test_a_single_feature_has_a_covariance_of_one_by_one():
    found = feature_statistics(np.array([[1.0], [2.0], [4.0]]))
    assert found.covariance.shape == (1, 1)
    assert found.covariance[0, 0] == pytest.approx(np.var([1, 2, 4], ddof=1))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones((1, 3)), r"features must have shape \(n, D\) with n >= 2, not \(1, 3\)"),
        (np.ones(4), r"not \(4,\)"),
        (np.ones((2, 3, 4)), r"not \(2, 3, 4\)"),
        (np.array([[1.0, np.nan], [0, 1]]), "not all finite; the samples they come from have diverged"),
        (np.array([[1.0, np.inf], [0, 1]]), "not all finite"),
    ],
)
def test_features_without_statistics(features, message):
    with pytest.raises(ValueError, match=message):
        feature_statistics(features)


# The Frechet distance


@pytest.mark.parametrize("seed", range(3))
def test_covariances_that_commute_have_a_closed_form(seed):
    """With a common eigenbasis: |m - m'|^2 + sum (sqrt(v) - sqrt(v'))^2."""
    g, q = np.random.default_rng(seed), rotation(6, seed)
    v, w = g.uniform(0, 3, 6), g.uniform(0, 3, 6)
    m, k = g.standard_normal(6), g.standard_normal(6)
    p, r = FeatureStatistics(m, q * v @ q.T, 10), FeatureStatistics(k, q * w @ q.T, 10)
    expected = ((m - k) ** 2).sum() + ((np.sqrt(v) - np.sqrt(w)) ** 2).sum()
    assert frechet_distance(p, r) == pytest.approx(expected, rel=1e-10)


def test_one_dimension():
    p, q = (FeatureStatistics(np.array([m]), np.array([[s**2]]), 10) for m, s in ((1.0, 2.0), (-2.0, 0.5)))
    assert frechet_distance(p, q) == pytest.approx(3**2 + 1.5**2)


@pytest.mark.parametrize("dimensions", [2, 7, 64])
def test_it_is_the_formula_with_a_general_matrix_root(dimensions):
    p, q = feature_statistics(gaussian(dimensions, 1)), feature_statistics(gaussian(dimensions, 2))
    root = scipy.linalg.sqrtm(p.covariance @ q.covariance)
    difference = p.mean - q.mean
    expected = difference @ difference + np.trace(p.covariance + q.covariance - 2 * root.real)
    assert frechet_distance(p, q) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dimensions", [3, 64])
def test_it_is_the_number_pytorch_fid_gives(dimensions):
    from pytorch_fid.fid_score import calculate_frechet_distance

    p, q = feature_statistics(gaussian(dimensions, 3)), feature_statistics(gaussian(dimensions, 4))
    try:
        theirs = calculate_frechet_distance(p.mean, p.covariance, q.mean, q.covariance)
    except TypeError as error:  # pytorch-fid 0.3.0 calls sqrtm with an argument that scipy 1.18 no longer has
        pytest.skip(f"pytorch-fid does not work with scipy {scipy.__version__}: {error}")
    assert frechet_distance(p, q) == pytest.approx(float(theirs), rel=1e-6)


def test_equal_distributions_have_no_distance():
    p = feature_statistics(gaussian(20, 5))
    assert frechet_distance(p, p) == pytest.approx(0, abs=1e-10)


def test_it_is_symmetric():
    p, q = feature_statistics(gaussian(9, 6)), feature_statistics(gaussian(9, 7))
    assert frechet_distance(p, q) == pytest.approx(frechet_distance(q, p), rel=1e-10)


def test_rotating_the_features_changes_nothing_and_scaling_them_squares():
    x, y, q = gaussian(8, 8), gaussian(8, 9), rotation(8, 10)
    plain = frechet_distance(feature_statistics(x), feature_statistics(y))
    assert frechet_distance(feature_statistics(x @ q + 3), feature_statistics(y @ q + 3)) == pytest.approx(plain, rel=1e-9)
    assert frechet_distance(feature_statistics(5 * x), feature_statistics(5 * y)) == pytest.approx(25 * plain, rel=1e-9)


def test_singular_covariances_are_exact():
    """Fewer samples than features: rank 9 of 40. A shift is then the whole distance."""
    x = gaussian(40, 11, n=10)
    shift = np.linspace(-1, 1, 40)
    p, q = feature_statistics(x), feature_statistics(x + shift)
    assert np.linalg.matrix_rank(p.covariance) == 9
    assert frechet_distance(p, q) == pytest.approx((shift**2).sum(), rel=1e-6)


def test_covariances_of_disjoint_support():
    """C and C' live in orthogonal subspaces: the root of their product is zero."""
    p = FeatureStatistics(np.zeros(4), np.diag([2.0, 3.0, 0, 0]), 10)
    q = FeatureStatistics(np.ones(4), np.diag([0, 0, 5.0, 7.0]), 10)
    assert frechet_distance(p, q) == pytest.approx(4 + 2 + 3 + 5 + 7)


def test_a_point_mass_has_the_variance_of_the_other_as_distance():
    p, q = FeatureStatistics(np.zeros(3), np.zeros((3, 3)), 10), feature_statistics(gaussian(3, 12))
    assert frechet_distance(p, q) == pytest.approx((q.mean**2).sum() + np.trace(q.covariance))


def test_it_grows_with_noise_and_with_collapse():
    x = gaussian(10, 13, n=2000)
    g = np.random.default_rng(14)
    reference = feature_statistics(x)
    noisy = [frechet_distance(feature_statistics(x + s * g.standard_normal(x.shape)), reference) for s in (0, 0.3, 1, 3)]
    collapsed = [frechet_distance(feature_statistics(x * s), reference) for s in (1, 0.7, 0.3, 0.1)]
    assert noisy == sorted(noisy) and collapsed == sorted(collapsed)


def test_features_of_other_dimensions_are_refused():
    p, q = feature_statistics(gaussian(3, 0)), feature_statistics(gaussian(4, 0))
    with pytest.raises(ValueError, match="features of 3 and 4 dimensions cannot be compared"):
        frechet_distance(p, q)


# Energy distance


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


def test_energy_distance_by_blocks_is_the_one_at_once():
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


def test_energy_distance_does_not_see_motions_and_scales_with_the_points():
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
