"""Statistics of features and the Frechet distance: closed forms, invariances, and the numbers of numpy and pytorch-fid."""

import numpy as np
import pytest
import scipy.linalg
from numpy.typing import NDArray

from fmbench.metrics.frechet import FeatureStatistics, feature_statistics, frechet_distance


def rotation(dimensions: int, seed: int) -> NDArray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dimensions, dimensions)))[0]


def gaussian(dimensions: int, seed: int, n: int = 400) -> NDArray:
    """Correlated features whose covariance is well conditioned."""
    g = np.random.default_rng(seed)
    mix = rotation(dimensions, seed) * g.uniform(0.5, 2, dimensions)
    return g.standard_normal((n, dimensions)) @ mix + g.uniform(-1, 1, dimensions)


# Statistics of features


def test_statistics_equal_those_of_numpy_in_float64():
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
def test_features_without_statistics_are_an_error(features, message):
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
def test_equals_the_formula_with_a_general_matrix_root(dimensions):
    p, q = feature_statistics(gaussian(dimensions, 1)), feature_statistics(gaussian(dimensions, 2))
    root = scipy.linalg.sqrtm(p.covariance @ q.covariance)
    difference = p.mean - q.mean
    expected = difference @ difference + np.trace(p.covariance + q.covariance - 2 * root.real)
    assert frechet_distance(p, q) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dimensions", [3, 64])
def test_equals_pytorch_fid(dimensions):
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


def test_the_frechet_distance_is_symmetric():
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


def test_the_frechet_distance_grows_with_noise_and_with_collapse():
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
