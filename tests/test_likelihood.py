import itertools
import math

import pytest
import torch
from torch import Tensor

from fmbench.fields import CountingField
from fmbench.likelihood import bits_per_dimension, gaussian_log_density, log_likelihood
from fmbench.paths import CosineVP, OptimalTransport, VarianceExploding, VariancePreserving
from fmbench.rng import indexed_rademacher
from fmbench.solvers.adaptive import dopri5

EVERY_PATH = [
    OptimalTransport(0.1),
    OptimalTransport(),
    VariancePreserving(),
    VarianceExploding(0.2, 5.0),
    VarianceExploding(),
    CosineVP(),
]
every_path = pytest.mark.parametrize("path", EVERY_PATH, ids=repr)
MEAN = torch.tensor([0.7, -1.2, 0.1, 0.4, -0.3, 2.0], dtype=torch.float64).reshape(1, 2, 3)
STD = torch.tensor([0.5, 1.5, 0.3, 0.8, 1.0, 0.6], dtype=torch.float64).reshape(1, 2, 3)
COVARIANCE = torch.tensor([[0.8, 0.3, -0.2], [0.3, 0.5, 0.1], [-0.2, 0.1, 0.4]], dtype=torch.float64)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def marginal(path, t) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of x_t for data N(MEAN, STD^2) coordinate by coordinate."""
    a, s, _, _ = path.coefficients(torch.as_tensor(t, dtype=torch.float64))
    return a * MEAN, torch.sqrt(a**2 * STD**2 + s**2)


def gaussian_field(path):
    """The marginal velocity of Gaussian data: E[a' x1 + s' x0 | x_t = x], by the regression of Gaussians."""

    def field(t: Tensor, x: Tensor) -> Tensor:
        a, s, da, ds = path.coefficients(t)
        gain = (da * a * STD**2 + ds * s) / (a**2 * STD**2 + s**2)
        return (da * MEAN + gain * (x - a * MEAN)).to(x.dtype)

    return field


def closed_form(path, x: Tensor) -> Tensor:
    """log density at t_max of the path's own base, N(0, base_std^2), carried along the Gaussian marginal field.

    The field maps x to m1 + (S1 / S0) (x - m0), whatever the base; on VP and VE the base is not quite the marginal at
    t = 0, and the difference is part of the model's likelihood.
    """
    (m0, S0), (m1, S1) = marginal(path, path.t_min), marginal(path, path.t_max)
    model = torch.distributions.Normal(m1 - S1 / S0 * m0, S1 / S0 * path.base_std)
    return model.log_prob(x).flatten(1).sum(1)


@every_path
def test_nll_of_gaussian_data(path):
    x = MEAN + STD * draw(0, 7, 1, 2, 3)
    result = log_likelihood(gaussian_field(path), x, path.t_min, path.t_max, base_std=path.base_std)
    assert not result.failed.any()
    torch.testing.assert_close(result.log_p, closed_form(path, x), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("path", "tolerance"), [(OptimalTransport(), 1e-3), (CosineVP(), 1e-3), (VariancePreserving(), 0.1)], ids=repr
)
def test_it_is_the_density_of_the_data(path, tolerance):
    """No base enters here. VP starts from N(0, I) where its marginal has 0.0066 times the mean of the data."""
    x = MEAN + STD * draw(1, 7, 1, 2, 3)
    result = log_likelihood(gaussian_field(path), x, path.t_min, path.t_max, base_std=path.base_std)
    expected = torch.distributions.Normal(MEAN, STD).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(result.log_p, expected, rtol=0, atol=tolerance)


@every_path
def test_one_rademacher_probe_is_exact_on_a_diagonal_field(path):
    x = MEAN + STD * draw(2, 5, 1, 2, 3)
    probes = indexed_rademacher(0, "probe", range(5), (1, 2, 3)).double()[None]
    arguments = gaussian_field(path), x, path.t_min, path.t_max
    estimate = log_likelihood(*arguments, base_std=path.base_std, probes=probes)
    exact = log_likelihood(*arguments, base_std=path.base_std)
    torch.testing.assert_close(estimate.log_p, closed_form(path, x), rtol=0, atol=1e-3)
    torch.testing.assert_close(estimate.log_p, exact.log_p, rtol=0, atol=1e-7)


def correlated_field(t: Tensor, x: Tensor) -> Tensor:
    """The marginal field of N(0, COVARIANCE) on the straight path: its Jacobian is not diagonal."""
    identity = torch.eye(3, dtype=torch.float64)
    variance = t**2 * COVARIANCE + (1 - t) ** 2 * identity
    gain = (t * COVARIANCE - (1 - t) * identity) @ torch.linalg.inv(variance)
    return x @ gain.T


def test_nll_of_correlated_data_and_of_every_probe():
    """The estimate is linear in z z^T, so its mean over all 2^3 signs is the exact value; a single one is not."""
    x = draw(3, 4, 3)
    expected = torch.distributions.MultivariateNormal(torch.zeros(3).double(), COVARIANCE).log_prob(x)
    exact = log_likelihood(correlated_field, x, 0.0, 1.0)
    torch.testing.assert_close(exact.log_p, expected, rtol=0, atol=1e-3)

    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)), dtype=torch.float64)
    probes = signs[:, None].expand(8, 4, 3)
    together = log_likelihood(correlated_field, x, 0.0, 1.0, probes=probes)
    torch.testing.assert_close(together.log_p, expected, rtol=0, atol=1e-3)
    singles = torch.stack([log_likelihood(correlated_field, x, 0.0, 1.0, probes=p[None]).log_p for p in probes])
    torch.testing.assert_close(singles.mean(0), expected, rtol=0, atol=1e-3)
    assert (singles - expected).abs().max(0).values.min() > 0.3


def test_a_nonlinear_flow_in_closed_form():
    """dx/dt = -x^3 / 2 pushes x0 to x1 = x0 / sqrt(1 + x0^2); the divergence depends on where the flow is."""

    def field(t, x):
        return -(x**3) / 2

    x1 = torch.tensor([[0.1, -0.5], [0.8, 0.3], [-0.9, 0.7]], dtype=torch.float64)
    x0 = x1 / torch.sqrt(1 - x1**2)
    log_slope = -1.5 * torch.log(1 - x1**2)
    expected = (-(x0**2) / 2 - 0.5 * math.log(2 * math.pi) + log_slope).sum(1)
    torch.testing.assert_close(log_likelihood(field, x1, 0.0, 1.0).log_p, expected, rtol=0, atol=1e-3)


def test_a_density_integrates_to_one():
    """Over the line, for a field with no closed form at hand."""

    def field(t, x):
        return torch.sin(2 * x) * torch.cos(3 * t) - 0.5 * x

    x = torch.linspace(-8, 8, 1601, dtype=torch.float64)[:, None]
    log_p = log_likelihood(field, x, 0.0, 1.0).log_p
    assert torch.trapezoid(log_p.exp(), x[:, 0]).item() == pytest.approx(1, abs=1e-4)


def test_tolerances_are_used():
    path, x = OptimalTransport(0.1), MEAN + STD * draw(4, 5, 1, 2, 3)
    errors, spent = [], []
    for tolerance in (1e-3, 1e-5, 1e-7):
        result = log_likelihood(gaussian_field(path), x, 0.0, 1.0, rtol=tolerance, atol=tolerance)
        errors.append((result.log_p - closed_form(path, x)).abs().max().item())
        spent.append(int(result.nfe[0]))
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert spent[0] < spent[1] < spent[2]


def test_nfe_of_the_joint_solve_is_counted_apart():
    """With the log density in the state the steps are others than for x alone."""
    path, x = OptimalTransport(), MEAN + STD * draw(5, 5, 1, 2, 3)
    field = CountingField(gaussian_field(path))
    result = log_likelihood(field, x, 0.0, 1.0, rtol=1e-7, atol=1e-7)
    assert result.nfe.tolist() == [field.calls] * 5
    alone = dopri5(gaussian_field(path), x, 1.0, 0.0, per_sample=False, rtol=1e-7, atol=1e-7)
    assert int(result.nfe[0]) != int(alone.nfe[0])


def test_float32_states_lose_little():
    path, x = OptimalTransport(), MEAN + STD * draw(6, 5, 1, 2, 3)
    result = log_likelihood(gaussian_field(path), x.float(), 0.0, 1.0)
    assert result.log_p.dtype == torch.float64
    torch.testing.assert_close(result.log_p, closed_form(path, x), rtol=0, atol=2e-3)


def test_a_field_gone_bad_is_flagged():
    result = log_likelihood(lambda t, x: x * math.nan, draw(7, 3, 2), 0.0, 1.0)
    assert result.failed.tolist() == [True] * 3


def test_gaussian_log_density():
    x = draw(8, 4, 5)
    expected = torch.distributions.Normal(0.0, 2.5).log_prob(x).sum(1)
    torch.testing.assert_close(gaussian_log_density(x, 2.5), expected)


@pytest.mark.parametrize(("levels", "offset"), [(256, 7.0), (2, 0.0), (17, math.log2(8.5))])
def test_the_offset_of_bits_per_dimension(levels, offset):
    assert float(bits_per_dimension(torch.zeros(1).double(), 10, levels)) == pytest.approx(offset, abs=1e-12)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_uniform_noise_costs_all_its_bits(levels):
    """The uniform density on [-1, 1]^D is 2^-D."""
    dimensions = 12
    log_p = torch.tensor([-dimensions * math.log(2)], dtype=torch.float64)
    assert float(bits_per_dimension(log_p, dimensions, levels)) == pytest.approx(math.log2(levels), rel=1e-12)


def test_bits_per_dimension_are_the_code_length_of_the_levels():
    """For a density constant on each of the bins of width 2 / levels, 2^-bits are the bins' probabilities."""
    probability = torch.tensor([0.1, 0.4, 0.2, 0.25, 0.05], dtype=torch.float64)
    density = probability / (2 / 5)
    bits = bits_per_dimension(density.log(), 1, 5)
    torch.testing.assert_close(2.0**-bits, probability)
    three_pixels = bits_per_dimension(density[:3].log().sum()[None], 3, 5)
    assert float(three_pixels) == pytest.approx(-math.log2(0.1 * 0.4 * 0.2) / 3, rel=1e-12)
