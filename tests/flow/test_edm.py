"""EDM (Karras et al. 2022, arXiv:2206.00364): preconditioning, loss, and the optimum on Gaussian data."""

import dataclasses
import math
from itertools import pairwise

import pytest
import torch
from draws import draw
from point_network import network
from torch import Tensor

from fmbench.config.methods import METHODS, Part
from fmbench.flow.fields import velocity_field
from fmbench.flow.likelihood import log_likelihood
from fmbench.flow.objectives import Objective, build
from fmbench.flow.paths import CosineVP, OptimalTransport, VarianceExploding, VariancePreserving
from fmbench.flow.prediction import VELOCITY, convert, edm
from fmbench.flow.solvers.grids import karras_grid
from fmbench.flow.solvers.registry import find_solver
from fmbench.flow.training_times import UniformTime
from fmbench.flow.weighting import WEIGHTINGS

D = 0.7
"""The standard deviation of the data here; it is not the default."""
SIGMA = torch.tensor([0.002, 0.03, 0.4, 3.0, 80.0], dtype=torch.float64)


def preconditioned(sigma: Tensor, y: Tensor) -> Tensor:
    """D(y; sigma) by Table 1 of the paper, its last column, around the test's network."""
    shape = (-1, *[1] * (y.ndim - 1))
    total = (sigma**2 + D**2).reshape(shape)
    c_skip, c_out, c_in = D**2 / total, sigma.reshape(shape) * D / total.sqrt(), 1 / total.sqrt()
    return c_skip * y + c_out * network(sigma.log() / 4, c_in * y)


def time_of(sigma: Tensor) -> Tensor:
    """Our time on the path from 80 to 0.002, geometric in sigma."""
    return 1 - torch.log(sigma / 0.002) / math.log(80 / 0.002)


def test_the_loss_is_the_papers():
    """lambda |D(y + n) - y|^2 with lambda = (sigma^2 + d^2) / (sigma d)^2, on the same draws; the levels are those of u."""
    objective = build(METHODS["edm"], D)
    x0, x1 = draw(0, 2, 5, 1, 2, 3)
    normal = torch.distributions.Normal(torch.tensor(-1.2, dtype=torch.float64), 1.2)
    most, least = normal.cdf(torch.tensor([80.0, 0.002], dtype=torch.float64).log())
    u = (most - normal.cdf(SIGMA.log())) / (most - least)
    n = SIGMA.reshape(-1, 1, 1, 1) * x0
    weight = (SIGMA**2 + D**2) / (SIGMA * D) ** 2
    expected = weight * (preconditioned(SIGMA, x1 + n) - x1).square().flatten(1).mean(1)
    torch.testing.assert_close(objective.loss(network, x0, x1, u), expected, rtol=1e-6, atol=0)


def test_the_field_is_that_of_the_papers_ode():
    """dx / dsigma = (x - D(x; sigma)) / sigma (their eq. 3), times dsigma / dt."""
    objective = build(METHODS["edm"], D)
    y = draw(1, 5, 3) * SIGMA[:, None]
    t = time_of(SIGMA)
    slope = -math.log(80 / 0.002) * SIGMA
    expected = slope[:, None] * (y - preconditioned(SIGMA, y)) / SIGMA[:, None]
    found = velocity_field(network, objective.path, objective.prediction)(t, y)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_euler_in_sigma_on_their_grid_is_ddim_on_karras_grid():
    """Their deterministic sampler of first order, written as in their algorithm 1, but for the last step to sigma = 0."""
    objective = build(METHODS["edm"], D)
    steps, x = 7, 80 * draw(2, 4, 3)
    field = velocity_field(network, objective.path, objective.prediction)
    found = find_solver("ddim").spend(
        steps, field, x, lambda n: karras_grid(objective.path, objective.t_min, objective.t_max, n), objective.path
    )
    i = torch.arange(steps + 1, dtype=torch.float64)
    levels = (80 ** (1 / 7) + i / steps * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    for now, then in pairwise(levels):
        slope = (x - preconditioned(now.expand(4), x)) / now
        x = x + (then - now) * slope
    torch.testing.assert_close(found, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "path", [VarianceExploding(0.002, 80.0), VariancePreserving(), CosineVP(), OptimalTransport(0.0)], ids=repr
)
def test_input_and_target_have_variance_one_on_every_path(path):
    """For independent x0 of variance 1 and x1 of variance d^2, and so that the input says nothing about the target: F = 0."""
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    prediction, c = edm(D), path.coefficients(t)
    factor, _ = prediction.inputs(c, t)
    c1, c0 = prediction.weights(c, t)
    one = torch.ones_like(t)
    torch.testing.assert_close(factor**2 * (c.a**2 * D**2 + c.s**2), one, rtol=1e-12, atol=0)
    torch.testing.assert_close(c1**2 * D**2 + c0**2, one, rtol=1e-12, atol=0)
    torch.testing.assert_close(c1 * c.a * D**2 + c0 * c.s, 0 * t, rtol=0, atol=1e-12)


@pytest.mark.parametrize("path", [VariancePreserving(), CosineVP()], ids=repr)
def test_with_data_of_variance_one_it_is_minus_v_where_the_variance_is_preserved(path):
    x0, x1 = draw(3, 2, 4, 3)
    t = torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=torch.float64)
    a, s, _, _ = (v[:, None] for v in path.coefficients(t))
    torch.testing.assert_close(edm(1.0).target(path, x0, x1, t), s * x1 - a * x0, rtol=1e-12, atol=1e-12)


def test_on_gaussian_data_a_network_of_zeros_is_exact():
    """F = 0 scales every level to the next, so samples are linear in the noise, and NLL is that of their Gaussian."""
    objective = build(METHODS["edm"], D)
    field = velocity_field(lambda t, x: torch.zeros_like(x), objective.path, objective.prediction)
    std = 80 * math.sqrt((0.002**2 + D**2) / (80**2 + D**2))
    x1 = D * draw(4, 6, 3)
    solved = log_likelihood(field, x1, objective.t_min, objective.t_max, base_std=objective.base_std, rtol=1e-9, atol=1e-9)
    expected = torch.distributions.Normal(0.0, std).log_prob(x1).sum(1)
    torch.testing.assert_close(solved.log_p, expected, rtol=1e-7, atol=1e-7)
    # The truth is N(0, d^2): the path starts at 80, where the data are there too, and ends at 0.002.
    truth = torch.distributions.Normal(0.0, D).log_prob(x1).sum(1)
    torch.testing.assert_close(solved.log_p, truth, rtol=0, atol=2e-3)


def test_the_least_loss_on_gaussian_data_is_one():
    """No network is better than zeros there, and their loss is the variance of the target, whatever the level."""
    objective = Objective(VarianceExploding(0.002, 80.0), edm(D), WEIGHTINGS["uniform"], UniformTime(), 0.0, 1.0)
    nodes = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)  # exact for squares
    x0, x1 = nodes[:, :1], D * nodes[:, 1:]
    for time in (0.1, 0.5, 0.9):
        u = torch.full((4,), time, dtype=torch.float64)

        def mean_loss(slope: float, u: Tensor = u) -> float:
            return objective.loss(lambda t, x: slope * x, x0, x1, u).mean().item()

        assert mean_loss(0.0) == pytest.approx(1, rel=1e-12)
        assert mean_loss(0.1) == pytest.approx(1.01, rel=1e-10)  # the input has variance 1, and says nothing of the target


def test_sigma_data_is_that_of_the_data_unless_a_config_says_otherwise():
    method, x0, x1 = METHODS["edm"], *draw(5, 2, 3, 2)
    t = torch.tensor([0.2, 0.5, 0.7], dtype=torch.float64)

    def target(method, *data_std):
        objective = build(method, *data_std)
        return objective.prediction.target(objective.path, x0, x1, t)

    given = dataclasses.replace(method, prediction=Part("edm", {"sigma_data": 0.3}))
    assert torch.equal(target(given, D), target(method, 0.3))
    assert torch.equal(target(method), target(method, 0.5))
    assert not torch.allclose(target(method, D), target(method, 0.3))


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (Part("edm", {"sigma_data": 0.0}), "sigma_data must be positive and finite, not 0.0"),
        (Part("edm", {"sigma": 0.5}), r"prediction 'edm' does not take the parameters \{'sigma': 0.5\}"),
        (Part("x", {"sigma_data": 0.5}), r"prediction 'x' takes no parameters, but was given \{'sigma_data': 0.5\}; remove them"),
    ],
)
def test_parameters_of_a_prediction_that_cannot_be_used_are_refused(prediction, message):
    with pytest.raises(ValueError, match=message):
        build(dataclasses.replace(METHODS["edm"], prediction=prediction))


def test_an_interval_with_infinite_inputs_is_refused():
    """log(sigma) is infinite at both ends of the straight path to data."""
    straight = dataclasses.replace(METHODS["edm"], path=Part("ot", {"sigma_min": 0.0}))
    assert (build(straight).t_min, build(straight).t_max) == (1e-3, 1 - 1e-3)
    with pytest.raises(ValueError, match=r"what the network is given is not finite at an end of the interval .*t_min"):
        build(dataclasses.replace(straight, t_min=0.0))


def test_v_on_the_cosine_path_is_the_velocity_but_for_a_constant():
    """There a' = (pi / 2) s and s' = -(pi / 2) a, so velocity = -(pi / 2) v, and both losses have one optimum."""
    objective = build(METHODS["v_cosine"])
    v, x = draw(6, 2, 4, 3)
    t = torch.tensor([0.0, 0.3, 0.7, 1.0], dtype=torch.float64)
    found = convert(v, x, t, objective.path, objective.prediction, VELOCITY)
    torch.testing.assert_close(found, -math.pi / 2 * v, rtol=1e-12, atol=1e-12)
    assert (objective.t_min, objective.t_max) == (0.0, 1.0)


def test_sd3_is_rectified_flow_at_logit_normal_times():
    """Esser et al. 2024: z = (1 - s) x + s eps at s = 1 / (1 + exp(-N(0, 1))), and the target eps - x; their s is 1 - t."""
    x0, x1 = draw(7, 2, 5, 3)
    normal = torch.linspace(-2, 2, 5, dtype=torch.float64)
    s = torch.sigmoid(normal)[:, None]
    z = (1 - s) * x1 + s * x0
    expected = (-network(1 - s[:, 0], z) - (x0 - x1)).square().mean(1)
    u = 1 - torch.special.ndtr(normal)
    torch.testing.assert_close(build(METHODS["sd3"]).loss(network, x0, x1, u), expected, rtol=1e-9, atol=0)


def test_x_velocity_is_the_velocity_loss_of_a_network_that_predicts_the_data():
    """Li & He 2025: v = (x - z) / (1 - t) for both, at logit-normal(-0.8, 0.8) times."""
    x0, x1 = draw(8, 2, 5, 3)
    normal = torch.linspace(-2, 2, 5, dtype=torch.float64)
    objective = build(METHODS["x_velocity"])
    t = (objective.t_max * torch.sigmoid(-0.8 + 0.8 * normal))[:, None]
    z = t * x1 + (1 - t) * x0
    expected = ((network(t[:, 0], z) - z) / (1 - t) - (x1 - x0)).square().mean(1)
    u = torch.special.ndtr(normal)
    torch.testing.assert_close(objective.loss(network, x0, x1, u), expected, rtol=1e-9, atol=0)
