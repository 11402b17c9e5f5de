"""Moments of stochastic samplers. On Gaussian data the field is linear, so a sampler is an affine map of its normal numbers: fed
with unit vectors it shows its mean and covariance without any Monte Carlo. On a mixture, samples are drawn."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from draws import draw
from torch import Tensor

from fmbench.flow.fields import CountingField
from fmbench.flow.general_paths import GeneralAffine, Rescaled
from fmbench.flow.oracle import MixtureOracle
from fmbench.flow.paths import CosineVP, OptimalTransport, VarianceExploding, VariancePreserving
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import karras_grid, log_snr_grid, uniform_grid
from fmbench.flow.solvers.stochastic import DIFFUSIONS, Churn, euler_maruyama, heun_churn
from fmbench.flow.solvers.tableaux import EULER

MEAN = torch.tensor([[1.0, -0.5]], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
GAUSSIAN = MixtureOracle(MEAN, COVARIANCE[None])
WEIGHTS = torch.tensor([0.7, 0.3], dtype=torch.float64)
MEANS = torch.tensor([[1.0, 0.5], [-1.2, -0.3]], dtype=torch.float64)
COVARIANCES = torch.tensor([[[0.15, 0.05], [0.05, 0.1]], [[0.1, -0.04], [-0.04, 0.2]]], dtype=torch.float64)
MIXTURE = MixtureOracle(MEANS, COVARIANCES, WEIGHTS)


def number(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)


def field_of(oracle, path):
    return lambda t, x: oracle.velocity(path, t, x)


def marginal(path, t: float, mean: Tensor = MEAN[0], covariance: Tensor = COVARIANCE) -> tuple[Tensor, Tensor]:
    a, s, _, _ = path.coefficients(number(t))
    return a * mean, a**2 * covariance + s**2 * torch.eye(2, dtype=torch.float64)


def never(k: int) -> Tensor:
    raise AssertionError(f"asked for noise at step {k}")


def moments(sampler, path, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance at the end, from normal numbers with the marginal's own moments at the start; the sampler is called as
    sampler(x=, noise=) with a row for the mean, one a coordinate of the start, and one a coordinate of each step's noise."""
    steps = len(grid) - 1
    mean, covariance = marginal(path, float(grid[0]))
    rows = 1 + 2 + 2 * steps
    start = mean.repeat(rows, 1)
    start[1:3] += torch.linalg.cholesky(covariance).T

    def noise(k: int) -> Tensor:
        z = torch.zeros(rows, 2, dtype=torch.float64)
        z[3 + 2 * k : 5 + 2 * k] = torch.eye(2, dtype=torch.float64)
        return z

    end = sampler(x=start, noise=noise)
    response = end[1:] - end[:1]
    return end[0], response.T @ response


def gap(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))


# Euler and Maruyama.

SETTINGS = [
    (OptimalTransport(0.0), "two_sigma", 0.0, 1.0),
    (OptimalTransport(0.1), "reverse_sde", 0.2, 1.0),
    (VariancePreserving(), "reverse_sde", 0.0, 1 - 1e-3),
    (VariancePreserving(), "two_sigma", 0.0, 1 - 1e-3),
    (CosineVP(), "reverse_sde", 0.2, 0.99),
    (CosineVP(), "two_sigma", 0.0, 0.99),
    (VarianceExploding(0.2, 5.0), "reverse_sde", 0.0, 1.0),
    (VarianceExploding(0.2, 5.0), "two_sigma", 0.0, 1.0),
    (Rescaled(VariancePreserving(), lambda t: 1 + t), "reverse_sde", 0.0, 0.95),
    (OptimalTransport(0.1), "none", 0.0, 1.0),
]


@pytest.mark.parametrize(("path", "name", "t0", "t1"), SETTINGS, ids=[f"{type(s[0]).__name__}-{s[1]}" for s in SETTINGS])
def test_euler_maruyama_has_the_moments_of_the_marginal_to_first_order(path, name, t0, t1):
    """Weak order 1: the error of mean and covariance falls with the step, and Richardson's extrapolation takes most of it away.
    With the score's sign or the noise's size wrong it would stay."""
    found, expected = [], marginal(path, t1)
    for steps in (80, 160):
        grid = uniform_grid(t0, t1, steps)
        sampler = partial(euler_maruyama, field_of(GAUSSIAN, path), grid=grid, path=path, diffusion=DIFFUSIONS[name])
        found.append(moments(sampler, path, grid))
    coarse, fine = (gap(f, expected) for f in found)
    extrapolated = gap(tuple(2 * b - a for a, b in zip(*found, strict=True)), expected)
    assert 1.6 < coarse / fine < 2.6
    assert fine < 0.2
    assert extrapolated < 0.25 * fine + 1e-4


def assert_moments_of_the_mixture(samples: Tensor) -> None:
    """Within 5 standard errors of the mean and covariance of the mixture, the errors estimated from the samples, and 0.01 for the
    steps; and as many in each component."""
    n = len(samples)
    mean = WEIGHTS @ MEANS
    covariance = torch.einsum("k,kde->de", WEIGHTS, COVARIANCES + MEANS[:, :, None] * MEANS[:, None]) - torch.outer(mean, mean)
    offset = samples - mean
    products = offset[:, :, None] * offset[:, None]
    for values, expected in ((samples, mean), (products, covariance)):
        assert ((values.mean(0) - expected).abs() < 5 * values.std(0) / math.sqrt(n) + 0.01).all()
    right = (samples[:, 0] > 0).double().mean()
    assert abs(float(right - 0.7)) < 5 * math.sqrt(0.7 * 0.3 / n) + 0.01


@pytest.mark.parametrize(
    ("path", "name", "t0"),
    [
        (OptimalTransport(0.01), "two_sigma", 0.0),
        (OptimalTransport(0.01), "none", 0.0),
        (VariancePreserving(), "reverse_sde", 0.0),
        (CosineVP(), "reverse_sde", 0.02),
        (CosineVP(), "two_sigma", 0.0),
    ],
    ids=lambda v: type(v).__name__ if not isinstance(v, str | float) else str(v),
)
def test_euler_maruyama_samples_a_mixture(path, name, t0):
    n, generator = 4000, torch.Generator().manual_seed(0)
    grid = log_snr_grid(path, t0, 0.998, 120) if t0 else uniform_grid(0, 0.998, 150)

    def noise(k: int) -> Tensor:
        return torch.randn(n, 2, generator=generator, dtype=torch.float64)

    start = MIXTURE.marginal_sample(path, float(grid[0]), n, generator)
    assert_moments_of_the_mixture(euler_maruyama(field_of(MIXTURE, path), start, grid, path, noise, DIFFUSIONS[name]))


@pytest.mark.parametrize("shape", [(4, 2), (3, 1, 2, 3)])
def test_without_diffusion_it_is_euler(shape):
    x, grid, path = draw(0, *shape), uniform_grid(0, 0.97, 30), CosineVP()

    def field(t, x):
        return torch.sin(2 * x) + (1 + t) * x.flip(-1)

    assert torch.equal(euler_maruyama(field, x, grid, path, never, DIFFUSIONS["none"]), integrate(field, x, grid, EULER))


def test_one_step_written_out():
    """x + h (u + g^2/2 score) + g sqrt(h) z, the score from the velocity: -(x0 read off u) / s, on (1, 2, 3) images."""
    path, grid = OptimalTransport(0.1), torch.tensor([0.3, 0.5], dtype=torch.float64)
    x, z = draw(1, 2, 4, 1, 2, 3)
    a, s = 0.3, 1 - 0.9 * 0.3

    def field(t, x):
        return torch.sin(2 * x) + t

    u = torch.sin(2 * x) + 0.3
    # x = a x1 + s x0 and u = x1 - 0.9 x0.
    score = -(x - a * u) / (s + 0.9 * a) / s
    for name, squared in (("two_sigma", 2 * s), ("reverse_sde", 2 * s * (s / a + 0.9))):
        expected = x + 0.2 * (u + squared / 2 * score) + math.sqrt(0.2 * squared) * z
        found = euler_maruyama(field, x, grid, path, lambda k: z, DIFFUSIONS[name])
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_reverse_sde_is_the_default_and_the_steps_are_numbered():
    path, grid, asked = VariancePreserving(), uniform_grid(0, 0.9, 4), []

    def noise(k: int) -> Tensor:
        asked.append(k)
        return draw(k, 3, 2)

    ends = [
        euler_maruyama(field_of(GAUSSIAN, path), draw(2, 3, 2), grid, path, noise, *g) for g in ((), (DIFFUSIONS["reverse_sde"],))
    ]
    assert torch.equal(*ends)
    assert asked == [0, 1, 2, 3, 0, 1, 2, 3]


def test_diffusions_in_closed_form():
    t = torch.tensor([[0.1, 0.5, 0.9], [0.2, 0.6, 0.99]], dtype=torch.float64)
    beta = 0.1 + (1 - t) * (20 - 0.1)
    torch.testing.assert_close(DIFFUSIONS["reverse_sde"](VariancePreserving(), t), beta, rtol=1e-9, atol=0)
    torch.testing.assert_close(DIFFUSIONS["two_sigma"](OptimalTransport(0.1), t), 2 * (1 - 0.9 * t), rtol=1e-12, atol=0)
    assert torch.equal(DIFFUSIONS["none"](VariancePreserving(), t), torch.zeros(2, 3, dtype=torch.float64))


def test_an_infinite_diffusion_is_refused_with_a_remedy():
    with pytest.raises(
        ValueError, match=r"infinite at t = 0; leave that time out of the grid, or take another diffusion \(two_sigma\)"
    ):
        euler_maruyama(never, draw(0, 1, 2), uniform_grid(0, 1, 5), OptimalTransport(), never)


def test_an_infinite_score_is_refused():
    """On a path that has no noise in the middle."""
    path = GeneralAffine(lambda t: 0.1 + t, lambda t: (t - 0.5) ** 2)
    with pytest.raises(ValueError, match=r"the score is infinite at t = 0\.5; leave that time out of the grid"):
        euler_maruyama(never, draw(0, 1, 2), uniform_grid(0, 1, 4), path, never, lambda path, t: torch.ones_like(t))


@pytest.mark.parametrize("sampler", [euler_maruyama, heun_churn])
@pytest.mark.parametrize("grid", [[0.9, 0.1], [0.1, 0.5, 0.5], [0.3]])
def test_grids_that_do_not_increase_are_refused(sampler, grid):
    with pytest.raises(ValueError, match="at least two times, and increase"):
        sampler(never, draw(0, 1, 2), torch.tensor(grid, dtype=torch.float64), VariancePreserving(), never)


def test_nfe_of_euler_maruyama():
    path, field = OptimalTransport(), CountingField(lambda t, x: -x)
    euler_maruyama(field, draw(3, 5, 2), uniform_grid(0.1, 1, 13), path, lambda k: draw(k, 5, 2))
    assert (field.calls, field.evaluations) == (13, 65)


# Heun's method with churn.


@pytest.mark.parametrize("churn", [0.0, 5.0])
def test_nfe_of_heun(churn):
    """Two evaluations a step, one for a last step to level zero."""
    for path, t1, nfe in ((OptimalTransport(0.0), 1.0, 25), (OptimalTransport(0.0), 0.9, 26), (OptimalTransport(), 1.0, 26)):
        field = CountingField(lambda t, x: -x)
        heun_churn(field, draw(3, 5, 2), uniform_grid(0.1, t1, 13), path, lambda k: draw(k, 5, 2), Churn(churn))
        assert (field.calls, field.evaluations) == (nfe, 5 * nfe)


@pytest.mark.parametrize(
    "path",
    [OptimalTransport(0.05), VariancePreserving(), VarianceExploding(0.2, 5.0), CosineVP()],
    ids=lambda p: type(p).__name__,
)
def test_without_churn_heun_is_of_order_two_to_the_flow(path):
    t0, t1 = 0.1, 0.9
    x = MIXTURE.marginal_sample(path, t0, 6, torch.Generator().manual_seed(0))
    flow = dopri5(field_of(MIXTURE, path), x, t0, t1, rtol=1e-9, atol=1e-9, per_sample=False).x
    counts = [16, 32, 64]
    errors = [
        float((heun_churn(field_of(MIXTURE, path), x, log_snr_grid(path, t0, t1, n), path, never) - flow).norm()) for n in counts
    ]
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] == pytest.approx(2, abs=0.25)


@pytest.mark.parametrize("churn", [0.0, 20.0])
@pytest.mark.parametrize(
    ("path", "t0", "t1"),
    [
        (OptimalTransport(0.0), 0.05, 1.0),
        (VariancePreserving(), 0.0, 1 - 1e-5),
        (VarianceExploding(0.02, 5.0), 0.0, 1.0),
        (CosineVP(), 0.05, 1.0),
        (Rescaled(VariancePreserving(), lambda t: 1 + t), 0.0, 0.98),
    ],
    ids=["ot", "vp", "ve", "cosine_vp", "rescaled"],
)
def test_heun_has_the_moments_of_the_marginal_to_second_order(path, t0, t1, churn):
    """With churn too: twice the steps leave a quarter of the error of mean and covariance."""
    gaps = []
    for steps in (60, 120):
        grid = karras_grid(path, t0, t1, steps)
        sampler = partial(heun_churn, field_of(GAUSSIAN, path), grid=grid, path=path, churn=Churn(churn))
        gaps.append(gap(moments(sampler, path, grid), marginal(path, t1)))
    assert 3 < gaps[0] / gaps[1] < 5
    assert gaps[1] < 0.01 * float(marginal(path, t1)[1].max()) / float(COVARIANCE.max())


@pytest.mark.parametrize("churn", [0.0, 20.0])
@pytest.mark.parametrize(("path", "t0"), [(OptimalTransport(0.0), 0.02), (VariancePreserving(), 0.0)], ids=["ot", "vp"])
def test_heun_samples_a_mixture(path, t0, churn):
    n, generator = 4000, torch.Generator().manual_seed(0)
    start = MIXTURE.marginal_sample(path, t0, n, generator)
    samples = heun_churn(
        field_of(MIXTURE, path),
        start,
        karras_grid(path, t0, path.t_max, 60),
        path,
        lambda k: torch.randn(n, 2, generator=generator, dtype=torch.float64),
        Churn(churn),
    )
    assert_moments_of_the_mixture(samples)


VARIANCE = 0.6


@pytest.mark.parametrize(
    ("settings", "gamma", "scale"),
    [
        ({"amount": 0.0}, 0.0, 1.0),
        ({"amount": 0.2}, 0.2, 1.0),
        ({"amount": 0.4}, 0.4, 1.0),
        ({"amount": 5.0}, math.sqrt(2) - 1, 1.0),
        ({"amount": 0.2, "noise_scale": 1.007}, 0.2, 1.007),
        ({"amount": 0.2, "level_min": 1.49, "level_max": 1.51}, 0.2, 1.0),
        ({"amount": 0.2, "level_min": 1.51}, 0.0, 1.0),
        ({"amount": 0.2, "level_max": 1.49}, 0.0, 1.0),
    ],
)
def test_a_step_to_level_zero_in_closed_form(settings, gamma, scale):
    """From level 1.5 on the straight path, on N(0, v): raised to sigma = 1.5 (1 + gamma), the noise has standard deviation
    S sqrt(sigma^2 - 1.5^2), and Euler's step to zero ends at E[x1 | z] = v / (v + sigma^2) z. Images of shape (1, 2, 3)."""
    path, x, n = OptimalTransport(0.0), draw(4, 3, 1, 2, 3), draw(5, 3, 1, 2, 3)

    def field(t, x):
        a, s, da, ds = path.coefficients(t)
        return (da * a * VARIANCE + ds * s) / (a**2 * VARIANCE + s**2) * x

    found = heun_churn(field, x, torch.tensor([0.4, 1.0], dtype=torch.float64), path, lambda k: n, Churn(**settings))
    sigma = 1.5 * (1 + gamma)
    z = x / 0.4 + scale * math.sqrt(sigma**2 - 1.5**2) * n
    torch.testing.assert_close(found, VARIANCE / (VARIANCE + sigma**2) * z, rtol=1e-9, atol=1e-9)


def test_churn_is_spread_over_the_steps():
    """Of 8 steps each raises the level by 1 + 4/8, held to sqrt(2), or by 1 + 1/8: seen in the times the field is asked at."""
    path, grid, times = OptimalTransport(0.0), uniform_grid(0.2, 0.9, 8), []
    for churn in (4.0, 1.0):
        times.clear()
        heun_churn(lambda t, x: times.append(t) or -x, draw(6, 2, 2), grid, path, lambda k: draw(k, 2, 2), Churn(churn))
        level = (1 - grid[:-1]) / grid[:-1] * min(1 + churn / 8, math.sqrt(2))
        torch.testing.assert_close(torch.stack(times[::2]), 1 / (1 + level), rtol=0, atol=1e-12)
        torch.testing.assert_close(torch.stack(times[1::2]), grid[1:], rtol=0, atol=1e-15)


def test_no_level_is_noisier_than_the_paths_first():
    """At VP's start there is nowhere to raise the level to, so the noise of that step stays out."""
    path, times = VariancePreserving(), []
    grid, x = uniform_grid(0, 0.9, 1), draw(7, 4, 2)

    def field(t, x):
        times.append(float(t))
        return GAUSSIAN.velocity(path, t, x)

    churned = heun_churn(field, x, grid, path, lambda k: draw(8, 4, 2), Churn(1.0))
    plain = heun_churn(field, x, grid, path, never)
    torch.testing.assert_close(churned, plain, rtol=0, atol=1e-5)
    assert min(times) >= -1e-12


def test_negative_churn_is_refused():
    with pytest.raises(ValueError, match="churn must not be negative, not -1"):
        Churn(-1.0)


@pytest.mark.parametrize("sampler", [euler_maruyama, heun_churn])
def test_float32_stays_float32(sampler):
    path, x = VariancePreserving(), draw(9, 4, 2)
    grid = uniform_grid(0, 0.9, 20)
    end = sampler(field_of(GAUSSIAN, path), x.float(), grid, path, lambda k: draw(k, 4, 2))
    assert end.dtype == torch.float32
    double = sampler(field_of(GAUSSIAN, path), x, grid, path, lambda k: draw(k, 4, 2))
    torch.testing.assert_close(end.double(), double, rtol=1e-3, atol=1e-3)


def test_where_there_is_no_noise_no_score_is_needed():
    path = GeneralAffine(lambda t: 0.1 + t, lambda t: (t - 0.5) ** 2)
    x = euler_maruyama(
        lambda t, x: -x, torch.ones(1, 2), torch.tensor([0.5, 0.75]).double(), path, never, DIFFUSIONS["two_sigma"]
    )
    assert torch.allclose(x, torch.full((1, 2), 0.75))


def test_levels_that_leave_no_churn_are_refused():
    with pytest.raises(ValueError, match="level_min must be below level_max"):
        Churn(1.0, level_min=2.0, level_max=1.0)
