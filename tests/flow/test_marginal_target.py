"""The marginal target: Theorem 2 on a small data set, by quadrature; and the variance of gradients."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fmbench.config.methods import METHODS, Method, Part
from fmbench.flow.gradient_variance import gradient_variance
from fmbench.flow.marginal import means, squared_residual
from fmbench.flow.objectives import Objective, build
from fmbench.flow.oracle import FiniteOracle

POINTS = torch.tensor([[1.0, 0.5], [-0.8, 0.2], [0.1, -1.0]], dtype=torch.float64)
LINE = torch.tensor([[1.0], [-0.7], [0.2]], dtype=torch.float64)
PAPERS = ["ddpm", "score_matching", "scoreflow", "fm_diffusion", "fm_ot"]


def marginal(name: str, points: Tensor = POINTS) -> Objective:
    return replace(build(METHODS[name]), data=FiniteOracle(points))


@pytest.mark.parametrize("name", PAPERS)
def test_the_target_is_the_mean_of_the_conditional_targets_by_how_likely_each_point_is(name):
    objective = marginal(name)
    g = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(5, 2, generator=g, dtype=torch.float64), POINTS[[0, 1, 2, 0, 1]]
    u = torch.tensor([0.05, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
    t, weight = objective.times_and_weights(u)
    a, s, _, _ = (v[:, None] for v in objective.path.coefficients(t))
    x_t = a * x1 + s * x0
    likely = torch.softmax(-(x_t[:, None] - a[..., None] * POINTS).square().sum(2) / (2 * s**2), 1)
    target = torch.zeros_like(x_t)
    for k, point in enumerate(POINTS):
        of_point = objective.prediction.target(objective.path, (x_t - a * point) / s, point.expand(5, 2), t)
        target += likely[:, k : k + 1] * of_point
    expected = weight * target.square().mean(1)
    found = objective.loss(lambda t, x: torch.zeros_like(x), x0, x1, u)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)


class Small(nn.Module):
    """A network on the line, in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, 1)).double()

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.layers(torch.cat([x, t[:, None]], 1))


def every_pair() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x0, x1, u and weights of a quadrature: all points, Gauss-Hermite in the noise, the midpoint rule in the time."""
    nodes, of_noise = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(120))
    times = (torch.arange(6, dtype=torch.float64) + 0.5) / 6
    x1, x0, u = (v.reshape(-1) for v in torch.meshgrid(LINE[:, 0], nodes, 0.02 + 0.8 * times, indexing="ij"))
    weights = (of_noise / of_noise.sum())[None, :, None].expand(3, 120, 6).reshape(-1) / 18
    return x0[:, None], x1[:, None], u, weights


@pytest.mark.parametrize("name", ["fm_ot", "fm_diffusion", "ddpm"])
def test_theorem_2_both_losses_have_one_gradient_and_differ_by_the_floor(name):
    """At any weights, by quadrature over noise, data and times."""
    x0, x1, u, weights = every_pair()
    network, of_marginal = Small(), marginal(name, LINE)
    gradients, losses = [], []
    for objective in (of_marginal, replace(of_marginal, data=None)):
        loss = (weights * objective.loss(network, x0, x1, u)).sum()
        losses.append(loss.item())
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)
    t, weight = of_marginal.times_and_weights(u)
    residual = squared_residual(of_marginal.data, of_marginal.path, of_marginal.prediction, x0, x1, t)
    floor = float((weights * weight * residual).sum())
    assert floor > 0.01 and losses[1] - losses[0] == pytest.approx(floor, rel=1e-4)


def test_the_oracle_itself_has_no_marginal_loss():
    objective = marginal("fm_ot")
    g = torch.Generator().manual_seed(1)
    x0, x1 = torch.randn(40, 2, generator=g, dtype=torch.float64), POINTS[torch.arange(40) % 3]
    u = torch.rand(40, generator=g, dtype=torch.float64)

    def best(t: Tensor, x: Tensor) -> Tensor:
        return objective.data.velocity(objective.path, t, x)

    assert objective.loss(best, x0, x1, u).abs().max() < 1e-12
    assert replace(objective, data=None).loss(best, x0, x1, u).mean() > 0.1


def test_means_at_the_ends():
    """At t = 0 of the OT path x_t says nothing of the data; near t = 1 it says all."""
    objective = marginal("fm_ot")
    x = torch.tensor([[0.3, -0.2], [2.0, 1.0]])
    x0, x1 = means(objective.data, objective.path, torch.zeros(2), x)
    torch.testing.assert_close(x1, POINTS.mean(0).float().expand(2, 2))
    torch.testing.assert_close(x0, x)
    near = POINTS[:2].float() + 1e-5
    _, x1 = means(objective.data, objective.path, torch.full((2,), 0.999), near)
    torch.testing.assert_close(x1, POINTS[:2].float())
    assert x1.dtype == torch.float32 and not x1.requires_grad


# The variance of gradients


def test_the_variance_of_a_gradient_is_that_of_its_parts():
    """Of the loss w . x + b y^2 the gradient is (mean x, mean y^2): numpy's variances of these, added."""
    g = torch.Generator().manual_seed(2)
    w, b, unused = (torch.zeros(n, requires_grad=True) for n in (3, 1, 2))
    batches = [(torch.randn(8, 3, generator=g), torch.randn(8, generator=g)) for _ in range(20)]
    found = gradient_variance(lambda x, y: x @ w + b * y**2, [w, b, unused], batches)
    gradients = np.array([[*x.mean(0).tolist(), (y**2).mean().item()] for x, y in batches])
    assert found == pytest.approx(gradients.var(0, ddof=1).sum(), rel=1e-5)
    assert w.grad is None


def test_a_variance_of_one_batch_is_refused():
    w = torch.zeros(1, requires_grad=True)
    with pytest.raises(ValueError, match="at least two batches, not 1"):
        gradient_variance(lambda x: w * x, [w], [(torch.ones(3),)])


@pytest.mark.parametrize("name", ["fm_ot", "ddpm"])
def test_the_marginal_target_has_less_variance(name):
    network, g = Small(), torch.Generator().manual_seed(4)
    batches = []
    for _ in range(100):
        x0, u = torch.randn(16, 1, generator=g, dtype=torch.float64), torch.rand(16, generator=g, dtype=torch.float64)
        batches.append((x0, LINE[torch.randint(3, (16,), generator=g)], u))
    found = []
    for objective in (marginal(name, LINE), build(METHODS[name])):
        found.append(gradient_variance(partial(objective.loss, network), list(network.parameters()), batches))
    assert found[0] < 0.95 * found[1]


@pytest.mark.parametrize("changes", [{"coupling": Part("minibatch_ot")}, {"source": Part("condition")}])
def test_the_marginal_target_is_that_of_independent_noise(changes):
    with pytest.raises(ValueError, match="goes with no coupling and no source"):
        build(Method("m", Part("ot"), Part("velocity"), target=Part("marginal"), **changes))
