"""Where samplers agree to rounding and where they do not: DDIM and Euler, DDIM's forms, rescaled paths, second order.

Notation: x_t = a(t) x1 + s(t) x0, with noise x0 and data x1. All runs are float64. "Rounding" and "different" are judged by the
largest difference relative to the largest component of the samples.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fmbench.flow.broadcast import expand_to
from fmbench.flow.fields import Field, velocity_field
from fmbench.flow.general_paths import Rescaled
from fmbench.flow.paths import AffinePath, OptimalTransport
from fmbench.flow.prediction import EPSILON, PREDICTIONS, VELOCITY, X
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.ddim import FORMS, ddim
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import uniform_grid
from fmbench.flow.solvers.tableaux import EULER, HEUN
from fmbench.networks.mlp import MLP
from fmbench.stages.theory.problems import PATHS, mixture_2d
from fmbench.system.rng import generator

ROUNDING = 1e-9
"""Relative differences below this are rounding."""
DIFFERENT = 1e-6
"""Relative differences above this are real."""
STEPS = 20
ERROR_STEPS = (5, 10, 20, 40, 80)
PLAIN = {name: prediction for name, prediction in PREDICTIONS.items() if prediction.inputs is None}
"""The predictions of networks that are given x_t and t as they are."""
SCHEDULES: dict[str, AffinePath] = {"straight": OptimalTransport(0.0), **PATHS}


@dataclass(frozen=True)
class Case:
    """One comparison: the first columns of a row."""

    check: str
    schedule: str
    prediction: str
    form: str
    order: int = 1
    steps: int = STEPS


def equivalence_rows() -> Iterator[dict[str, Any]]:
    yield from ddim_against_euler()
    yield from forms_of_ddim()
    yield from rescaling()
    yield from second_order()


def ddim_against_euler() -> Iterator[dict[str, Any]]:
    """DDIM against Euler on the velocity, for every schedule and prediction: the same where a and s are linear in t."""
    network = untrained_network()
    for schedule, path in SCHEDULES.items():
        x, grid = _start_and_grid(path)
        for name, prediction in PLAIN.items():
            by_ddim = ddim(network, x, grid, path, prediction)
            by_euler = integrate(velocity_field(network, path, prediction), x, grid, EULER)
            expected = "rounding" if isinstance(path, OptimalTransport) else "different"
            yield _row(Case("DDIM = Euler on the velocity", schedule, name, "plain"), by_ddim, by_euler, expected)


def forms_of_ddim() -> Iterator[dict[str, Any]]:
    """The three reparametrised forms of DDIM against its plain update: the same at order 1."""
    network = untrained_network()
    for schedule, path in SCHEDULES.items():
        x, grid = _start_and_grid(path)
        for name, prediction in PLAIN.items():
            plain = ddim(network, x, grid, path, prediction)
            for form in FORMS[1:]:
                other = ddim(network, x, grid, path, prediction, form)
                yield _row(Case("forms of DDIM agree", schedule, name, form), other, plain, "rounding")


def rescaling() -> Iterator[dict[str, Any]]:
    """Sampling on a path against sampling on c(t) times that path with the same network: DDIM agrees, Euler does not.

    The factor is c(t) = exp(1.5 t). ``vp as ve`` has c = 1 / a on the VP path, which gives the VE schedule of the same noise
    levels.
    """
    factors: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
        **{name: (name, lambda t: torch.exp(1.5 * t)) for name in SCHEDULES},
        "vp as ve": ("vp", lambda t: 1 / PATHS["vp"].coefficients(t).a),
    }
    network = untrained_network()
    for name, (schedule, factor) in factors.items():
        path = SCHEDULES[schedule]
        rescaled = Rescaled(path, factor)
        rescaled_network = _at_the_original_scale(network, factor)
        x, grid = _start_and_grid(path)
        c_start, c_end = float(factor(grid[0])), float(factor(grid[-1]))
        for prediction in (EPSILON, X):
            here = ddim(network, x, grid, path, prediction)
            there = ddim(rescaled_network, c_start * x, grid, rescaled, prediction) / c_end
            yield _row(Case("DDIM under rescaling", name, prediction.name, "plain"), there, here, "rounding")
            here = integrate(velocity_field(network, path, prediction), x, grid, EULER)
            there = integrate(velocity_field(rescaled_network, rescaled, prediction), c_start * x, grid, EULER) / c_end
            yield _row(Case("Euler under rescaling", name, prediction.name, ""), there, here, "different")


def _at_the_original_scale(network: Field, factor: Callable[[Tensor], Tensor]) -> Field:
    return lambda t, y: network(t, y / expand_to(factor(t), y))


def second_order() -> Iterator[dict[str, Any]]:
    """Each form's error against the exact flow over the number of steps, and how the forms differ at second order.

    The field is the exact one of a mixture, so that an error is the solver's alone.
    """
    oracle = mixture_2d()
    for schedule in ("straight", "vp", "cosine_vp"):
        path = SCHEDULES[schedule]
        field = partial(oracle.velocity, path)
        x, grid = _start_and_grid(path)
        start, end = float(grid[0]), float(grid[-1])
        exact = dopri5(field, x, start, end, rtol=1e-11, atol=1e-11).x
        for steps in ERROR_STEPS:
            times = uniform_grid(start, end, steps)
            for order in (1, 2):
                ends = {form: ddim(field, x, times, path, VELOCITY, form, order) for form in FORMS[1:]}
                ends["velocity"] = integrate(field, x, times, EULER if order == 1 else HEUN)
                for form, samples in ends.items():
                    # An error is only reported; nothing is expected of it.
                    yield _row(Case("error", schedule, "exact", form, order, steps), samples, exact, "") | {"found": ""}
                    if form != "u" and order == 2 and steps == STEPS:
                        expected = "rounding" if form == "velocity" and schedule == "straight" else "different"
                        case = Case("second order against form u", schedule, "exact", form, order)
                        yield _row(case, samples, ends["u"], expected)


def untrained_network() -> Field:
    """A network with its initial weights, float64. The comparisons hold whatever a network predicts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(0, "theory/network").initial_seed())
        network = MLP((2,), width=64, depth=2).double().requires_grad_(False)
    return lambda t, x: 4 * network(t.to(x.dtype).expand(x.shape[0]), x)


def _start_and_grid(path: AffinePath) -> tuple[Tensor, Tensor]:
    """64 starting points and a grid that stays 5 % off both ends, where some form or prediction is undefined on some path."""
    x = torch.randn(64, 2, generator=generator(0, "theory/equivalence"), dtype=torch.float64)
    span = path.t_max - path.t_min
    grid = uniform_grid(path.t_min + 0.05 * span, path.t_max - 0.05 * span, STEPS)
    c = path.coefficients(grid[0])
    return (c.a**2 + c.s**2).sqrt() * x, grid


def _row(case: Case, samples: Tensor, reference: Tensor, expected: str) -> dict[str, Any]:
    difference, scale = float((samples - reference).abs().max()), float(reference.abs().max())
    relative = difference / scale
    found = "rounding" if relative < ROUNDING else "different" if relative > DIFFERENT else "between"
    return asdict(case) | {"max_difference": difference, "scale": scale, "expected": expected, "found": found}
