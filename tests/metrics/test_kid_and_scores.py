"""Inception Score, KID, precision and recall: definitions, closed forms, and the numbers of torchmetrics."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchmetrics.image.kid import poly_mmd

from fmbench.metrics import neighbours
from fmbench.metrics.inception_score import inception_score
from fmbench.metrics.kid import cubic_kernel, kernel_distance
from fmbench.metrics.mmd import unbiased_mmd
from fmbench.metrics.precision_recall import precision_recall


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> NDArray:
    return np.random.default_rng(seed).standard_normal(shape)


# Inception Score


def one_hot(classes: list[int], k: int) -> NDArray:
    logits = np.full((len(classes), k), -np.inf)
    logits[np.arange(len(classes)), classes] = 0
    return logits


def test_confident_and_varied_predictions_score_the_number_of_classes():
    assert inception_score(one_hot(list(range(7)) * 20, 7), splits=10).mean == pytest.approx(7, rel=1e-12)


def test_uniform_predictions_score_one():
    assert inception_score(np.zeros((50, 7))) == pytest.approx((1, 0))
    assert inception_score(one_hot([3] * 50, 7)) == pytest.approx((1, 0))


def test_the_score_of_unequal_classes_is_the_exponential_of_their_entropy():
    found = inception_score(one_hot([0] * 50 + [1] * 30 + [2] * 20, 5), splits=1)
    assert found.mean == pytest.approx(math.exp(-(0.5 * math.log(0.5) + 0.3 * math.log(0.3) + 0.2 * math.log(0.2))))


def test_splits_are_consecutive_and_their_spread_has_n_in_the_denominator():
    """Two halves: one of two classes, one of a single class."""
    logits = one_hot([0, 1] * 10 + [2] * 20, 3)
    assert inception_score(logits, splits=2) == pytest.approx((1.5, 0.5))
    uneven = [inception_score(logits[a:b], splits=1).mean for a, b in ((0, 13), (13, 26), (26, 40))]
    assert inception_score(logits, splits=3) == pytest.approx((np.mean(uneven), np.std(uneven)))


def test_the_score_is_the_definition():
    logits = 3 * normal(200, 11)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    divergence = (p * (np.log(p) - np.log(p.mean(0)))).sum(1).mean()
    assert inception_score(logits, splits=1).mean == pytest.approx(np.exp(divergence), rel=1e-12)
    assert inception_score(torch.from_numpy(logits) + 1000, splits=1).mean == pytest.approx(np.exp(divergence), rel=1e-9)


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.zeros((9, 3)), r"n >= 10 for 10 splits, not \(9, 3\)"),
        (np.zeros(20), r"not \(20,\)"),
        (np.full((20, 3), np.nan), "not finite"),
        (np.full((20, 3), -np.inf), "not finite"),
    ],
)
def test_logits_without_a_score_are_an_error(logits, message):
    with pytest.raises(ValueError, match=message):
        inception_score(logits)


# Kernel inception distance


def test_kid_equals_that_of_torchmetrics():
    x, y = normal(60, 16), normal(60, 16, seed=1) + 0.5
    theirs = float(poly_mmd(torch.from_numpy(x), torch.from_numpy(y), degree=3, gamma=None, coef=1.0))
    assert unbiased_mmd(x, y, cubic_kernel) == pytest.approx(theirs, rel=1e-11)
    assert unbiased_mmd(x, y, cubic_kernel, rows=7) == pytest.approx(theirs, rel=1e-11)


def test_kid_is_unbiased_at_every_size():
    """Of N(0, 1) and N(v, 1) in one dimension with k = (x y + 1)^3: a polynomial in v, from the moments."""
    g, v = np.random.default_rng(5), 0.6
    moments = [1.0, v, v**2 + 1, v**3 + 3 * v]
    standard = [1.0, 0.0, 1.0, 0.0]
    expected = sum(math.comb(3, k) * (moments[k] - standard[k]) ** 2 for k in range(4))
    for n, m in ((3, 3), (20, 5)):
        found = [unbiased_mmd(g.standard_normal((n, 1)), g.standard_normal((m, 1)) + v, cubic_kernel) for _ in range(4000)]
        assert abs(np.mean(found) - expected) < 4 * np.std(found) / math.sqrt(len(found))
        none = [unbiased_mmd(g.standard_normal((n, 1)), g.standard_normal((m, 1)), cubic_kernel) for _ in range(1000)]
        assert abs(np.mean(none)) < 4 * np.std(none) / math.sqrt(len(none)) and min(none) < 0


def test_subsets_scatter_around_the_full_estimate():
    x, y = normal(300, 8), normal(400, 8, seed=1) + 0.3
    full = unbiased_mmd(x, y, cubic_kernel)
    found = kernel_distance(x, y, generator(), subsets=200, size=50)
    assert (found.subsets, found.size) == (200, 50)
    assert found.mean == pytest.approx(full, abs=4 * found.std / math.sqrt(200))
    assert kernel_distance(x, y, generator(), subsets=200, size=100).std < found.std
    again = kernel_distance(x, y, generator(), subsets=200, size=50)
    assert again == found != kernel_distance(x, y, generator(1), subsets=200, size=50)


def test_subsets_as_large_as_the_sets_have_no_spread():
    x, y = normal(40, 8), normal(40, 8, seed=1)
    found = kernel_distance(x, y, generator(), subsets=3, size=40)
    assert found.mean == pytest.approx(unbiased_mmd(x, y, cubic_kernel), rel=1e-10) and found.std == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 31}, "subsets of 31 cannot be drawn from 30 and 40"),
        ({"size": 1}, "subsets of 1"),
        ({"subsets": 1, "size": 9}, "spread"),
    ],
)
def test_subsets_that_cannot_be_drawn_are_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        kernel_distance(normal(30, 2), normal(40, 2), generator(), **options)


# Precision and recall


def brute_force(real: NDArray, generated: NDArray, k: int) -> tuple[float, float]:
    def covered(points: NDArray, centres: NDArray) -> float:
        radii = [sorted(math.dist(a, b) for j, b in enumerate(centres) if j != i)[k - 1] for i, a in enumerate(centres)]
        return float(np.mean([any(math.dist(p, c) <= r for c, r in zip(centres, radii, strict=True)) for p in points]))

    return covered(generated, real), covered(real, generated)


@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("elements", [100, 2**24])
def test_precision_and_recall_equal_those_over_all_pairs(k, elements, monkeypatch):
    monkeypatch.setattr(neighbours, "ELEMENTS", elements)
    real, generated = normal(60, 3), 0.7 * normal(45, 3, seed=1) + 1.3
    found, expected = precision_recall(real, generated, k), brute_force(real, generated, k)
    assert found == pytest.approx(expected, abs=1e-12)
    assert min(expected) > 0 and max(expected) < 1 and expected[0] != expected[1]


def test_points_on_a_line():
    """Real 0, 1, 2, 3 with k = 1: balls of radius 1. Of the generated -1, 3.5, 9, 9.5 two are on them, the border included.

    The generated balls have the radii 4.5, 4.5, 0.5 and 0.5: [-5.5, 3.5] and [-1, 8] hold every real point.
    """
    real, generated = np.arange(4.0)[:, None], np.array([-1, 3.5, 9, 9.5])[:, None]
    assert precision_recall(real, generated, k=1) == (0.5, 1.0)


def test_a_collapsed_generator_has_precision_without_recall():
    real = normal(400, 4)
    collapsed = real[:1] + 1e-3 * normal(400, 4, seed=1)
    found = precision_recall(real, collapsed)
    assert found.precision == 1 and found.recall < 0.02
    spread = precision_recall(real, 20 * normal(400, 4, seed=2))
    assert spread.precision < 0.1 and spread.recall > 0.9


def test_a_set_covers_itself_and_nothing_far_away():
    x = normal(50, 64).astype(np.float32)
    assert precision_recall(x, x) == (1, 1)
    assert precision_recall(x, x + 1000) == (0, 0)
    repeated = np.repeat(x[:5], 8, 0)  # more copies than k: balls of radius 0
    assert precision_recall(repeated, repeated) == (1, 1)


def test_motions_and_scales_do_not_matter():
    real, generated = normal(80, 5), 0.8 * normal(70, 5, seed=1) + 0.5
    plain = precision_recall(real, generated)
    rotation = np.linalg.qr(normal(5, 5, seed=2))[0]
    assert precision_recall(3 * real @ rotation + 1e3, 3 * generated @ rotation + 1e3) == plain
    assert precision_recall(generated, real) == plain[::-1]


@pytest.mark.parametrize(
    ("real", "generated", "k", "message"),
    [
        (np.ones((3, 2)), np.ones((9, 2)), 3, r"n >= 4, not \(3, 2\)"),
        (np.ones((9, 2)), np.ones((9, 3)), 3, "2 and 3 dimensions"),
        (np.ones((9, 2)), np.ones((9, 2)), 0, "k must be at least 1"),
        (np.ones((9, 2)), np.full((9, 2), np.nan), 3, "not all finite"),
    ],
)
def test_features_without_precision_are_an_error(real, generated, k, message):
    with pytest.raises(ValueError, match=message):
        precision_recall(real, generated, k)
