"""The half-way time of states whose way is known."""

import math

import numpy as np
import pytest

from fmbench.metrics.half_way import GROUPS, LEAST_SAMPLES, half_time, half_way, mean_distances

CORNERS = np.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
TIMES = np.linspace(0, 1, 21)
SHARE = 0.86
"""The share w^2 of the data at which half of the way to four corners is covered, found by simulation."""


def states(middle: float, n: int = 400, swell: float = 1.0) -> np.ndarray:
    """x_t = w x1 + sqrt(1 - w^2) x0, x1 at four corners: the share w^2 of the data rises to SHARE at the time given."""
    rng = np.random.default_rng(0)
    x0, x1 = rng.standard_normal((n, 2)), CORNERS[rng.permutation(n) % 4]
    share = TIMES ** (math.log(SHARE) / math.log(middle))
    scale = 1 + (swell - 1) * (1 - TIMES)
    return np.stack([c * (math.sqrt(w) * x1 + math.sqrt(1 - w) * x0) for w, c in zip(share, scale, strict=True)])


@pytest.mark.parametrize("middle", [0.4, 0.7, 0.9])
def test_the_time_at_which_half_of_the_way_is_covered(middle):
    found = half_way(TIMES, states(middle))
    assert found.t == pytest.approx(middle, abs=0.03) and found.spacing == pytest.approx(0.05)
    assert 0 < found.stderr < 0.02


def test_the_standard_error_is_the_spread_of_repeated_draws():
    x = states(0.6, n=4000)
    draws = [half_way(TIMES, x[:, i : i + 100]) for i in range(0, 4000, 100)]
    spread = np.std([d.t for d in draws], ddof=1)
    assert np.sqrt(np.mean([d.stderr**2 for d in draws])) == pytest.approx(spread, rel=0.4)


def test_the_scale_of_the_noise_does_not_change_the_time():
    assert half_way(TIMES, states(0.4, swell=30.0)).t == pytest.approx(half_way(TIMES, states(0.4)).t, abs=1e-9)


def test_the_half_way_time_is_that_of_the_distribution_not_of_each_sample():
    """Points that go straight from x0 to a place near by: every state knows its end, and no structure is there before."""
    x0 = np.random.default_rng(1).standard_normal((400, 2))
    corner = np.where(x0 > 0, 1.0, -1.0)
    early, late = (half_way(TIMES, np.stack([(1 - s) * x0 + s * corner for s in TIMES**p])) for p in (1, 6))
    assert 0.1 < early.t < late.t - 0.3


def test_the_mean_distances_are_those_computed_by_hand():
    x, y = np.random.default_rng(2).standard_normal((2, 40, 3))
    pairs = [(i, j) for i in range(40) for j in range(40) if i != j]
    by_hand = np.mean([np.linalg.norm(x[i] - y[j]) for i, j in pairs])
    found = mean_distances(x, y)
    assert found[0] == pytest.approx(by_hand)
    kept = [(i, j) for i, j in pairs if i >= 4 and j >= 4]  # without the first of ten groups
    assert found[1] == pytest.approx(np.mean([np.linalg.norm(x[i] - y[j]) for i, j in kept]))
    assert len(found) == 1 + GROUPS


def test_too_few_times_or_samples_or_no_way_have_no_half_way_time():
    x = states(0.5)
    assert half_way(TIMES[-2:], x[-2:]) is None
    assert half_way(TIMES, x[:, : LEAST_SAMPLES - 1]) is None
    assert half_way(TIMES[:3], np.stack([x[-1]] * 3)) is None


def test_the_half_time():
    times = np.array([0.0, 0.5, 1.0])
    assert half_time(times, np.array([[0.0, 0.4, 0.8], [0.6, 0.7, 1.0], [0.0, 0.5, 1.0]])) == pytest.approx([0.625, 0.0, 0.5])
    assert np.isnan(half_time(times, np.array([0.0, 0.1, 0.2]))).all()
