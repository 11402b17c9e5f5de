"""The stochastic samplers that a config names: what they are without noise, EDM's own sampler, and the ends of a path."""

import math
from functools import partial
from inspect import signature
from itertools import pairwise

import pytest
import torch
from draws import draw
from test_stochastic import GAUSSIAN, MIXTURE, assert_moments_of_the_mixture, field_of, gap, marginal, moments, never
from torch import Tensor

from fmbench.config import names
from fmbench.flow.fields import CountingField
from fmbench.flow.paths import CosineVP, OptimalTransport, VarianceExploding, VariancePreserving
from fmbench.flow.prediction import VELOCITY, X, convert
from fmbench.flow.solvers.ddim import ddim
from fmbench.flow.solvers.edm_heun import edm_heun
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import GRIDS, karras_grid, uniform_grid
from fmbench.flow.solvers.stochastic import DIFFUSIONS, Churn, ddim_churn, euler_maruyama, heun_churn, scaled
from fmbench.flow.solvers.stochastic_registry import STOCHASTIC, stochastic_solver
from fmbench.flow.solvers.tableaux import EULER

PATHS = [OptimalTransport(0.0), OptimalTransport(), VariancePreserving(), VarianceExploding(0.02, 5.0), CosineVP()]
every_path = pytest.mark.parametrize("path", PATHS, ids=repr)
ENDS = {repr(PATHS[0]): (1, 1), repr(PATHS[1]): (1, 0), repr(PATHS[4]): (1, 1)}
"""Whether a path starts where a = 0, and ends where s = 0."""


def wavy(t: Tensor, x: Tensor) -> Tensor:
    return (torch.sin(2 * x) + (1 + t) * x.flip(-1)).to(x)


def test_their_names_costs_and_options_are_those_of_the_config():
    assert {name: cost for name, (_, cost) in STOCHASTIC.items()} == names.STOCHASTIC_SOLVERS
    for name, (make, _) in STOCHASTIC.items():
        assert set(signature(make).parameters) == set(names.STOCHASTIC_OPTIONS[name]) <= set(names.SAMPLER_OPTIONS)


@every_path
@pytest.mark.parametrize("grid", ["uniform", "karras"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_noise_each_is_its_deterministic_solver_to_the_bit(path, grid, dtype):
    times = GRIDS[grid](path, path.t_min, path.t_max, 6)
    x = path.base_std * draw(1, 3, 1, 2, 2).to(dtype)
    solve = {
        "churn": lambda: edm_heun(wavy, x, times, path),
        "churn_ddim": lambda: ddim(wavy, x, times, path, VELOCITY),
        "euler_maruyama": lambda: integrate(wavy, x, times, EULER),
    }
    for name, deterministic in solve.items():
        options = {"noise": 0.0} if name == "euler_maruyama" else {"churn": 0.0}
        sampler = stochastic_solver(name, options, never)
        found = sampler.spend(6 * sampler.cost, wavy, x, lambda steps: times, path)
        assert found.dtype == dtype and torch.equal(found, deterministic())


def edm_sampler(denoiser, x: Tensor, sigmas: list[float], noise, churn: Churn, heun: bool) -> Tensor:
    """Algorithm 2 of Karras et al. 2022 in their own variables, for levels that end at zero."""
    steps = len(sigmas) - 1
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        gamma = min(churn.amount / steps, math.sqrt(2) - 1) if churn.level_min <= sigma <= churn.level_max else 0.0
        hat = sigma + gamma * sigma
        x_hat = x + math.sqrt(hat**2 - sigma**2) * churn.noise_scale * noise(i)
        d = (x_hat - denoiser(x_hat, hat)) / hat
        x = x_hat + (following - hat) * d
        if heun and following:
            x = x_hat + (following - hat) * (d + (x - denoiser(x, following)) / following) / 2
    return x


@pytest.mark.parametrize(
    "churn",
    [Churn(0.0), Churn(2.0), Churn(40.0, 0.05, 50.0, 1.003), Churn(1e3, noise_scale=0.9)],
    ids=["none", "some", "as_published", "most"],
)
@pytest.mark.parametrize("path", [OptimalTransport(0.0), CosineVP()], ids=repr)
def test_they_are_edms_own_sampler_by_formula(path, churn):
    """On levels from 60 to 0, with a network that is nonlinear in the state and the level."""
    sigmas = [60.0, 20.0, 6.0, 1.5, 0.4, 0.03, 0.0]
    levels = torch.tensor(sigmas[:-1], dtype=torch.float64)
    grid = torch.cat([path.time_of_log_snr(-2 * levels.log()), torch.ones(1, dtype=torch.float64)])
    z, fresh = 60 * draw(2, 5, 2), [draw(10 + k, 5, 2) for k in range(6)]

    def denoiser(z: Tensor, sigma: float) -> Tensor:
        return torch.tanh(z.flip(-1) / math.sqrt(1 + sigma**2) + 0.3 * math.log(sigma))

    def field(t: Tensor, x: Tensor) -> Tensor:
        c = path.coefficients(t)
        return convert(denoiser(x / c.a, float(c.s / c.a)), x, t, path, X, VELOCITY)

    start = float(path.coefficients(grid[0]).a) * z
    for heun, sampler in ((True, heun_churn), (False, ddim_churn)):
        expected = edm_sampler(denoiser, z, sigmas, fresh.__getitem__, churn, heun)
        found = sampler(field, start, grid, path, fresh.__getitem__, churn)
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@every_path
@pytest.mark.parametrize("name", STOCHASTIC)
def test_nfe_is_counted_exactly_from_end_to_end(name, path):
    """EDM's costs one evaluation less for each end where a level is infinite or zero, as its deterministic sampler does."""
    options = {} if name == "euler_maruyama" else {"churn": 5.0}
    asked: list[int] = []

    def noise(k: int) -> Tensor:
        asked.append(k)
        return draw(k, 4, 2)

    sampler = stochastic_solver(name, options, noise)
    field = CountingField(field_of(GAUSSIAN, path), path.t_min, path.t_max)
    end = sampler.spend(12, field, path.base_std * draw(3, 4, 2), lambda steps: uniform_grid(path.t_min, path.t_max, steps), path)
    starts, ends = ENDS.get(repr(path), (0, 0))
    nfe = 12 - (starts + ends) * (name == "churn")
    assert (field.calls, field.evaluations) == (nfe, 4 * nfe)
    assert end.isfinite().all()
    # Noise is asked for in every step, but for EDM's in the first where there is nothing noisier.
    assert asked == list(range(name != "euler_maruyama", 12 // sampler.cost))
    with pytest.raises(ValueError, match="cannot spend exactly 0"):
        sampler.spend(0, field, draw(3, 4, 2), lambda steps: uniform_grid(0, 1, steps), path)


def test_noise_alone_is_not_churned():
    """A first step from a = 0 is DDIM's; noise is asked for from the second step on."""
    path, grid, x = OptimalTransport(0.0), uniform_grid(0, 1, 3), draw(4, 4, 2)
    fresh = [draw(5 + k, 4, 2) for k in range(3)]
    end = heun_churn(wavy, x, grid, path, lambda k: fresh[k] if k else never(k), Churn(1.0))
    first = ddim(wavy, x, grid[:2], path, VELOCITY)
    assert torch.equal(end, heun_churn(wavy, first, grid[1:], path, lambda k: fresh[k + 1], Churn(2 / 3)))


@pytest.mark.parametrize(
    ("path", "name", "t1", "scale"),
    [
        (OptimalTransport(0.0), "two_sigma", 1.0, 0.5),
        (OptimalTransport(0.0), "two_sigma", 1.0, 1.4),
        (VariancePreserving(), "reverse_sde", 1 - 1e-3, 0.5),
        (OptimalTransport(0.05), "reverse_sde", 1.0, 1.0),
        (OptimalTransport(0.05), "reverse_sde", 1.0, 1.4),
        (CosineVP(), "reverse_sde", 0.99, 1.0),
    ],
    ids=str,
)
def test_any_scale_of_the_noise_keeps_the_moments_to_weak_order_one(path, name, t1, scale):
    """From the very start of the path, also where g^2 is infinite: the first step has no noise there."""
    gaps = []
    for steps in (80, 160, 320):
        grid = uniform_grid(path.t_min, t1, steps)
        sampler = partial(
            euler_maruyama, field_of(GAUSSIAN, path), grid=grid, path=path, diffusion=scaled(DIFFUSIONS[name], scale)
        )
        gaps.append(gap(moments(sampler, path, grid), marginal(path, t1)))
    assert gaps[2] < 0.1
    for coarse, fine in pairwise(gaps):
        assert 1.6 < coarse / fine < 2.6


@pytest.mark.parametrize("name", ["churn", "churn_ddim"])
@pytest.mark.parametrize("path", [OptimalTransport(0.0), CosineVP()], ids=repr)
def test_churn_from_noise_alone_keeps_the_moments(name, path):
    """The order of EDM's sampler, 2 or 1, from a = 0 to s = 0 on EDM's grid."""
    gaps = []
    for steps in (60, 120):
        grid = karras_grid(path, 0.0, 1.0, steps)

        def sampler(x: Tensor, noise, grid: Tensor = grid) -> Tensor:
            return stochastic_solver(name, {"churn": 20.0}, noise).spend(
                len(grid[1:]) * names.STOCHASTIC_SOLVERS[name], field_of(GAUSSIAN, path), x, lambda n: grid, path
            )

        gaps.append(gap(moments(sampler, path, grid), marginal(path, 1.0)))
    assert gaps[1] < 0.1
    low, high = (1.5, 2.6) if name == "churn_ddim" else (2.5, 5.5)
    assert low < gaps[0] / gaps[1] < high


def test_a_mixture_is_sampled_by_each():
    """The mean and covariance of 4000 samples, from noise to data."""
    n, path, generator = 4000, OptimalTransport(0.0), torch.Generator().manual_seed(0)

    def noise(k: int) -> Tensor:
        return torch.randn(n, 2, generator=generator, dtype=torch.float64)

    for name, options in (("euler_maruyama", {}), ("churn", {"churn": 20.0}), ("churn_ddim", {"churn": 5.0})):
        sampler = stochastic_solver(name, options, noise)
        end = sampler.spend(300, field_of(MIXTURE, path), noise(0), lambda steps: uniform_grid(0, 1, steps), path)
        assert_moments_of_the_mixture(end)
