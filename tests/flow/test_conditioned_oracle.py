"""Oracles given a condition: points with other weights, against oracles of subsets and the closed form of a Gaussian."""

import math

import pytest
import torch

from fmbench.flow.oracle import FiniteOracle
from fmbench.flow.paths import OptimalTransport, VariancePreserving

G = torch.Generator().manual_seed(1)
POINTS = torch.randn(300, 2, generator=G).double()
LABELS = torch.arange(300) % 3
X = torch.randn(600, 2, generator=G).double()
WANTED = torch.arange(600) % 3


def by_label(wanted: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(wanted), 300).double().masked_fill(wanted[:, None] != LABELS, -math.inf) - math.log(100)


@pytest.mark.parametrize("path", [OptimalTransport(0.01), VariancePreserving()], ids=["ot", "vp"])
@pytest.mark.parametrize("memory", [1 << 18, 500])
def test_given_a_label_it_is_the_oracle_of_the_points_with_this_label(path, memory):
    oracle = FiniteOracle(POINTS, 0.2, memory).given(by_label(WANTED))
    for t in (0.0, 0.3, 0.9):
        time = torch.tensor(t).double()
        found = oracle.posterior(path, time, X)
        for label in range(3):
            rows = label == WANTED
            subset = FiniteOracle(POINTS[label == LABELS], 0.2).posterior(path, time, X[rows])
            for name, wanted in zip(subset._fields, subset, strict=True):
                torch.testing.assert_close(getattr(found, name)[rows], wanted, rtol=1e-9, atol=1e-9, msg=f"{name} at {t}")


def test_equal_weights_change_nothing():
    equal = torch.full((600, 300), -math.log(300), dtype=torch.float64)
    plain, path, t = FiniteOracle(POINTS, 0.2), OptimalTransport(0.0), torch.tensor(0.5).double()
    torch.testing.assert_close(plain.given(equal).velocity(path, t, X), plain.velocity(path, t, X), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(plain.given(equal).log_density(path, t, X), plain.log_density(path, t, X), rtol=1e-10, atol=1e-10)


def test_weights_that_differ_weigh_the_density():
    weights = torch.rand(1, 300, generator=G).double()
    log_weights = (weights / weights.sum()).log().expand(600, -1)
    path, t = OptimalTransport(0.0), torch.tensor(0.7).double()
    c = path.coefficients(t)
    std = float((c.a**2 * 0.2**2 + c.s**2).sqrt())
    by_hand = torch.distributions.Normal(float(c.a) * POINTS, std).log_prob(X[:, None]).sum(2)
    found = FiniteOracle(POINTS, 0.2).given(log_weights).log_density(path, t, X)
    torch.testing.assert_close(found, torch.logsumexp(by_hand + log_weights, 1), rtol=1e-9, atol=1e-9)


def test_draws_are_of_points_with_the_label():
    oracle = FiniteOracle(POINTS).given(by_label(WANTED))
    drawn = oracle.sample(600, torch.Generator().manual_seed(0))
    nearest = torch.cdist(drawn, POINTS).argmin(1)
    assert torch.equal(LABELS[nearest], WANTED) and len(nearest.unique()) > 200


def test_a_kernel_on_the_condition_gives_the_conditional_gaussian():
    """x1 and c correlated Gaussians: the oracle of many points, weighted by a kernel around c, has the mean and variance of
    x1 given c, up to the kernel's width and the number of points."""
    n, rho = 40_000, 0.8
    g = torch.Generator().manual_seed(5)
    c = torch.randn(n, 1, generator=g).double()
    x1 = rho * c + math.sqrt(1 - rho**2) * torch.randn(n, 1, generator=g).double()
    wanted = torch.tensor([[-1.0], [0.0], [1.5]]).double()
    log_weights = torch.log_softmax(-((wanted - c.T) ** 2) / (2 * 0.1**2), 1)
    oracle, path, t = FiniteOracle(x1).given(log_weights), OptimalTransport(0.0), torch.tensor(0.5).double()
    x = torch.tensor([[0.3], [0.3], [0.3]]).double()
    # x_t = x1 / 2 + x0 / 2 with x1 given c ~ N(rho c, v): E[x1 | x_t, c] of a Gaussian; the kernel adds rho^2 0.1^2 to v.
    v = 1 - rho**2 + rho**2 * 0.1**2
    mean = rho * wanted + v * 0.5 / (0.25 * v + 0.25) * (x - 0.5 * rho * wanted)
    torch.testing.assert_close(oracle.posterior(path, t, x).x1, mean, rtol=0, atol=0.03)


def test_wrong_weights_are_refused():
    with pytest.raises(ValueError, match=r"log_weights must have shape \(B, 300\), not \(4, 299\)"):
        FiniteOracle(POINTS).given(torch.zeros(4, 299))
