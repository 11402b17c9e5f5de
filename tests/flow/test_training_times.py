"""Distributions of training times."""

import dataclasses

import numpy as np
import pytest
import torch
from draws import draw
from point_network import network
from torch import Tensor

from fmbench.config.methods import METHODS, Method, Part
from fmbench.flow.objectives import build
from fmbench.flow.paths import CosineVP, OptimalTransport, VarianceExploding, VariancePreserving
from fmbench.flow.prediction import SCORE
from fmbench.flow.training_times import LogitNormalTime, LogNormalTime, LogSNRTime, UniformTime
from fmbench.flow.weighting import WEIGHTINGS


def gauss_legendre(edges: np.ndarray, order: int = 12) -> tuple[Tensor, Tensor]:
    """Nodes and weights of composite Gauss-Legendre quadrature between the edges."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    half, middle = np.diff(edges)[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
    return torch.from_numpy((middle + half * nodes).ravel()), torch.from_numpy((half * weights).ravel())


def graded(points: int = 10, decades: int = 9) -> np.ndarray:
    """Edges on [0, 1] that crowd at both ends."""
    fine = np.logspace(-decades, np.log10(0.5), decades * points)
    return np.concatenate([[0], fine[:-1], 1 - fine[::-1], [1]])


DISTRIBUTIONS = [
    (UniformTime(), OptimalTransport(), 0.0, 1.0),
    (UniformTime(), VariancePreserving(), 0.0, 1 - 1e-5),
    (LogSNRTime(), VariancePreserving(), 0.0, 1 - 1e-5),
    (LogSNRTime(), VarianceExploding(), 0.0, 1.0),
    (LogSNRTime(), OptimalTransport(0.1), 0.01, 0.99),
    (LogSNRTime(), CosineVP(), 1e-3, 1 - 1e-3),
    (LogitNormalTime(), OptimalTransport(), 0.0, 1.0),
    (LogitNormalTime(0.5, 2.0), VariancePreserving(), 0.0, 1 - 1e-5),
    (LogNormalTime(), VarianceExploding(0.002, 80.0), 0.0, 1.0),
    (LogNormalTime(0.4, 0.8), VariancePreserving(), 0.0, 1 - 1e-5),
    (LogNormalTime(0.0, 2.0), OptimalTransport(0.0), 0.0, 1.0),
]


every_distribution = pytest.mark.parametrize(
    ("times", "path", "t_min", "t_max"), DISTRIBUTIONS, ids=[f"{type(d[0]).__name__}-{d[1]}" for d in DISTRIBUTIONS]
)


@every_distribution
def test_density_is_the_one_that_is_drawn_from(times, path, t_min, t_max):
    """By the change of variables u -> t(u) the density of t is du/dt; relative to the uniform one, times the range."""
    u, h = torch.linspace(0.01, 0.99, 99, dtype=torch.float64), 1e-6
    _, density = times.draw(u, path, t_min, t_max)
    ahead, behind = (times.draw(v, path, t_min, t_max)[0] for v in (u + h, u - h))
    slope = (ahead - behind) / (2 * h)
    assert (slope > 0).all()
    torch.testing.assert_close(density * slope / (t_max - t_min), torch.ones_like(u), rtol=1e-4, atol=0)


@every_distribution
def test_density_integrates_to_one(times, path, t_min, t_max):
    t, density = times.draw(torch.from_numpy(graded(1000)), path, t_min, t_max)
    assert t[0] >= t_min
    assert t[-1] <= t_max
    assert torch.trapezoid(density, t).item() / (t_max - t_min) == pytest.approx(1, abs=1e-4)


@every_distribution
def test_the_ends_of_the_interval_are_the_ends_of_the_draw(times, path, t_min, t_max):
    t, _ = times.draw(torch.tensor([0.0, 1.0]), path, t_min, t_max)
    # Infinite ends are reached up to six standard deviations.
    slack = 0.003 if isinstance(times, LogitNormalTime | LogNormalTime) else 1e-12
    assert t.dtype == torch.float64
    assert t.tolist() == pytest.approx([t_min, t_max], abs=slack)


def test_log_snr_time_is_uniform_in_log_snr():
    path = VariancePreserving()
    t, _ = LogSNRTime().draw(torch.linspace(0, 1, 11, dtype=torch.float64), path, 0.0, path.t_max)
    steps = path.log_snr(t).diff()
    torch.testing.assert_close(steps, steps.mean().expand(10), rtol=1e-6, atol=0)


def test_logit_normal_time_has_the_quantiles_of_a_normal():
    t, _ = LogitNormalTime(0.3, 1.5).draw(
        torch.tensor([0.5, 0.8413447460685429], dtype=torch.float64), VariancePreserving(), 0.2, 0.8
    )
    fraction = (t - 0.2) / 0.6
    torch.testing.assert_close(torch.logit(fraction), torch.tensor([0.3, 1.8], dtype=torch.float64), rtol=1e-9, atol=0)


@pytest.mark.parametrize("path", [VarianceExploding(0.002, 80.0), VariancePreserving(), OptimalTransport(0.0)], ids=repr)
def test_log_normal_time_has_the_quantiles_of_a_normal_cut_at_the_ends(path):
    mean, std = -1.2, 1.2
    u = torch.linspace(0.01, 0.99, 21, dtype=torch.float64)
    c = path.coefficients(LogNormalTime(mean, std).draw(u, path, 0.0, path.t_max)[0])
    normal = torch.distributions.Normal(torch.tensor(mean, dtype=torch.float64), std)
    ends = path.coefficients(torch.tensor([0.0, path.t_max], dtype=torch.float64))
    most, least = normal.cdf(torch.log(ends.s / ends.a))
    # t rises as sigma falls.
    torch.testing.assert_close(normal.cdf(torch.log(c.s / c.a)), most - u * (most - least), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("method", "time"),
    [
        ("scoreflow", Part("log_snr", {"corrected": True})),
        ("ddpm", Part("log_snr", {"corrected": True})),
        ("fm_ot", Part("logit_normal", {"std": 2.0, "corrected": True})),
        ("fm_diffusion", Part("log_normal", {"std": 2.0, "corrected": True})),
    ],
)
def test_a_corrected_distribution_estimates_the_same_loss(method, time):
    """The mean over u, by quadrature, and not a Monte Carlo estimate of it."""
    u, weights = gauss_legendre(graded())
    x0, x1 = (v.expand(len(u), 2, 3) for v in draw(4, 2, 1, 2, 3))

    def mean_loss(part: Part) -> float:
        objective = build(dataclasses.replace(METHODS[method], time=part))
        return float(weights @ objective.loss(network, x0, x1, u))

    uncorrected = Part(time.name, time.parameters | {"corrected": False})
    assert mean_loss(time) == pytest.approx(mean_loss(Part("uniform")), rel=1e-4)
    assert abs(mean_loss(uncorrected) / mean_loss(Part("uniform")) - 1) > 0.01


def test_scoreflow_under_its_importance_sampler_is_a_constant_times_the_noise_loss():
    """Song et al. 2021, appendix A.3: beta over the density beta/sigma^2 leaves sigma^2 on the score."""
    path = VariancePreserving()
    u = torch.linspace(0, 1, 50, dtype=torch.float64)
    t, density = LogSNRTime().draw(u, path, 0.0, path.t_max)
    noise_weight = WEIGHTINGS["likelihood"](t, path, SCORE) / density / path.coefficients(t).s ** 2
    torch.testing.assert_close(noise_weight, noise_weight[:1].expand(50), rtol=1e-6, atol=0)


def test_a_quoted_correction_is_refused():
    with pytest.raises(ValueError, match="corrected must be true or false"):
        build(Method("m", Part("ot"), Part("velocity"), time=Part("uniform", {"corrected": "false"})))
