"""Density, coverage and the metrics of memorisation: by hand, by other libraries, and on copies and fresh data."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from prdc import compute_prdc
from scipy.stats import mannwhitneyu, norm

from fmbench.config import specs
from fmbench.config.reading import parse
from fmbench.data import writer
from fmbench.data.prepared import read
from fmbench.data.sources import digits
from fmbench.metrics import neighbours
from fmbench.metrics.copying import COPIES, NEARER, verdict
from fmbench.metrics.density_coverage import density_coverage
from fmbench.metrics.memorisation import mann_whitney_z, memorisation
from fmbench.metrics.neighbours import as_pair, nearest, nearest_others
from fmbench.metrics.precision_recall import precision_recall
from fmbench.stages.oracles import bandwidth_of, oracle_of


def normal(n: int, dimensions: int, seed: int = 0) -> NDArray:
    return np.random.default_rng(seed).normal(size=(n, dimensions))


# Nearest neighbours


@pytest.mark.parametrize("dimensions", [2, 30])  # by a tree, and over all pairs
@pytest.mark.parametrize("elements", [100, 2**24])
def test_nearest_neighbours_are_those_over_all_pairs(dimensions, elements, monkeypatch):
    monkeypatch.setattr(neighbours, "ELEMENTS", elements)
    points, queries = as_pair(normal(70, dimensions) + 5, normal(40, dimensions, seed=1) + 5)
    distances = torch.cdist(queries, points, compute_mode="donot_use_mm_for_euclid_dist")
    found = nearest(queries, points)
    np.testing.assert_array_equal(found.indices, distances.argmin(1))
    np.testing.assert_allclose(found.distances, distances.min(1).values, rtol=1e-12)
    own = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(math.inf)
    chosen = torch.tensor([3, 0, 69])
    found = nearest_others(points, chosen)
    np.testing.assert_array_equal(found.indices, own[chosen].argmin(1))
    np.testing.assert_allclose(found.distances, own[chosen].min(1).values, rtol=1e-12)


@pytest.mark.parametrize("dimensions", [2, 30])
def test_the_distance_of_a_copy_is_zero(dimensions):
    points, copies = as_pair(1e3 + normal(50, dimensions), 1e3 + normal(50, dimensions)[::-1])
    found = nearest(copies, points)
    assert found.distances.max() == 0 and found.indices.tolist() == list(range(49, -1, -1))
    twice = torch.cat([points, points[:3], points[:3]])  # three equal points each
    assert nearest_others(twice, torch.arange(3)).distances.tolist() == [0, 0, 0]


# Density and coverage


def test_density_and_coverage_of_points_on_a_line():
    """Real 0, 1, 2, 3 with k = 1: balls of radius 1. Generated: 0.5 in two balls, 4 in one (its border), 9 in none.

    So density is 3 / 3. The balls of 0, 1 and 3 hold a generated point; that of 2, [1, 3], holds none.
    """
    real, generated = np.arange(4.0)[:, None], np.array([0.5, 4.0, 9.0])[:, None]
    assert density_coverage(real, generated, k=1) == (1.0, 0.75)


@pytest.mark.parametrize("k", [1, 5])
def test_density_and_coverage_equal_those_of_prdc(k, monkeypatch):
    monkeypatch.setattr(neighbours, "ELEMENTS", 1000)
    real, generated = normal(120, 4), 0.7 * normal(90, 4, seed=1) + 0.5
    theirs = compute_prdc(real, generated, k)
    assert density_coverage(real, generated, k) == pytest.approx((theirs["density"], theirs["coverage"]), abs=1e-12)
    assert 0.1 < theirs["coverage"] < 0.9 and theirs["density"] != 1


def test_outliers_among_the_samples_do_not_raise_coverage():
    """Naeem et al. 2020, Fig. 1. Recall of the same samples is much higher, since the balls of outliers hold all real points."""
    real = normal(300, 3)
    collapsed = 0.01 * normal(300, 3, seed=1)
    outliers = np.concatenate([collapsed[:-10], 10 * normal(10, 3, seed=2)])
    first, second = density_coverage(real, collapsed), density_coverage(real, outliers)
    assert first.coverage < 0.2 and abs(second.coverage - first.coverage) < 0.02
    assert precision_recall(real, collapsed).recall < 0.01 and precision_recall(real, outliers).recall > 0.9


@pytest.mark.parametrize(
    ("n", "m", "k", "message"),
    [(3, 9, 3, "no 3-th nearest"), (9, 9, 0, "at least 1"), (9, 0, 1, "n >= 1")],
)
def test_density_of_too_few_points_is_an_error(n, m, k, message):
    with pytest.raises(ValueError, match=message):
        density_coverage(normal(n, 2), normal(m, 2), k)


# Memorisation


@pytest.mark.parametrize("decimals", [9, 0])  # without ties, and with many
def test_the_z_score_is_that_of_the_mann_whitney_test(decimals):
    x, y = normal(70, 1)[:, 0].round(decimals), (normal(50, 1, seed=1)[:, 0] + 0.4).round(decimals)
    theirs = mannwhitneyu(x, y, alternative="less", method="asymptotic", use_continuity=False)
    assert norm.cdf(mann_whitney_z(x, y)) == pytest.approx(theirs.pvalue, rel=1e-9)
    assert mann_whitney_z(x, y) == pytest.approx(-mann_whitney_z(y, x), rel=1e-12)
    assert mann_whitney_z(np.ones(9), np.ones(5)) == 0


def test_memorisation_by_hand():
    """Training points 0, 10, 11 and 30. Samples: 1 is authentic if its nearest point, 0, has a nearer one: no, 10 > 1."""
    train = np.array([0, 10, 11, 30.0])[:, None]
    samples = np.array([1, 1, 1, 1, 1, 1, 13, 13, 40, 40.0])[:, None]  # distances 1, 2 and 10; own 10, 1 and 19
    test = np.array([3.0] * 12)[:, None]
    found = memorisation(train, test, samples)
    assert found.authenticity == 0.2 and found.train_distance_ratio == pytest.approx(1 / 3)
    assert found.c_t == mann_whitney_z(np.array([1] * 6 + [2] * 2 + [10] * 2), np.full(12, 3))
    assert memorisation(train, train.repeat(3, 0), samples).train_distance_ratio == math.inf
    assert memorisation(train, train.repeat(3, 0), train.repeat(3, 0)).train_distance_ratio == 1


@pytest.mark.parametrize("dimensions", [2, 12])
def test_the_c_t_of_fresh_data_is_standard_normal(dimensions):
    """Whatever the training set is. So a C_T below -3 is an error in 0.13 % of all cases."""
    g = np.random.default_rng(dimensions)
    train = g.normal(size=(40, dimensions))
    z = np.array([memorisation(train, *g.normal(size=(2, 30, dimensions)) ** 3).c_t for _ in range(400)])
    assert abs(z.mean()) < 3.3 / 20 and z.std() == pytest.approx(1, abs=3.3 / math.sqrt(800))


def test_too_few_points_are_an_error():
    for sizes in ((1, 10, 10), (2, 9, 10), (2, 10, 9)):
        with pytest.raises(ValueError, match="at least 2 training points and 10 test and generated ones"):
            memorisation(*(normal(n, 2) for n in sizes))


@pytest.mark.parametrize(
    ("c_t", "ratio", "said"), [(-2.9, 0, ""), (-3.1, 0.6, NEARER), (-3.1, 0.4, COPIES), (math.nan, 0, ""), (9, 2, "")]
)
def test_the_rule_of_copying(c_t, ratio, said):
    assert verdict(c_t, ratio) == said


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    """The real digits: training and test images, and draws from the oracle, which copies the training images, as pixels."""
    folder = tmp_path_factory.mktemp("digits")
    settings = {"digits": {"data": "digits", "network": {"kind": "unet", "channels": 8}}}
    config = parse({"datasets": ["digits"], "methods": ["fm_ot"], "seeds": [0], "settings": settings})
    writer.write(digits(), folder, specs.prepare(config, "digits"))
    data = read(folder)
    parameters = {"points": len(data.train), "bandwidth": None}
    oracle = oracle_of(parameters, bandwidth_of(parameters, data), data, torch.device("cpu"))
    drawn = oracle.points.sample(360, torch.Generator().manual_seed(0))
    flat = (np.asarray(images, np.float64).reshape(len(images), -1) for images in (data.train, data.test))
    return *flat, data.to_data(drawn.float().numpy()).astype(np.float64).reshape(360, -1)


def test_the_oracle_is_caught_and_fresh_images_are_not(pixels):
    """The noise of the oracle moves some pixels by one level, so no sample is an exact copy."""
    train, test, copies = pixels
    fresh, caught = memorisation(train, test[180:], test[:180]), memorisation(train, test, copies)
    assert abs(fresh.c_t) < 2 and 0.9 < fresh.train_distance_ratio < 1.1 and 0.4 < fresh.authenticity < 0.7
    assert caught.c_t < -20 and 0.05 < caught.train_distance_ratio < 0.2 and caught.authenticity == 0
    assert (verdict(*fresh[:2]), verdict(*caught[:2])) == ("", COPIES)


def test_some_copies_among_fresh_images_are_noticed(pixels):
    train, test, copies = pixels
    mixed = np.concatenate([test[:120], copies[:60]])
    found = memorisation(train, test[120:], mixed)
    assert found.c_t < -3 and found.train_distance_ratio > 0.5 and verdict(*found[:2]) == NEARER
