"""Statistics in pieces, the Frechet distance where it is hard, and its extrapolation to infinitely many samples."""

import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from numpy.typing import NDArray

from fmbench.metrics import frechet
from fmbench.metrics.fid_infinity import extrapolate, frechet_infinity
from fmbench.metrics.frechet import FeatureAccumulator, FeatureStatistics, feature_statistics, frechet_distance


def features(n: int, dimensions: int, seed: int = 0) -> NDArray:
    g = np.random.default_rng(seed)
    mix = np.linalg.qr(g.standard_normal((dimensions, dimensions)))[0] * g.uniform(0.5, 2, dimensions)
    return g.standard_normal((n, dimensions)) @ mix + g.uniform(-1, 1, dimensions)


def stripped(p: FeatureStatistics) -> FeatureStatistics:
    """As from a file: mean and covariance, but not the samples."""
    return p._replace(factor=None)


def same(found: FeatureStatistics, expected: FeatureStatistics, rtol: float = 1e-12) -> None:
    assert found.n == expected.n
    np.testing.assert_allclose(found.mean, expected.mean, rtol=rtol, atol=1e-13)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=rtol, atol=1e-13)


# Statistics in pieces


@pytest.mark.parametrize("pieces", [[3000], [1, 2999], [511, 1, 512, 513, 1463], [0, 1500, 0, 1500], [7] * 428 + [4]])
def test_pieces_of_any_size_give_the_statistics_of_the_whole(pieces):
    x = features(3000, 6)
    accumulator, start = FeatureAccumulator(), 0
    for size in pieces:
        accumulator.update(x[start : start + size])
        start += size
    assert start == accumulator.n == 3000
    found = accumulator.statistics()
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(x, rowvar=False), rtol=1e-12, atol=1e-13)


def test_statistics_may_be_taken_in_between():
    x = features(2500, 3)
    accumulator = FeatureAccumulator()
    for start in range(0, 2500, 100):
        accumulator.update(x[start : start + 100])
        same(accumulator.statistics(), feature_statistics(x[: start + 100]))


def test_what_is_added_later_does_not_change_statistics_taken_before():
    accumulator = FeatureAccumulator()
    accumulator.update(features(2000, 3))
    taken = accumulator.statistics()
    kept = taken.mean.copy(), taken.covariance.copy()
    accumulator.update(features(2000, 3) + 5)
    accumulator.statistics()
    np.testing.assert_array_equal(taken.mean, kept[0])
    np.testing.assert_array_equal(taken.covariance, kept[1])


def test_features_are_copied():
    """Loaders reuse their buffers."""
    x = features(100, 3)
    accumulator, buffer = FeatureAccumulator(), np.empty((10, 3))
    for start in range(0, 100, 10):
        buffer[:] = x[start : start + 10]
        accumulator.update(buffer)
    same(accumulator.statistics(), feature_statistics(x))


def test_pieces_with_means_far_from_zero_and_from_each_other_keep_their_digits():
    """Sums of squares about 0 would have 1e12 of which the variance is the thirteenth digit."""
    g = np.random.default_rng(0)
    noise = g.standard_normal((4000, 2))
    x = noise + np.repeat([1e6, 1e6 + 3], 2000)[:, None]
    accumulator = FeatureAccumulator()
    for piece in np.split(x, 40):
        accumulator.update(piece)
    np.testing.assert_allclose(accumulator.statistics().covariance, np.cov(x - 1e6, rowvar=False), rtol=1e-9)


def test_tensors_and_arrays_of_any_type_are_the_same():
    x = features(600, 3).astype(np.float32)
    half = torch.from_numpy(x).to(torch.bfloat16)
    same(feature_statistics(torch.from_numpy(x)), feature_statistics(x))
    same(feature_statistics(half.float()), feature_statistics(half.float().numpy()))
    assert feature_statistics(x.astype(np.float16)).mean.dtype == np.float64


def test_features_that_do_not_fit_are_refused_and_not_counted():
    accumulator = FeatureAccumulator()
    accumulator.update(np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"must have shape \(n, 4\), not \(3, 5\)"):
        accumulator.update(np.ones((3, 5)))
    with pytest.raises(ValueError, match="not all finite"):
        accumulator.update(np.full((3, 4), np.nan))
    assert accumulator.n == 3
    with pytest.raises(ValueError, match=r"n >= 2, not \(0, 0\)"):
        FeatureAccumulator().statistics()


# The distance


def test_fewer_samples_than_features_bring_their_factor():
    x = features(30, 50)
    p = feature_statistics(x)
    assert p.factor is not None and p.factor.shape == (30, 50)
    np.testing.assert_allclose(p.factor.T @ p.factor, p.covariance, atol=1e-13)
    assert feature_statistics(features(51, 50)).factor is None


@pytest.mark.parametrize(("n", "m"), [(10, 20), (10, 400), (400, 10), (40, 41), (39, 400)])
def test_the_low_rank_form_is_the_dense_one(n, m):
    """The dense form of the same covariances has lost digits in their null space, hence the tolerance."""
    p, q = feature_statistics(features(n, 40, 1)), feature_statistics(features(m, 40, 2))
    assert p.factor is not None or q.factor is not None
    found = frechet_distance(p, q)
    assert found == pytest.approx(frechet_distance(stripped(p), stripped(q)), rel=1e-7)
    root = scipy.linalg.sqrtm(p.covariance @ q.covariance)
    dense = ((p.mean - q.mean) ** 2).sum() + np.trace(p.covariance + q.covariance - 2 * root.real)
    assert found == pytest.approx(dense, rel=1e-5)


def test_eigenvalues_and_singular_values_agree(monkeypatch):
    p, q = feature_statistics(features(900, 60, 3)), feature_statistics(features(900, 60, 4))
    quick = frechet_distance(p, q)
    monkeypatch.setattr(torch.linalg, "eigvalsh", lambda _: torch.full((60,), torch.nan, dtype=torch.float64))
    assert frechet_distance(p, q) == pytest.approx(quick, rel=1e-12)


def test_eigenvalues_are_used_where_they_are_accurate(monkeypatch):
    def never(_: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the slow way")

    monkeypatch.setattr(torch.linalg, "svdvals", never)
    frechet_distance(feature_statistics(features(900, 60, 3)), feature_statistics(features(900, 60, 4)))


@pytest.mark.parametrize("smallest", [1e-8, 1e-16, 1e-30, 0])
def test_a_spectrum_that_falls_to_zero_keeps_the_digits(smallest):
    """Diagonal covariances have the closed form; eigenvalues of the product would be off by their root, 1e-8 each."""
    spectrum = np.r_[np.linspace(1, 2, 20), np.full(40, smallest)]
    p = FeatureStatistics(np.zeros(60), np.diag(spectrum), 99)
    q = FeatureStatistics(np.zeros(60), np.diag(1.21 * spectrum), 99)
    assert frechet_distance(p, q) == pytest.approx(0.01 * spectrum.sum(), rel=1e-9)


@pytest.mark.parametrize("rank", [1, 7, 39])
def test_singular_covariances_without_their_samples(rank):
    """C and 4 C in a random subspace: sum of (2 - 1)^2 v is the trace of C."""
    g = np.random.default_rng(rank)
    basis = np.linalg.qr(g.standard_normal((40, rank)))[0]
    covariance = basis * g.uniform(0.5, 2, rank) @ basis.T
    p, q = (FeatureStatistics(np.zeros(40), c, 1000) for c in (covariance, 4 * covariance))
    assert frechet_distance(p, q) == pytest.approx(np.trace(covariance), rel=1e-9)
    assert frechet_distance(q, p) == pytest.approx(np.trace(covariance), rel=1e-9)
    assert frechet_distance(p, p) == pytest.approx(0, abs=1e-9)


def test_a_dead_feature_changes_nothing():
    x, y = features(500, 8, 5), features(500, 8, 6)
    dead = [np.concatenate([z, np.full((500, 1), 0.25)], 1) for z in (x, y)]
    expected = frechet_distance(feature_statistics(x), feature_statistics(y))
    assert frechet_distance(*map(feature_statistics, dead)) == pytest.approx(expected, rel=1e-9)


def test_scales_do_not_matter():
    x, y = features(300, 12, 7), features(300, 12, 8)
    plain = frechet_distance(feature_statistics(x), feature_statistics(y))
    for scale in (1e-6, 1e6):
        found = frechet_distance(feature_statistics(scale * x), feature_statistics(scale * y))
        assert found == pytest.approx(scale**2 * plain, rel=1e-9)


@pytest.mark.parametrize("dimensions", [16, 200])
def test_equals_pytorch_fid_for_a_spectrum_like_inceptions(dimensions):
    """Four decades of eigenvalues, means that differ a little."""
    from pytorch_fid.fid_score import calculate_frechet_distance

    scales = np.logspace(0.5, -1.5, dimensions)
    p, q = (feature_statistics(features(2000, dimensions, s) * scales) for s in (9, 10))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = calculate_frechet_distance(p.mean, p.covariance, q.mean, q.covariance)
    except TypeError as error:  # pytorch-fid 0.3.0 calls sqrtm with an argument that scipy 1.18 no longer has
        pytest.skip(f"pytorch-fid does not work with scipy {scipy.__version__}: {error}")
    assert frechet_distance(p, q) == pytest.approx(float(theirs), rel=1e-6)


# Extrapolation to infinitely many samples


def test_a_line_in_one_over_n_is_found_exactly():
    sizes = [100, 150, 400, 1000]
    found = extrapolate(sizes, [3 + 50 / n for n in sizes])
    assert found.intercept == pytest.approx(3, rel=1e-12) and found.slope == pytest.approx(50, rel=1e-11)
    assert found.error == pytest.approx(0, abs=1e-12) and found.residual == pytest.approx(0, abs=1e-12)
    assert found.sizes.tolist() == sizes


def test_the_error_is_that_of_a_least_squares_fit():
    """Against numpy's covariance of the coefficients, and against the spread of many fits to independent noise."""
    g, sizes = np.random.default_rng(0), np.linspace(500, 5000, 15).astype(int)
    fits = [extrapolate(sizes, 3 + 50 / sizes + 0.01 * g.standard_normal(15)) for _ in range(2000)]
    assert np.mean([f.intercept for f in fits]) == pytest.approx(3, abs=4 * 0.0043 / np.sqrt(2000))
    spread = np.std([f.intercept for f in fits])
    assert np.sqrt(np.mean([f.error**2 for f in fits])) == pytest.approx(spread, rel=0.05)
    _, covariance = np.polyfit(1 / fits[0].sizes, fits[0].values, 1, cov=True)
    assert fits[0].error == pytest.approx(np.sqrt(covariance[1, 1]), rel=1e-9)


def test_known_bias_is_removed():
    """Means of n samples of N(0, I) in D dimensions are off by D / n, their covariances by about D (D + 1) / (4 n).

    Against the exact N(0, I): E |mean|^2 = D / n, and the root's second-order term -tr(2 sqrt C - ...) = |C - I|^2 / 4 with
    E |C - I|^2 = D (D + 1) / (n - 1). The limit is 0.
    """
    dimensions, n = 20, 6000
    exact = FeatureStatistics(np.zeros(dimensions), np.eye(dimensions), 10**9)
    slope = dimensions + dimensions * (dimensions + 1) / 4
    found = [
        frechet_infinity(np.random.default_rng(seed).standard_normal((n, dimensions)), exact, smallest=600) for seed in range(12)
    ]
    plain = np.mean([f.values[-1] for f in found])
    assert plain == pytest.approx(slope / n, rel=0.15)
    error = np.std([f.intercept for f in found]) / np.sqrt(len(found))
    assert abs(np.mean([f.intercept for f in found])) < 3 * error < plain / 4
    assert np.mean([f.slope for f in found]) == pytest.approx(slope, rel=0.1)


def test_subsets_are_nested_and_the_last_is_everything():
    x, reference = features(700, 5, 11), feature_statistics(features(900, 5, 12))
    found = frechet_infinity(x, reference, points=7, smallest=100)
    assert found.sizes.tolist() == [100, 200, 300, 400, 500, 600, 700]
    expected = [frechet_distance(feature_statistics(x[:n]), reference) for n in found.sizes]
    np.testing.assert_allclose(found.values, expected, rtol=1e-9)


def test_a_generator_decides_the_order():
    x, reference = features(400, 3, 13), feature_statistics(features(400, 3, 14))
    a, b, c = (frechet_infinity(x, reference, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert a.intercept == b.intercept != c.intercept
    assert a.values[-1] == pytest.approx(c.values[-1], rel=1e-9)
    tensor = frechet_infinity(torch.from_numpy(x), reference, torch.Generator().manual_seed(1))
    assert tensor.intercept == pytest.approx(a.intercept, rel=1e-12)


@pytest.mark.parametrize(
    ("sizes", "values"), [([1, 2], [1, 2]), ([5, 5, 9], [1, 1, 2]), ([1, 2, 3], [1, 2]), ([1, 2, 3], [1, 2, np.nan])]
)
def test_values_without_a_line_are_an_error(sizes, values):
    with pytest.raises(ValueError, match="finite values at three or more different sizes"):
        extrapolate(sizes, values)


@pytest.mark.parametrize("options", [{"smallest": 1}, {"smallest": 50}, {"points": 2}, {"smallest": 45, "points": 15}])
def test_impossible_sizes_are_an_error(options):
    with pytest.raises(ValueError, match="different sizes"):
        frechet_infinity(features(50, 3), feature_statistics(features(50, 3)), **options)


def test_the_threshold_of_rounding_is_that_of_float64():
    assert frechet.EPSILON == 2.0**-52


def test_a_covariance_on_which_divide_and_conquer_fails_has_its_distance(monkeypatch):
    p, q = (feature_statistics(np.random.default_rng(seed).normal(size=(3, 6))) for seed in (1, 2))
    dense = [s._replace(factor=None) for s in (p, q)]
    expected = frechet_distance(*dense)

    def fails(_):
        raise torch.linalg.LinAlgError("failed to converge")

    monkeypatch.setattr(torch.linalg, "eigh", fails)
    assert frechet_distance(*dense) == pytest.approx(expected, rel=1e-7)
