"""Divergences: exact, and by Hutchinson's estimator."""

import itertools

import pytest
import torch
from draws import draw
from torch import Tensor, nn

from fmbench.flow.divergence import VMAP_UP_TO, exact_divergence, hutchinson_divergence
from fmbench.flow.fields import CountingField, velocity_field
from fmbench.flow.paths import OptimalTransport
from fmbench.flow.prediction import PREDICTIONS
from fmbench.networks import build_network

MIXING = torch.tensor([[0.5, -1.0, 2.0], [0.3, 0.7, -0.4], [1.1, 0.2, -0.9]], dtype=torch.float64)


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
    torch.testing.assert_close(results[3], layer.weight.sum().detach().expand(1, 2))


both_probe_modes = pytest.mark.parametrize("mode", ["reverse", "forward"])


@both_probe_modes
def test_hutchinson_is_a_quadratic_form_of_each_probe(mode):
    x, probes, t = draw(5, 4, 3), draw(6, 6, 4, 3), torch.tensor(0.3, dtype=torch.float64)
    v, estimates = hutchinson_divergence(coupled, t, x, probes, mode)
    expected = torch.einsum("kbi,bij,kbj->kb", probes, jacobians(coupled, t, x), probes)
    torch.testing.assert_close(v, coupled(t, x))
    torch.testing.assert_close(estimates, expected)


@pytest.mark.parametrize(("mode", "calls"), [("reverse", 1), ("forward", 6)])
def test_all_probes_share_one_evaluation_in_reverse_mode(mode, calls):
    field = CountingField(coupled)
    hutchinson_divergence(field, torch.tensor(0.3, dtype=torch.float64), draw(5, 4, 3), draw(6, 6, 4, 3), mode)
    assert field.calls == calls


def test_one_rademacher_probe_is_exact_for_a_diagonal_jacobian():
    x, t = draw(7, 5, 1, 2, 3), torch.tensor(0.3, dtype=torch.float64)
    signs = draw(8, 1, 5, 1, 2, 3).sign()
    _, (estimate,) = hutchinson_divergence(lambda t, x: torch.sin(3 * x) + t * x**2, t, x, signs)
    torch.testing.assert_close(estimate, (3 * torch.cos(3 * x) + 2 * t * x).flatten(1).sum(1))


@both_probe_modes
def test_the_rademacher_mean_over_all_signs_is_the_divergence(mode):
    """Unbiasedness with no Monte Carlo: the expectation over signs is a sum over 2^3 of them."""
    x, t = draw(9, 4, 3), torch.tensor(0.3, dtype=torch.float64)
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)), dtype=torch.float64)
    _, divergence = exact_divergence(coupled, t, x)
    _, estimates = hutchinson_divergence(coupled, t, x, signs[:, None, :].expand(8, 4, 3), mode)
    torch.testing.assert_close(estimates.mean(0), divergence, rtol=1e-13, atol=1e-13)
    assert (estimates - divergence).abs().min(0).values.max() > 0.1  # a single probe is not exact on this field


def test_gaussian_probes_agree_within_their_error():
    x, t = draw(10, 1, 3), torch.tensor(0.3, dtype=torch.float64)
    probes = draw(11, 4000, 1, 3)
    (jacobian,) = jacobians(coupled, t, x)
    symmetric = (jacobian + jacobian.T) / 2
    # Var z^T J z = 2 |J_sym|_F^2 for z ~ N(0, I).
    error = (2 * symmetric.square().sum() / len(probes)).sqrt()
    _, estimates = hutchinson_divergence(coupled, t, x, probes)
    assert abs(float(estimates.mean() - jacobian.trace())) < 4 * error
    assert float(estimates.var()) == pytest.approx(float(2 * symmetric.square().sum()), rel=0.15)


IMAGE_MIXING = draw(12, 6, 6) / 2


def images(t: Tensor, x: Tensor) -> Tensor:
    """Every pixel of a (1, 2, 3) image depends on every other and on the time of its sample."""
    flat = x.flatten(1)
    return (torch.sin(flat @ IMAGE_MIXING.T) * (1 + t).reshape(-1, 1) + flat**2).reshape(x.shape)


@pytest.mark.parametrize("t", [torch.tensor(0.3), torch.tensor([0.1, 0.5, 0.7, 0.2, 0.9])], ids=["shared", "by_sample"])
@pytest.mark.parametrize(
    ("mode", "memory"),
    # 5 x 6 numbers a row: all rows, one at a time (too little memory even for that), and pieces of 1, 2 and 4 of the 6.
    [("auto", 1 << 24), ("loop", 1 << 24), ("vmap", 1 << 24), ("vmap", 1), ("vmap", 30), ("vmap", 60), ("vmap", 130)],
)
def test_every_mode_gives_the_trace_of_the_jacobian(mode, memory, t):
    x, t = draw(13, 5, 1, 2, 3), t.double()
    v, divergence = exact_divergence(images, t, x, mode, memory)
    each = t.expand(5)
    jacobian = torch.stack(
        [
            torch.autograd.functional.jacobian(lambda y, u=u: images(u[None], y[None])[0].flatten(), row).reshape(6, 6)
            for u, row in zip(each, x, strict=True)
        ]
    )
    expected = jacobian.diagonal(dim1=1, dim2=2).sum(1)
    assert expected.abs().min() > 0.1
    assert torch.equal(v, images(t, x))
    torch.testing.assert_close(divergence, expected, rtol=1e-12, atol=1e-12)


class ManyProducts(torch.autograd.Function):
    """x^2, noting the shapes of the gradients that come back."""

    @staticmethod
    def forward(ctx, x, seen):
        ctx.save_for_backward(x)
        ctx.seen = seen
        return x**2

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        ctx.seen.append(gradient.shape)
        return 2 * x * gradient, None


@pytest.mark.parametrize(("shape", "products"), [((4, 3), 3), ((1, VMAP_UP_TO + 1), VMAP_UP_TO + 1)])
def test_auto_takes_the_products_one_by_one_where_they_are_few_or_large(shape, products):
    seen = []
    _, divergence = exact_divergence(lambda t, x: ManyProducts.apply(x, seen), torch.tensor(0.3), torch.ones(shape).double())
    assert len(seen) == products
    torch.testing.assert_close(divergence, torch.full((shape[0],), 2.0 * shape[1], dtype=torch.float64))


@pytest.mark.parametrize("mode", ["all", "forward"])
def test_unknown_modes_of_the_exact_divergence_are_refused(mode):
    with pytest.raises(ValueError, match=f"auto, loop or vmap, not '{mode}'"):
        exact_divergence(coupled, torch.tensor(0.3), draw(0, 2, 3), mode)


def test_unknown_modes_of_the_probes_are_refused():
    with pytest.raises(ValueError, match="reverse or forward, not 'loop'"):
        hutchinson_divergence(coupled, torch.tensor(0.3), draw(0, 2, 3), draw(1, 1, 2, 3), "loop")


def unet() -> nn.Module:
    """With attention at both resolutions, and no layer left at zero."""
    network = build_network(
        "unet", (1, 2, 4), {"channels": 8, "channels_multiple": [1, 2], "depth": 1, "attention_resolutions": [2, 1]}
    ).double()
    g = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=g, dtype=torch.float64)
    return network.eval()


def test_forward_mode_goes_through_a_network_with_attention():
    field = velocity_field(unet(), OptimalTransport(), PREDICTIONS["velocity"])
    x, probes, t = draw(14, 2, 1, 2, 4), draw(15, 3, 2, 1, 2, 4), torch.tensor(0.4, dtype=torch.float64)
    with torch.no_grad():
        v, forward = hutchinson_divergence(field, t, x, probes, "forward")
        w, reverse = hutchinson_divergence(field, t, x, probes, "reverse")
    torch.testing.assert_close(v, w, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(forward, reverse, rtol=1e-10, atol=1e-10)
    assert not v.requires_grad and not forward.requires_grad
    assert (forward[0] - forward[1]).abs().min() > 1e-2


def test_forward_mode_avoids_the_fused_attention_kernels():
    """They have no forward-mode derivative, and are what contiguous queries would get."""

    def field(t, x):
        return torch.nn.functional.scaled_dot_product_attention(x, 2 * x, x**2)

    x, probes, t = draw(19, 2, 1, 8, 4), draw(20, 3, 2, 1, 8, 4), torch.tensor(0.4)
    forward, reverse = (hutchinson_divergence(field, t, x, probes, mode)[1] for mode in ("forward", "reverse"))
    torch.testing.assert_close(forward, reverse, rtol=1e-10, atol=1e-10)


def test_the_divergence_of_a_network_with_attention_in_all_modes():
    field = velocity_field(unet(), OptimalTransport(), PREDICTIONS["velocity"])
    x, t = draw(16, 2, 1, 2, 4), torch.tensor(0.4, dtype=torch.float64)
    loop, vmap = (exact_divergence(field, t, x, mode)[1] for mode in ("loop", "vmap"))
    torch.testing.assert_close(vmap, loop, rtol=1e-10, atol=1e-10)
    basis = torch.eye(8, dtype=torch.float64).reshape(8, 1, 1, 2, 4).expand(8, 2, 1, 2, 4)
    for mode in ("reverse", "forward"):
        torch.testing.assert_close(hutchinson_divergence(field, t, x, basis, mode)[1].sum(0), loop, rtol=1e-10, atol=1e-10)


def test_forward_mode_of_a_field_that_does_not_depend_on_x():
    x = draw(17, 2, 3)
    v, estimates = hutchinson_divergence(lambda t, x: t * torch.ones_like(x), torch.tensor(0.3), x, draw(18, 4, 2, 3), "forward")
    assert torch.equal(v, torch.full((2, 3), 0.3).double())
    assert torch.equal(estimates, torch.zeros(4, 2, dtype=torch.float64))


@pytest.mark.parametrize("mode", ["loop", "vmap", "auto"])
def test_a_field_that_does_not_depend_on_x_has_no_divergence(mode):
    x = torch.randn(3, 5)
    v, divergence = exact_divergence(lambda t, x: torch.ones(3, 5), torch.tensor(0.5), x, mode)
    assert v.shape == x.shape and torch.equal(divergence, torch.zeros(3))
    for direction in ("reverse", "forward"):
        _, estimates = hutchinson_divergence(lambda t, x: torch.ones(3, 5), torch.tensor(0.5), x, torch.ones(2, 3, 5), direction)
        assert torch.equal(estimates, torch.zeros(2, 3))
