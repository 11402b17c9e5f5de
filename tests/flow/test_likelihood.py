import itertools
import math

import pytest
import torch
from draws import draw
from torch import Tensor

from fmbench.flow.fields import CountingField
from fmbench.flow.likelihood import (
    LogLikelihood,
    bits_per_dimension,
    gaussian_log_density,
    log_likelihood,
    log_mean_p,
    probe_bias,
)
from fmbench.flow.oracle import MixtureOracle
from fmbench.flow.paths import CosineVP, OptimalTransport, VarianceExploding, VariancePreserving
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.system.rng import indexed_rademacher

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
    torch.testing.assert_close(together.by_probe, singles, rtol=0, atol=1e-3)  # each probe has its own integral
    torch.testing.assert_close(together.probe_variance, singles.var(0) / 8, rtol=1e-2, atol=0)


def test_probes_in_forward_mode_are_the_same_probes():
    x, probes = draw(9, 4, 3), draw(10, 3, 4, 3)
    reverse, forward = (log_likelihood(correlated_field, x, 0.0, 1.0, probes=probes, mode=m) for m in ("reverse", "forward"))
    torch.testing.assert_close(forward.by_probe, reverse.by_probe, rtol=0, atol=1e-9)
    assert torch.equal(forward.nfe, reverse.nfe)
    assert (forward.probes, forward.by_probe.shape) == (3, (3, 4))


def test_the_variance_left_by_probes_is_that_of_many_of_them():
    """4000 sets of 4 Rademacher probes at one point: the mean of the estimate is the spread of log p over sets."""
    sets, each = 4000, 4
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)), dtype=torch.float64)
    x = draw(3, 1, 3)
    by_sign = log_likelihood(correlated_field, x, 0.0, 1.0, probes=signs[:, None]).by_probe[:, 0]
    chosen = torch.randint(8, (each, sets), generator=torch.Generator().manual_seed(0))
    results = LogLikelihood(by_sign[chosen], torch.zeros(sets), torch.zeros(sets), each)
    exact_variance = by_sign.var(correction=0) / each
    assert float(results.log_p.var()) == pytest.approx(float(exact_variance), rel=0.1)
    assert float(results.probe_variance.mean()) == pytest.approx(float(exact_variance), rel=0.1)


def test_the_variance_of_no_probe_and_of_one():
    x = draw(11, 4, 3)
    exact = log_likelihood(correlated_field, x, 0.0, 1.0)
    assert (exact.probes, exact.by_probe.shape) == (0, (1, 4))
    assert torch.equal(exact.probe_variance, torch.zeros(4, dtype=torch.float64))
    single = log_likelihood(correlated_field, x, 0.0, 1.0, probes=torch.ones(1, 4, 3).double())
    assert single.probes == 1
    assert single.probe_variance.isnan().all()


COVARIANCES = torch.tensor(
    [[[0.3, 0.1], [0.1, 0.2]], [[0.1, -0.05], [-0.05, 0.4]], [[0.2, 0.0], [0.0, 0.05]]], dtype=torch.float64
)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
MIXTURE = MixtureOracle(torch.tensor([[1.5, 0.5], [-1.0, 1.0], [0.0, -1.5]]), COVARIANCES, WEIGHTS)


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "autograd"])
@pytest.mark.parametrize(
    ("path", "tolerance"),
    [(OptimalTransport(0.0), 1e-3), (CosineVP(), 1e-3), (OptimalTransport(), 1e-3), (VariancePreserving(), 0.05)],
    ids=repr,
)
def test_nll_of_a_mixture(path, tolerance, closed):
    """The density of the data, through the oracle's field: in its closed form, and written plainly for autograd."""
    x = MIXTURE.sample(6, torch.Generator().manual_seed(0))
    components = torch.distributions.MultivariateNormal(MIXTURE.means, COVARIANCES)
    expected = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(WEIGHTS), components).log_prob(x)

    def field(t, x):
        a, s, da, ds = path.coefficients(t)
        variance = a**2 * COVARIANCES + s**2 * torch.eye(2)
        offset = x[:, None] - a * MIXTURE.means
        whitened = torch.linalg.solve(variance, offset[..., None])[..., 0]
        joint = -(offset * whitened).sum(2) / 2 - torch.logdet(variance) / 2 + WEIGHTS.log()
        gain = da * a * COVARIANCES + ds * s * torch.eye(2)
        own = da * MIXTURE.means + torch.einsum("kde,bke->bkd", gain, whitened)
        return (torch.softmax(joint, 1)[..., None] * own).sum(1)

    def oracle(t, x):
        return MIXTURE.velocity_and_divergence(path, t, x)

    result = log_likelihood(field, x, path.t_min, path.t_max, divergence=oracle if closed else None)
    assert result.probes == 0
    torch.testing.assert_close(result.log_p, expected, rtol=0, atol=tolerance)


def test_a_divergence_in_closed_form_takes_the_place_of_field_and_probes():
    x = draw(12, 3, 2)

    def never(t, x):
        raise AssertionError

    def oracle(t, x):
        return MIXTURE.velocity_and_divergence(OptimalTransport(), t, x)

    with_probes = log_likelihood(never, x, 0.0, 1.0, divergence=oracle, probes=torch.ones(4, 3, 2).double())
    alone = log_likelihood(never, x, 0.0, 1.0, divergence=oracle)
    assert torch.equal(with_probes.by_probe, alone.by_probe)
    assert (with_probes.probes, alone.by_probe.shape) == (0, (1, 3))


# Dequantisation draws.


def test_log_mean_p_is_the_log_of_a_mean():
    p = torch.tensor([[0.5, 1e-3], [0.1, 2e-3], [0.3, 4e-3]], dtype=torch.float64)
    torch.testing.assert_close(log_mean_p(p.log()), torch.tensor([0.3, 7e-3 / 3], dtype=torch.float64).log())
    torch.testing.assert_close(log_mean_p(p.log() - 5000), torch.tensor([0.3, 7e-3 / 3], dtype=torch.float64).log() - 5000)
    assert torch.equal(log_mean_p(p[:1].log()), p[0].log())


@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("draws", [1, 2, 5])
def test_probe_bias_is_what_noise_does_to_log_mean_p(spread, draws):
    """Against the mean over 200,000 antithetic pairs of noise, of another variance in each draw. What is left is of second order
    in the variance, below v^2, and the Monte Carlo error, 4 standard errors."""
    log_p = spread * draw(13, draws)
    variance = torch.linspace(0.01, 0.04, draws, dtype=torch.float64)
    noise = variance.sqrt()[:, None] * draw(14, draws, 200_000)
    clean = log_mean_p(log_p[:, None])
    rises = (log_mean_p(log_p[:, None] + noise) + log_mean_p(log_p[:, None] - noise)) / 2 - clean
    bias = probe_bias(log_p[:, None], variance[:, None])
    error = 4 * float(rises.std()) / 200_000**0.5 + float(variance.max() ** 2) / 8
    assert abs(float(rises.mean() - bias)) < error + 1e-12
    assert error < 0.1 * float(bias) or draws == 1 or spread == 3.0
    if draws == 1:
        assert float(bias) == 0


@pytest.mark.parametrize("spread", [0.0, 3.0])
@pytest.mark.parametrize("draws", [2, 20])
def test_probe_bias_is_a_least_value_where_the_noise_is_large(spread, draws):
    """As the stage takes it, of four noisy probes: right at 0.25 nat^2, too small at 9, where one probe does less than four times
    what four do. Errors are of 20,000 points."""
    found = {}
    for variance in (0.25, 9.0):
        clean = spread * draw(15, draws, 20_000)
        by_probe = clean[:, None] + (4 * variance) ** 0.5 * draw(16, draws, 4, 20_000)
        averaged = by_probe.mean(1)
        rise, rise_of_one = (log_mean_p(p) - log_mean_p(clean) for p in (averaged, by_probe[:, 0]))
        error = float(rise.std()) / 20_000**0.5 / float(rise.mean())
        share = float(probe_bias(averaged, by_probe.var(1) / 4).mean() / rise.mean())
        found[variance] = share, error, float(rise_of_one.mean() / rise.mean())
    share, error, times = found[0.25]
    assert abs(share - 1) < 0.04 + 4 * error and abs(times - 4) < 0.5 + 16 * error
    share, error, times = found[9.0]
    assert 0.6 < share < (0.8 if spread == 0 else 0.92) + 4 * error and times < 3.4


@pytest.mark.parametrize("draws", [1, 2, 20])
def test_probe_bias_of_equal_draws_is_the_formula_of_the_notes(draws):
    log_p, variance = torch.full((draws, 3), -7.0).double(), torch.full((draws, 3), 0.6).double()
    torch.testing.assert_close(probe_bias(log_p, variance), torch.full((3,), (1 - 1 / draws) * 0.3).double())


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
    """With the log density in its state, the solve takes other steps than for x alone."""
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


@pytest.mark.parametrize("probes", [None, torch.ones(2, 3, 2, dtype=torch.float64)], ids=["exact", "probes"])
def test_a_field_gone_bad_is_flagged(probes):
    result = log_likelihood(lambda t, x: x * math.nan, draw(7, 3, 2), 0.0, 1.0, probes=probes)
    assert result.failed.tolist() == [True] * 3


def test_a_field_that_blows_up_is_flagged():
    """Backwards from 2, dx/dt = -x^2 is gone after half the interval."""
    x = torch.full((3, 1), 2.0, dtype=torch.float64)
    assert log_likelihood(lambda t, x: -(x**2), x, 0.0, 1.0).failed.all()
    assert not log_likelihood(lambda t, x: -(x**2), x, 0.6, 1.0).failed.any()


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
