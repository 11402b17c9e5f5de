"""The learning rate of each iteration."""

import numpy as np
import pytest

from fmbench.training.schedule import FLOOR, learning_rate


def test_warm_up_is_linear_from_the_floor_to_the_peak():
    for step in range(50):
        rate = learning_rate(step, 200, 1e-3, 50, "polynomial")
        assert rate == pytest.approx(1e-8 + (1e-3 - 1e-8) * step / 50, rel=1e-12)
    assert learning_rate(0, 200, 1e-3, 50, "polynomial") == FLOOR == 1e-8
    assert learning_rate(50, 200, 1e-3, 50, "polynomial") == 1e-3


@pytest.mark.parametrize(("iterations", "warmup"), [(200, 0), (200, 50), (2, 0), (3, 1)])
def test_polynomial_falls_linearly_to_the_floor_at_the_last_step(iterations, warmup):
    rates = [learning_rate(step, iterations, 1e-3, warmup, "polynomial") for step in range(warmup, iterations)]
    assert rates[0] == 1e-3
    assert rates[-1] == pytest.approx(1e-8, rel=1e-6)
    steps = np.diff(rates)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
    assert steps[0] < 0


def test_constant_stays_at_the_peak_after_the_warm_up():
    assert [learning_rate(s, 10, 0.5, 2, "constant") for s in range(2, 10)] == [0.5] * 8
    assert learning_rate(1, 10, 0.5, 2, "constant") == pytest.approx(0.25)


def test_a_single_iteration_has_a_rate():
    assert learning_rate(0, 1, 1e-3, 0, "polynomial") == 1e-3


def test_an_unknown_schedule():
    with pytest.raises(ValueError, match="schedule must be 'constant' or 'polynomial', not 'cosine'"):
        learning_rate(0, 10, 1e-3, 0, "cosine")
