"""Derivatives by time and by noise level, and conversions where s = 0."""

import math

import pytest
import torch

from fmbench.flow.general_paths import GeneralAffine, Rescaled
from fmbench.flow.paths import CosineVP, OptimalTransport, VarianceExploding, VariancePreserving
from fmbench.flow.prediction import EPSILON, PREDICTIONS, SCORE, VELOCITY, V, X, convert

EVERY_PATH = {
    "ot": OptimalTransport(),
    "ot to data": OptimalTransport(0.0),
    "vp": VariancePreserving(),
    "ve": VarianceExploding(),
    "cosine_vp": CosineVP(),
    "general": GeneralAffine(lambda t: t**2, lambda t: 1 - t**3),
    "rescaled": Rescaled(VariancePreserving(), lambda t: 1 + t),
}
every_path = pytest.mark.parametrize("path", EVERY_PATH.values(), ids=EVERY_PATH)


def times(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


@every_path
def test_coefficients_and_log_snr_by_time(path):
    t = times(0.2, 0.5, 0.8)
    assert torch.autograd.gradcheck(lambda t: tuple(path.coefficients(t)), (t,))
    assert torch.autograd.gradgradcheck(lambda t: tuple(path.coefficients(t))[:2], (t,))
    assert torch.autograd.gradcheck(path.log_snr, (t,))


@every_path
def test_derivatives_of_a_and_s_at_the_ends_are_the_paths_own(path):
    t = times(path.t_min, path.t_max)
    a, s, da, ds = path.coefficients(t)
    for value, derivative in ((a, da), (s, ds)):
        if value.requires_grad:  # VE's a is 1
            (found,) = torch.autograd.grad(value.sum(), t, retain_graph=True)
            torch.testing.assert_close(found, derivative.detach(), rtol=1e-9, atol=1e-12)


@every_path
def test_the_inverse_of_log_snr_has_the_inverse_derivative(path):
    """Also where it is found by bisection, which compares numbers and has no derivative of its own."""
    levels = path.log_snr(times(0.2, 0.5, 0.8)).detach().requires_grad_()
    assert torch.autograd.gradcheck(path.time_of_log_snr, (levels,))
    assert torch.autograd.gradgradcheck(path.time_of_log_snr, (levels,), rtol=1e-3, atol=1e-6)


def test_the_inverse_of_log_snr_in_closed_form_and_outside_of_the_interval():
    """On the straight path to data t = 1 / (1 + exp(-lambda / 2)), so t' = t (1 - t) / 2; VE has no level above sigma_max."""
    levels = times(-3.0, 0.0, 2.0)
    t = OptimalTransport(0.0).time_of_log_snr(levels)
    (rate,) = torch.autograd.grad(t.sum(), levels)
    torch.testing.assert_close(rate, (t * (1 - t) / 2).detach(), rtol=1e-9, atol=0)
    far = times(-100.0, 100.0, -math.inf, math.inf)
    t = VarianceExploding().time_of_log_snr(far)
    torch.testing.assert_close(t.detach(), torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64))
    assert torch.autograd.grad(t.sum(), far)[0].tolist() == [0, 0, 0, 0]


@every_path
@pytest.mark.parametrize("source", PREDICTIONS.values(), ids=PREDICTIONS)
@pytest.mark.parametrize("target", PREDICTIONS.values(), ids=PREDICTIONS)
def test_conversions_by_prediction_point_and_time(path, source, target):
    p, x = (
        torch.randn(2, 3, generator=torch.Generator().manual_seed(k), dtype=torch.float64, requires_grad=True) for k in (0, 1)
    )
    assert torch.autograd.gradcheck(lambda p, x, t: convert(p, x, t, path, source, target), (p, x, times(0.3, 0.7)))


@pytest.mark.parametrize("path", [OptimalTransport(0.0), CosineVP()], ids=["ot", "cosine_vp"])
@pytest.mark.parametrize("t", [torch.tensor(1.0), torch.tensor([1.0, 1.0, 1.0])], ids=["one time", "each its own"])
def test_predictions_at_data_alone(path, t):
    """At s = 0 x_t is x1 for a = 1. The noise is what noise, velocity and v say, and none for a score."""
    x, p = torch.randn(3, 2, dtype=torch.float64, requires_grad=True), torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    c = path.coefficients(torch.tensor(1.0))
    noise = {EPSILON: (1.0, 0.0), SCORE: (0.0, 0.0), VELOCITY: (1 / c.ds, -c.da / c.ds), V: (1.0, 0.0)}
    for source, (of_p, of_x) in noise.items():
        x0 = of_p * p + of_x * x
        wanted = {X: x, EPSILON: x0, VELOCITY: c.da * x + c.ds * x0, V: x0}
        for target, expected in wanted.items():
            if source is target:
                continue
            found = convert(p, x, t, path, source, target)
            torch.testing.assert_close(found, expected.double(), rtol=1e-12, atol=1e-12)
            slopes = torch.autograd.grad(found.sum(), (p, x), retain_graph=True)
            assert all(slope.isfinite().all() for slope in slopes)
