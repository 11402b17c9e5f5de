"""Every sampler on the exact field of a mixture: what its samples cost, and how near they come to the data."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fmbench.flow.fields import CountingField, Field
from fmbench.flow.paths import AffinePath
from fmbench.flow.prediction import VELOCITY
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.ddim import ddim
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import karras_grid
from fmbench.flow.solvers.stochastic import DIFFUSIONS, Churn, euler_maruyama, heun_churn
from fmbench.flow.solvers.tableaux import EULER, HEUN
from fmbench.flow.solvers.torchdiffeq import ADAPTIVE_METHODS, torchdiffeq_adaptive
from fmbench.metrics.points import energy_distance
from fmbench.stages.theory.problems import PATHS, mixture_2d
from fmbench.system.rng import generator

SAMPLES = 2000
STARTS = {"ot": 0.01, "vp": 0.0}
"""The time each path is sampled from. OT starts at 0.01, because a stochastic sampler cannot start where a = 0."""
BUDGETS = (6, 12, 24, 48, 96)
"""NFE of the samplers on a fixed grid."""


@dataclass(frozen=True)
class Sampler:
    """A sampler with its settings and its noise.

    Attributes:
        kind: ``ode`` or ``sde`` on a fixed grid, or ``adaptive``.
        solve: from a velocity field to samples at the end of the path, shape (SAMPLES, 2), float64.
    """

    name: str
    kind: str
    solve: Callable[[CountingField[Tensor]], Tensor]


def sampler_rows() -> Iterator[dict[str, Any]]:
    """The energy distance to the data and the measured NFE per sample, for every sampler and path.

    All samplers start from the same noise and have the same marginals in the limit of small steps: the deterministic ones follow
    the flow, the stochastic ones the equation of :mod:`fmbench.flow.solvers.stochastic`. ``floor`` is the root mean square
    distance of as many exact draws.
    """
    oracle = mixture_2d()
    exact = oracle.sample(SAMPLES, generator(0, "theory/samplers/exact")).numpy()
    redrawn = [oracle.sample(SAMPLES, generator(0, f"theory/samplers/floor/{k}")).numpy() for k in range(8)]
    floor = math.sqrt(sum(energy_distance(draw, exact) ** 2 for draw in redrawn) / len(redrawn))
    for name, start in STARTS.items():
        for sampler in samplers(PATHS[name], start):
            field = CountingField(partial(oracle.velocity, PATHS[name]), start, PATHS[name].t_max)
            distance = energy_distance(sampler.solve(field).numpy(), exact)
            columns = {"path": name, "sampler": sampler.name, "kind": sampler.kind, "nfe": field.evaluations / SAMPLES}
            yield columns | {"energy_distance": distance, "floor": floor, "n": SAMPLES}


def samplers(path: AffinePath, start: float) -> Iterator[Sampler]:
    """Every sampler on one path: those on a fixed grid at every budget, then the adaptive ones."""
    x0 = torch.randn(SAMPLES, 2, generator=generator(0, "theory/samplers/start"), dtype=torch.float64)
    for nfe in BUDGETS:
        one_each, two_each = (karras_grid(path, start, path.t_max, steps) for steps in (nfe, nfe // 2))
        yield from _on_grids(path, x0, one_each, two_each)
    for method in ADAPTIVE_METHODS:
        solve = partial(torchdiffeq_adaptive, x=x0, t0=start, t1=path.t_max, method=method, rtol=1e-5, atol=1e-5)
        yield Sampler(f"torchdiffeq {method}", "adaptive", solve)
    for per_sample, name in ((False, "dopri5, one step size"), (True, "dopri5, a step size per sample")):
        solve = partial(_dopri5, x=x0, t0=start, t1=path.t_max, rtol=1e-5, atol=1e-5, per_sample=per_sample)
        yield Sampler(name, "adaptive", solve)


def _dopri5(field: Field, **arguments: Any) -> Tensor:
    return dopri5(field, **arguments).x


def _on_grids(path: AffinePath, x0: Tensor, one_each: Tensor, two_each: Tensor) -> Iterator[Sampler]:
    """Samplers on a grid: those of one evaluation a step on ``one_each``, those of two on ``two_each``; the NFE is the same."""

    def noise(step: int) -> Tensor:
        return torch.randn(x0.shape, generator=generator(0, f"theory/samplers/noise/{step}"), dtype=torch.float64)

    # x' = x + h u(t, x)
    yield Sampler("Euler", "ode", lambda f: integrate(f, x0, one_each, EULER))
    # x' = a(t') x1 + s(t') x0, with the data x1 and the noise x0 that u(t, x) stands for
    yield Sampler("DDIM", "ode", lambda f: ddim(f, x0, one_each, path, VELOCITY))
    # x' = x + h (u(t, x) + u(t', x + h u(t, x))) / 2
    yield Sampler("Heun", "ode", lambda f: integrate(f, x0, two_each, HEUN))
    # The same for dz/dsigma = (z - x1(z)) / sigma, z = x / a, sigma = s / a (Karras et al. 2022, algorithm 2)
    yield Sampler("Heun in noise levels", "ode", lambda f: heun_churn(f, x0, two_each, path, noise))
    # With fresh noise before each step, which raises sigma by a factor 1 + churn / steps
    yield Sampler("Heun with churn", "sde", lambda f: heun_churn(f, x0, two_each, path, noise, Churn(0.2 * len(two_each))))
    # dx = (u + g^2 / 2 score) dt + g dW with g^2 = 2 s^2 (a'/a - s'/s), the reverse of the path's own diffusion
    yield Sampler("Euler-Maruyama, reverse SDE", "sde", lambda f: euler_maruyama(f, x0, one_each, path, noise))
    # The same with g^2 = 2 s
    two_sigma = DIFFUSIONS["two_sigma"]
    yield Sampler("Euler-Maruyama, g^2 = 2 s", "sde", lambda f: euler_maruyama(f, x0, one_each, path, noise, two_sigma))
