import itertools

import pytest
import torch
from torch import Tensor, nn

from fmbench.fields import CountingField, exact_divergence, hutchinson_divergence, velocity_field
from fmbench.paths import CosineVP, OptimalTransport, VarianceExploding, VariancePreserving
from fmbench.prediction import PREDICTIONS

EVERY_PATH = [OptimalTransport(0.1), VariancePreserving(), VarianceExploding(0.2, 5.0), CosineVP()]
MIXING = torch.tensor([[0.5, -1.0, 2.0], [0.3, 0.7, -0.4], [1.1, 0.2, -0.9]], dtype=torch.float64)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def neighbours(t: Tensor, x: Tensor) -> Tensor:
    """v_i = (1 + t) x_i^2 x_(i+1), cyclic over the flattened sample: divergence 2 (1 + t) sum_i x_i x_(i+1)."""
    flat = x.flatten(1)
    scale = (1 + t).reshape(-1, 1)
    return (scale * flat**2 * flat.roll(-1, 1)).reshape(x.shape)


def divergence_of_neighbours(t: Tensor, x: Tensor) -> Tensor:
    flat = x.flatten(1)
    return (2 * (1 + t).reshape(-1, 1) * flat * flat.roll(-1, 1)).sum(1)


def coupled(t: Tensor, x: Tensor) -> Tensor:
    """Off-diagonal and asymmetric Jacobian."""
    return torch.sin(x @ MIXING.T) + t * x


def jacobians(field, t: Tensor, x: Tensor) -> Tensor:
    return torch.stack([torch.autograd.functional.jacobian(lambda y: field(t, y[None])[0], row) for row in x])


def test_counting_field_counts_calls_and_samples():
    field = CountingField(coupled)
    for batch in (4, 1, 7):
        x = draw(0, batch, 3)
        assert torch.equal(field(torch.tensor(0.3), x), coupled(torch.tensor(0.3), x))
    assert (field.calls, field.evaluations) == (3, 12)


@pytest.mark.parametrize(("given", "seen"), [(-0.5, 0.1), (0.1, 0.1), (0.4, 0.4), (0.9, 0.9), (30.9, 0.9)])
def test_counting_field_keeps_time_inside(given, seen):
    times = []
    field = CountingField(lambda t, x: times.append(t) or x, 0.1, 0.9)
    field(torch.tensor(given, dtype=torch.float64), draw(0, 2, 3))
    field(torch.tensor([given, 0.5], dtype=torch.float64), draw(0, 2, 3))
    assert times[0].item() == seen
    assert times[1].tolist() == [seen, 0.5]


@pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=lambda p: p.name)
@pytest.mark.parametrize("path", EVERY_PATH, ids=repr)
def test_a_perfect_network_of_any_kind_gives_the_conditional_field(path, prediction):
    """The perfect network for one data point x1 reads x0 off x_t; its field is eq. 15."""
    x1 = draw(1, 1, 1, 2, 3)

    def network(t: Tensor, x: Tensor) -> Tensor:
        c = path.coefficients(t)
        x0 = (x - c.a.reshape(-1, 1, 1, 1) * x1) / c.s.reshape(-1, 1, 1, 1)
        return prediction.target(path, x0, x1.expand_as(x), t)

    field = velocity_field(network, path, prediction)
    x = draw(2, 4, 1, 2, 3)
    times = torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=torch.float64)
    a, s, da, ds = (v.reshape(-1, 1, 1, 1) for v in path.coefficients(times))
    expected = ds / s * (x - a * x1) + da * x1
    torch.testing.assert_close(field(times, x), expected, rtol=1e-8, atol=1e-8)
    for i, t in enumerate(times):
        torch.testing.assert_close(field(t, x)[i], expected[i], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("t", [torch.tensor(0.3, dtype=torch.float64), torch.full((5,), 0.3, dtype=torch.float64)])
def test_the_network_gets_a_batch_of_times_in_the_type_of_x(t):
    seen = []

    def network(t: Tensor, x: Tensor) -> Tensor:
        seen.append(t)
        return x

    out = velocity_field(network, VariancePreserving(), PREDICTIONS["epsilon"])(t, torch.randn(5, 2))
    assert seen[0].shape == (5,)
    assert seen[0].dtype == out.dtype == torch.float32
    assert torch.equal(seen[0], torch.full((5,), 0.3))


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 3, 5)])
@pytest.mark.parametrize("batched", [False, True])
def test_exact_divergence(shape, batched):
    x = draw(3, *shape)
    t = torch.tensor([0.1, 0.5, 0.7, 0.2], dtype=torch.float64) if batched else torch.tensor(0.4, dtype=torch.float64)
    v, divergence = exact_divergence(neighbours, t, x)
    torch.testing.assert_close(v, neighbours(t, x))
    torch.testing.assert_close(divergence, divergence_of_neighbours(t, x))


def test_divergence_works_without_gradients_and_leaves_none():
    """Sampling runs under no_grad; a divergence that kept its graph would fill the memory along a solve."""
    layer = nn.Linear(3, 3).double()
    x, t = draw(4, 2, 3), torch.tensor(0.5)
    with torch.no_grad():
        results = [
            *exact_divergence(lambda t, x: layer(x), t, x),
            *hutchinson_divergence(lambda t, x: layer(x), t, x, torch.ones(1, 2, 3, dtype=torch.float64)),
        ]
    assert not any(r.requires_grad for r in results)
    assert layer.weight.grad is None
    assert not x.requires_grad
    torch.testing.assert_close(results[1], layer.weight.trace().detach().expand(2))
    torch.testing.assert_close(results[3], layer.weight.sum().detach().expand(2))


def test_hutchinson_is_the_mean_of_its_quadratic_forms():
    x, probes, t = draw(5, 4, 3), draw(6, 6, 4, 3), torch.tensor(0.3, dtype=torch.float64)
    v, estimate = hutchinson_divergence(coupled, t, x, probes)
    expected = torch.einsum("kbi,bij,kbj->kb", probes, jacobians(coupled, t, x), probes).mean(0)
    torch.testing.assert_close(v, coupled(t, x))
    torch.testing.assert_close(estimate, expected)


def test_all_probes_share_one_evaluation():
    field = CountingField(coupled)
    hutchinson_divergence(field, torch.tensor(0.3, dtype=torch.float64), draw(5, 4, 3), draw(6, 6, 4, 3))
    assert field.calls == 1


def test_one_rademacher_probe_is_exact_for_a_diagonal_jacobian():
    x, t = draw(7, 5, 1, 2, 3), torch.tensor(0.3, dtype=torch.float64)
    signs = draw(8, 1, 5, 1, 2, 3).sign()
    _, estimate = hutchinson_divergence(lambda t, x: torch.sin(3 * x) + t * x**2, t, x, signs)
    torch.testing.assert_close(estimate, (3 * torch.cos(3 * x) + 2 * t * x).flatten(1).sum(1))


def test_the_rademacher_mean_over_all_signs_is_the_divergence():
    """Unbiasedness with no Monte Carlo: the expectation over signs is a sum over 2^3 of them."""
    x, t = draw(9, 4, 3), torch.tensor(0.3, dtype=torch.float64)
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)), dtype=torch.float64)
    probes = signs[:, None, :].expand(8, 4, 3)
    _, divergence = exact_divergence(coupled, t, x)
    _, mean = hutchinson_divergence(coupled, t, x, probes)
    torch.testing.assert_close(mean, divergence)
    singles = torch.stack([hutchinson_divergence(coupled, t, x, probes[k : k + 1])[1] for k in range(8)])
    torch.testing.assert_close(singles.mean(0), divergence)
    assert (singles - divergence).abs().min(0).values.max() > 0.1  # a single probe is not exact on this field


def test_gaussian_probes_agree_within_their_error():
    x, t = draw(10, 1, 3), torch.tensor(0.3, dtype=torch.float64)
    probes = draw(11, 4000, 1, 3)
    (jacobian,) = jacobians(coupled, t, x)
    symmetric = (jacobian + jacobian.T) / 2
    # Var z^T J z = 2 |J_sym|_F^2 for z ~ N(0, I).
    error = (2 * symmetric.square().sum() / len(probes)).sqrt()
    _, estimate = hutchinson_divergence(coupled, t, x, probes)
    assert abs(float(estimate - jacobian.trace())) < 4 * error
