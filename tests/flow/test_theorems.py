"""What Lipman et al. 2023 prove, on data whose marginals are known, and what they write in appendix D. Time here runs from noise
to data; the SDEs of the diffusion literature run the other way, in r = 1 - t."""

import math

import numpy as np
import pytest
import torch
from draws import draw
from example_paths import every_path
from torch import Tensor

from fmbench.flow.objectives import Objective
from fmbench.flow.oracle import FiniteOracle, MixtureOracle
from fmbench.flow.paths import CosineVP, OptimalTransport, VarianceExploding, VariancePreserving
from fmbench.flow.prediction import VELOCITY
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import uniform_grid
from fmbench.flow.solvers.tableaux import RK4
from fmbench.flow.training_times import UniformTime
from fmbench.flow.weighting import WEIGHTINGS
from fmbench.networks.mlp import MLP


def number(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)


FACTORS = draw(0, 3, 2, 2) / 2
WEIGHTS = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
MIXTURE = MixtureOracle(draw(1, 3, 2), FACTORS @ FACTORS.mT, WEIGHTS)
POINTS = FiniteOracle(draw(2, 5, 1, 2, 3))
SMOOTHED = FiniteOracle(draw(2, 5, 1, 2, 3), 0.4)
every_oracle = pytest.mark.parametrize("oracle", [MIXTURE, POINTS, SMOOTHED], ids=["mixture", "points", "smoothed"])


def diffused(x: Tensor, a: float, s: float) -> tuple[Tensor, Tensor]:
    """log density and score of MIXTURE's data after x -> a x + s noise, by torch.distributions and autograd."""
    x = x.clone().requires_grad_()
    identity = torch.eye(2, dtype=torch.float64)
    components = torch.distributions.MultivariateNormal(a * MIXTURE.means, a**2 * FACTORS @ FACTORS.mT + s**2 * identity)
    log_density = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(WEIGHTS), components).log_prob(x)
    (score,) = torch.autograd.grad(log_density.sum(), x)
    return log_density.detach(), score


# Theorem 1.


@every_path
@every_oracle
@pytest.mark.parametrize("t", [0.1, 0.35, 0.6, 0.9])
def test_theorem_1_the_marginal_field_makes_the_marginal_path(path, oracle, t):
    """The continuity equation, eq. 26, over p: d log p/dt + div u + u . score = 0, at points of the marginal."""
    x = oracle.marginal_sample(path, t, 8, torch.Generator().manual_seed(0))
    u, divergence = oracle.velocity_and_divergence(path, number(t), x)
    transport = (u * oracle.score(path, number(t), x)).flatten(1).sum(1)
    h = 1e-4
    at = {k: oracle.log_density(path, number(t + k * h), x) for k in (-2, -1, 1, 2)}
    change = (at[-2] - 8 * at[-1] + 8 * at[1] - at[2]) / (12 * h)
    size = 1 + divergence.abs() + transport.abs()
    assert ((change + divergence + transport).abs() < 1e-6 * size).all()
    assert (change.abs() > 1e-3 * size).any()


@every_path
def test_theorem_1_along_the_flow(path):
    """Whole trajectories: log p falls by the integral of the divergence between two marginals."""
    t0, t1 = 0.1, 0.9
    x = MIXTURE.marginal_sample(path, t0, 6, torch.Generator().manual_seed(1))

    def joint(t, state):
        u, divergence = MIXTURE.velocity_and_divergence(path, t, state[:, :2])
        return torch.cat([u, -divergence[:, None]], 1)

    end = integrate(joint, torch.cat([x, MIXTURE.log_density(path, number(t0), x)[:, None]], 1), uniform_grid(t0, t1, 80), RK4)
    torch.testing.assert_close(end[:, 2], MIXTURE.log_density(path, number(t1), end[:, :2]), rtol=0, atol=1e-5)


# Theorem 2.


@every_path
def test_theorem_2_both_losses_have_one_gradient(path):
    """In one dimension, over x by the trapezoid rule and over t by a sum: at every (t, x) the conditional losses weighted by
    p_t(x | x1) q(x1) are the marginal loss weighted by p_t(x) and a constant, so the gradients agree to rounding."""
    data, times = torch.tensor([[-1.3], [0.2], [0.9]], dtype=torch.float64), torch.linspace(0.1, 0.9, 7, dtype=torch.float64)
    oracle = FiniteOracle(data)
    objective = Objective(path, VELOCITY, WEIGHTINGS["uniform"], UniformTime(), 0.05, 0.95)
    x = torch.linspace(-40, 40, 4001, dtype=torch.float64)[:, None]
    dx = float(x[1] - x[0])
    gradients, gaps = [], []
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = MLP((1,), width=8, depth=2).double()
        conditional, marginal, constant = number(0), number(0), number(0)
        for t in times:
            a, s, _, _ = path.coefficients(t)
            u = oracle.velocity(path, t, x)
            p = oracle.log_density(path, t, x).exp() * dx
            marginal = marginal + p @ (net(t.expand(len(x)), x) - u)[:, 0] ** 2
            for x1 in data:
                x0 = (x - a * x1) / s
                p_given = torch.distributions.Normal(a * x1, s).log_prob(x[:, 0]).exp() * dx / len(data)
                level = ((t - 0.05) / 0.9).expand(len(x))
                conditional = conditional + p_given @ objective.loss(net, x0, x1.expand(len(x), 1), level)
                _, target = path.interpolate(x0, x1.expand(len(x), 1), t.expand(len(x)))
                constant = constant + p_given @ (target - u)[:, 0] ** 2
        for loss in (conditional, marginal):
            gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))]))
        torch.testing.assert_close(gradients[-2], gradients[-1], rtol=1e-7, atol=1e-8)
        assert gradients[-1].norm() > 0.1
        gaps.append((conditional - marginal).item())
        assert gaps[-1] == pytest.approx(float(constant), rel=1e-7)
    assert gaps[0] > 0.1


def test_theorem_2_by_monte_carlo():
    """The same draws for both losses: their gradients differ by noise alone, whose size is estimated from the draws, and
    the largest of their 33 differences stays within 4 standard errors."""
    path, n = OptimalTransport(0.1), 40_000
    g = torch.Generator().manual_seed(0)
    x1, x0 = MIXTURE.sample(n, g), torch.randn(n, 2, generator=g, dtype=torch.float64)
    u = torch.rand(n, generator=g, dtype=torch.float64)
    objective = Objective(path, VELOCITY, WEIGHTINGS["uniform"], UniformTime(), 0.0, 1.0)
    x_t, conditional = path.interpolate(x0, x1, u)
    marginal = MIXTURE.velocity(path, u, x_t)
    torch.manual_seed(0)
    last = torch.nn.Linear(8, 2).double()
    features = torch.tanh(torch.nn.Linear(3, 8).double()(torch.cat([x_t, u[:, None]], 1))).detach()
    output = last(features)
    torch.testing.assert_close(objective.loss(lambda t, x: output, x0, x1, u), (output - conditional).square().mean(1))
    # d/dW of |W f - y|^2 / 2, sample by sample.
    by_sample = {
        name: torch.einsum("ni,nj->nij", output.detach() - target, features).flatten(1)
        for name, target in (("conditional", conditional), ("marginal", marginal))
    }
    difference = by_sample["conditional"] - by_sample["marginal"]
    error = difference.std(0) / math.sqrt(n)
    assert (difference.mean(0).abs() < 4 * error).all()
    assert (error > 0).all()
    assert (by_sample["marginal"].mean(0).abs() > 20 * error).any()


# Theorem 3.


@every_path
def test_theorem_3_the_conditional_field_carries_noise_along_the_path(path):
    """Eq. 15 as printed, s'/s (x - a x1) + a' x1, integrated from x_t at the start."""
    x0, x1 = draw(3, 2, 4, 1, 2, 3)
    t0, t1 = path.t_min, min(path.t_max, 0.95)

    def field(t, x):
        a, s, da, ds = path.coefficients(t)
        return ds / s * (x - a * x1) + da * x1

    grid = uniform_grid(t0, t1, 200)
    states = integrate(field, path.interpolate(x0, x1, grid[0])[0], grid, RK4, keep=True)
    for k in (0, 50, 120, 200):
        expected, velocity = path.interpolate(x0, x1, grid[k])
        torch.testing.assert_close(states[k], expected, rtol=0, atol=1e-6 * path.base_std)
        torch.testing.assert_close(field(grid[k], expected), velocity, rtol=1e-9, atol=1e-9)


@every_path
def test_the_marginal_field_of_one_point_is_its_conditional_field(path):
    x1, x = draw(4, 1, 3), draw(5, 6, 3)
    t = torch.linspace(0.05, 0.95, 6, dtype=torch.float64)
    a, s, da, ds = (v[:, None] for v in path.coefficients(t))
    torch.testing.assert_close(FiniteOracle(x1).velocity(path, t, x), ds / s * (x - a * x1) + da * x1, rtol=1e-9, atol=1e-9)


# Lemma 1 and appendix D. Forwards in r, dx = f dr + g dW has the probability-flow field f - g^2/2 score, and the paper's field,
# forwards in t, is minus that.


@pytest.mark.parametrize("r", [0.01, 0.1, 0.4, 0.9, 1.0])
def test_the_vp_field_is_the_probability_flow_of_its_sde(r):
    """f = -beta(r) x / 2 and g^2 = beta(r), with beta linear from 0.1 to 20."""
    x = 1.5 * draw(6, 9, 2)
    beta = 0.1 + r * (20 - 0.1)
    alpha = math.exp(-(0.1 * r + (20 - 0.1) * r**2 / 2) / 2)
    _, score = diffused(x, alpha, math.sqrt(1 - alpha**2))
    flow_in_r = -beta * x / 2 - beta / 2 * score
    velocity = MIXTURE.velocity(VariancePreserving(), number(1 - r), x)
    torch.testing.assert_close(velocity, -flow_in_r, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("r", [0.0, 0.1, 0.4, 0.9, 1.0])
def test_the_ve_field_is_the_probability_flow_of_its_sde(r):
    """f = 0 and g^2 = d sigma^2 / dr, with sigma(r) = 0.2 * 25^r."""
    sigma = 0.2 * 25**r
    x = draw(7, 9, 2) * (1 + sigma)
    _, score = diffused(x, 1.0, sigma)
    flow_in_r = -(2 * math.log(25) * sigma**2) / 2 * score
    velocity = MIXTURE.velocity(VarianceExploding(0.2, 5.0), number(1 - r), x)
    torch.testing.assert_close(velocity, -flow_in_r, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("path", [VariancePreserving(), VarianceExploding(0.2, 5.0)], ids=["vp", "ve"])
def test_lemma_1_the_marginals_solve_the_fokker_planck_equation(path):
    """dp/dr = -div(f p) + g^2/2 laplace p, over p: d log p/dr = -div f - f . score + g^2/2 (div score + |score|^2)."""
    t, h, x = 0.6, 1e-4, 1.2 * draw(8, 9, 2)
    p = MIXTURE.posterior(path, number(t), x)
    s = path.coefficients(number(t)).s
    if isinstance(path, VariancePreserving):
        squared = 0.1 + 0.4 * 19.9
        drift, div_drift = -squared * x / 2, -squared
    else:
        squared = 2 * math.log(25) * (0.2 * 25**0.4) ** 2
        drift, div_drift = torch.zeros_like(x), 0.0
    laplace = -p.trace_x0 / s + p.score.square().sum(1)
    log_p = [MIXTURE.log_density(path, number(t + k * h), x) for k in (-2, -1, 1, 2)]
    change_in_r = -(log_p[0] - 8 * log_p[1] + 8 * log_p[2] - log_p[3]) / (12 * h)
    expected = -div_drift - (drift * p.score).sum(1) + squared / 2 * laplace
    torch.testing.assert_close(change_in_r, expected, rtol=1e-7, atol=1e-7)


def test_eq_19_as_printed():
    x1, x = draw(9, 1, 4), draw(10, 7, 4)
    t = torch.tensor([0, 0.1, 0.4, 0.7, 0.9, 0.99, 0.999], dtype=torch.float64)
    r = (1 - t)[:, None]
    T, dT = 0.1 * r + r**2 * (20 - 0.1) / 2, 0.1 + r * (20 - 0.1)
    printed = -dT / 2 * (torch.exp(-T) * x - torch.exp(-T / 2) * x1) / (1 - torch.exp(-T))
    torch.testing.assert_close(FiniteOracle(x1).velocity(VariancePreserving(), t, x), printed, rtol=1e-7, atol=1e-7)


# Section 4.1: what is optimal about the optimal-transport path.


def bend(path) -> float:
    """The largest second difference of conditional trajectories over 21 times, in units of their length."""
    x0, x1 = draw(11, 2, 6, 3)
    t = torch.linspace(path.t_min, path.t_max, 21, dtype=torch.float64)
    states = torch.stack([path.interpolate(x0, x1, u.expand(6))[0] for u in t])
    steps = states.diff(dim=0)
    return float((steps.diff(dim=0).norm(dim=2) / (states[-1] - states[0]).norm(dim=1)).max())


@pytest.mark.parametrize("sigma_min", [0.0, 1e-4, 0.1])
def test_optimal_transport_moves_straight_at_constant_speed(sigma_min):
    path = OptimalTransport(sigma_min)
    assert bend(path) < 1e-14
    x0, x1 = draw(12, 2, 6, 3)
    velocities = torch.stack([path.interpolate(x0, x1, torch.full((6,), t))[1] for t in np.linspace(0, 1, 9)])
    torch.testing.assert_close(velocities, (x1 - (1 - sigma_min) * x0).expand(9, 6, 3), rtol=0, atol=1e-14)


@pytest.mark.parametrize("path", [VariancePreserving(), CosineVP(), VarianceExploding()], ids=repr)
def test_diffusion_paths_do_not(path):
    assert bend(path) > 0.005


def test_the_ot_field_keeps_its_direction_and_vp_does_not():
    """Fig. 2: at a place, the conditional OT field points the same way at all times; at its end it points to x1."""
    x1, x = draw(13, 1, 2), 2 * draw(14, 20, 2)

    def directions(path):
        fields = [FiniteOracle(x1).velocity(path, number(t), x) for t in (0.0, 1 / 3, 2 / 3, 0.99)]
        return torch.stack([f / f.norm(dim=1, keepdim=True) for f in fields])

    straight, diffusion = directions(OptimalTransport(0.0)), directions(VariancePreserving())
    towards = (x1 - x) / (x1 - x).norm(dim=1, keepdim=True)
    torch.testing.assert_close(straight, towards.expand(4, 20, 2), rtol=0, atol=1e-10)
    assert (diffusion[0] * diffusion[-1]).sum(1).min() < 0.5
