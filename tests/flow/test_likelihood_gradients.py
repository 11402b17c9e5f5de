"""Derivatives of log p, of divergences and of oracles, beside closed forms and difference quotients."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from fmbench.flow.divergence import exact_divergence, hutchinson_divergence
from fmbench.flow.likelihood import log_likelihood
from fmbench.flow.oracle import FiniteOracle, MixtureOracle
from fmbench.flow.paths import CosineVP, OptimalTransport, VariancePreserving

HALF = torch.tensor(0.4, dtype=torch.float64)
OUT = torch.tensor([[0.5, -1.0, 0.3], [0.2, 0.8, -0.6], [-0.7, 0.1, 0.9], [0.4, -0.5, 0.2]], dtype=torch.float64)
ESTIMATES = ("loop", "vmap", "reverse", "forward")


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def estimate(kind: str, field, x: Tensor) -> tuple[Tensor, Tensor]:
    if kind in ("loop", "vmap"):
        return exact_divergence(field, HALF, x, kind)
    return hutchinson_divergence(field, HALF, x, draw(0, 2, *x.shape), kind)


@pytest.mark.parametrize("kind", ESTIMATES)
def test_divergences_by_the_point_and_by_parameters(kind):
    def pair(x: Tensor, into: Tensor) -> tuple[Tensor, Tensor]:
        return estimate(kind, lambda t, y: torch.tanh(y @ into + t) @ OUT, x)

    x, into = draw(1, 2, 3).requires_grad_(), draw(2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(pair, (x, into))
    assert torch.autograd.gradgradcheck(pair, (x, into), rtol=1e-3, atol=1e-5, fast_mode=True)
    # By parameters alone, at a point without a gradient.
    assert torch.autograd.gradcheck(partial(pair, x.detach()), (into,))


@pytest.mark.parametrize("kind", ESTIMATES)
def test_a_graph_is_kept_only_where_somebody_asked_for_one(kind):
    into = draw(2, 3, 4)
    x = draw(1, 2, 3)

    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(y @ into + t) @ OUT

    assert not any(v.requires_grad for v in estimate(kind, field, x))
    into.requires_grad_()
    assert all(v.requires_grad for v in estimate(kind, field, x))
    with torch.no_grad():
        assert not any(v.requires_grad for v in estimate(kind, field, x.requires_grad_()))


@pytest.mark.parametrize("kind", ESTIMATES)
def test_a_field_of_parameters_alone_has_no_divergence(kind):
    drift = torch.ones(3, dtype=torch.float64, requires_grad=True)
    v, divergence = estimate(kind, lambda t, x: drift.expand_as(x), draw(3, 2, 3))
    assert torch.equal(divergence.detach(), torch.zeros_like(divergence))
    (by_drift,) = torch.autograd.grad(v.sum(), drift)
    assert by_drift.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("kind", [None, "reverse", "forward"])
def test_log_p_of_a_linear_flow_has_its_closed_form_and_derivatives(kind):
    """dx/dt = q x: log p(x) = log N(exp(-q) x; 0, 4 I) - D q. Rademacher probes are exact for it."""
    rate, x = torch.tensor(0.7, dtype=torch.float64, requires_grad=True), draw(4, 3, 2).requires_grad_()
    probes = None if kind is None else torch.ones(2, 3, 2, dtype=torch.float64)
    found = log_likelihood(
        lambda t, y: rate * y, x, 0.0, 1.0, base_std=2.0, probes=probes, mode=kind or "reverse", rtol=1e-10, atol=1e-10
    )
    start = x.detach() * math.exp(-0.7)
    log_p = -(start**2).sum(1) / 8 - 2 * (math.log(2) + 0.5 * math.log(2 * math.pi)) - 2 * 0.7
    torch.testing.assert_close(found.log_p.detach(), log_p, rtol=1e-8, atol=0)
    by_x, by_rate = torch.autograd.grad(found.log_p.sum(), (x, rate), create_graph=True)
    torch.testing.assert_close(by_x.detach(), -start * math.exp(-0.7) / 4, rtol=1e-7, atol=0)
    assert float(by_rate.detach()) == pytest.approx(float((start**2).sum() / 4 - 6), rel=1e-7)
    (twice,) = torch.autograd.grad(by_rate, rate)
    assert float(twice) == pytest.approx(float(-(start**2).sum() / 2), rel=1e-6)


@pytest.mark.parametrize("kind", [None, "reverse", "forward"])
def test_log_p_of_a_network_by_differences(kind):
    probes = None if kind is None else draw(5, 2, 1, 3)

    def log_p(x: Tensor, into: Tensor) -> Tensor:
        def field(t: Tensor, y: Tensor) -> Tensor:
            return torch.tanh(y @ into + t) @ OUT

        return log_likelihood(field, x, 0.0, 1.0, probes=probes, mode=kind or "reverse", rtol=1e-5, atol=1e-5).by_probe

    assert torch.autograd.gradcheck(log_p, (draw(6, 1, 3).requires_grad_(), draw(7, 3, 4).requires_grad_()), atol=1e-3)


ORACLES = {
    "mixture": MixtureOracle(draw(8, 3, 2), torch.diag_embed(draw(9, 3, 2) ** 2 + 0.1), torch.tensor([1.0, 2.0, 3.0])),
    "points": FiniteOracle(draw(10, 6, 2), 0.3),
    "pieces": FiniteOracle(draw(10, 6, 2), 0.3, memory=12),
    "points alone": FiniteOracle(draw(10, 6, 2)),
}


@pytest.mark.parametrize("oracle", ORACLES.values(), ids=ORACLES)
@pytest.mark.parametrize("path", [OptimalTransport(), VariancePreserving(), CosineVP()], ids=["ot", "vp", "cosine_vp"])
def test_oracles_by_the_point_and_by_time(path, oracle):
    x, t = draw(11, 3, 2).requires_grad_(), torch.tensor([0.3, 0.5, 0.7], dtype=torch.float64, requires_grad=True)
    for values in (oracle.log_density, oracle.score, oracle.velocity):
        assert torch.autograd.gradcheck(partial(values, path), (t, x))
    (by_x,) = torch.autograd.grad(oracle.log_density(path, t, x).sum(), x)
    torch.testing.assert_close(by_x, oracle.score(path, t, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("oracle", ORACLES.values(), ids=ORACLES)
def test_the_divergence_of_an_oracles_field_is_the_one_it_gives(oracle):
    """It was 0 while the oracle detached its points."""
    x, path = draw(12, 4, 2), CosineVP()
    _, closed = oracle.velocity_and_divergence(path, HALF, x)
    _, found = exact_divergence(partial(oracle.velocity, path), HALF, x)
    torch.testing.assert_close(found, closed, rtol=1e-9, atol=1e-9)
    assert closed.abs().min() > 1e-2
