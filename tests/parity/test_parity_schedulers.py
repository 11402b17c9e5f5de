"""Parity with diffusers' schedulers on the same levels: DPM-Solver++, UniPC, DEIS, iPNDM, single-step DPM-Solver and EDM's Euler.

Intended differences, everywhere: their time runs from data to noise and their velocity is noise minus data; their levels are
float32, made float64 here before either runs; DPM-Solver++ works in float32 within a step, which a test of float64 lifts. They
lower the order at the end only below 15 steps (DPM-Solver++, DEIS), we where the setting says so.
"""

import itertools
import math
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from diffusers import (
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EDMEulerScheduler,
    IPNDMScheduler,
    UniPCMultistepScheduler,
)
from parity import draw
from torch import Tensor

from fmbench.flow.fields import CountingField
from fmbench.flow.general_paths import GeneralAffine, Rescaled
from fmbench.flow.paths import AffinePath, OptimalTransport
from fmbench.flow.prediction import EPSILON, VELOCITY, Prediction, V, X
from fmbench.flow.solvers.ddim import ddim
from fmbench.flow.solvers.dpm_solver import DPM_2S, DPM_3S, STEPS
from fmbench.flow.solvers.multistep import Multistep
from fmbench.flow.solvers.registry import MULTISTEP

HIGHEST = 40.0
LEVELS = torch.tensor([20.0, 11.0, 6.0, 4.0, 2.5, 1.2, 0.7, 0.3, 0.12, 0.05], dtype=torch.float64)
"""sigma = s / a, uneven in every clock."""
PREDICTIONS = {"epsilon": EPSILON, "sample": X, "v_prediction": V, "flow_prediction": VELOCITY}


def unit_variance() -> AffinePath:
    """diffusers' path: a = 1 / sqrt(1 + sigma^2), and sigma falls evenly."""
    exploding = GeneralAffine(torch.ones_like, lambda t: HIGHEST * (1 - t), noise_std=HIGHEST)
    return Rescaled(exploding, lambda t: 1 / torch.sqrt(1 + (HIGHEST * (1 - t)) ** 2))


def network(x: Tensor, level: float) -> Tensor:
    """A network's prediction: bounded, nonlinear, different at every level."""
    weights = torch.tensor([[0.9, -0.4], [0.3, 0.7]], dtype=x.dtype)
    return torch.tanh(x @ weights + level) * (1 + 0.5 * torch.cos(torch.tensor(7 * level))).to(x.dtype)


def theirs(scheduler, levels: Tensor, x: Tensor, flow: bool) -> Tensor:
    """diffusers' solve through the levels, with everything in the type of x. Their level of the straight path is s, not s / a."""
    scheduler.set_timesteps(len(levels) - 1)
    sigmas = levels / (1 + levels) if flow else levels
    scheduler.sigmas, scheduler.timesteps = sigmas.to(x.dtype), torch.arange(len(levels) - 1)
    scheduler.set_begin_index(0)
    for n, level in zip(scheduler.timesteps, levels.tolist(), strict=False):
        output = network(x, level)
        with mock.patch.object(torch, "float32", x.dtype):
            x = scheduler.step(-output if flow else output, n, x).prev_sample
    return x


def ours(method: Multistep, levels: Tensor, x: Tensor, path: AffinePath, prediction: Prediction) -> Tensor:
    grid = path.time_of_log_snr(-2 * levels.log())
    grid[levels == 0] = path.t_max
    field = CountingField(lambda t, y: network(y, float(torch.exp(-path.log_snr(t) / 2))))
    end = method.solve(field, x, grid, path, prediction)
    assert field.calls == len(levels) - 1
    return end


def agree(mine: Tensor, other: Tensor) -> None:
    tolerance = 1e-8 if mine.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


both_types = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
predictions = pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction", "flow_prediction"])
MULTISTEP_OF = {
    "dpmpp_2m": (DPMSolverMultistepScheduler, {"solver_order": 2, "solver_type": "midpoint"}),
    "dpmpp_3m": (DPMSolverMultistepScheduler, {"solver_order": 3}),
    "unipc2": (UniPCMultistepScheduler, {"solver_order": 2, "solver_type": "bh2"}),
    "unipc3": (UniPCMultistepScheduler, {"solver_order": 3, "solver_type": "bh2"}),
}
# diffusers' UniPC of full order has no finite step to level zero.
CASES = [
    c
    for c in itertools.product(MULTISTEP_OF, [True, False], [0.0, 0.02])
    if not (c[0].startswith("unipc") and c[1:] == (False, 0))
]


@both_types
@predictions
@pytest.mark.parametrize(("name", "lower", "last"), CASES)
def test_diffusers_methods_of_the_data_prediction(name, kind, lower, last, dtype):
    """On the straight path with flow levels, and on the path of unit variance. A step to level zero has order 1 in both."""
    make, options = MULTISTEP_OF[name]
    flow = kind == "flow_prediction"
    final = {"final_sigmas_type": "zero" if not last else "sigma_min"}
    scheduler = make(prediction_type=kind, lower_order_final=lower, use_flow_sigmas=flow, **options, **final)
    levels = torch.cat([LEVELS, torch.tensor([last], dtype=torch.float64)])
    path = OptimalTransport(0.0) if flow else unit_variance()
    x = draw(16, 2, dtype=dtype)
    mine = ours(replace(MULTISTEP[name], lower_order_final=lower), levels, x, path, PREDICTIONS[kind])
    agree(mine, theirs(scheduler, levels, x, flow))


def log_rho(x, m, at, to):
    """diffusers' DEIS of order 2: the noise is linear in log rho."""
    if len(m) == 1:
        return to.a * (x / at[0].a + (to.rho - at[0].rho) * m[0])

    def integral(rho, one, other):
        return rho * (np.log(rho) - 1 - np.log(other)) / (np.log(one) - np.log(other))

    b, c = at[0].rho, at[1].rho
    weights = [integral(to.rho, *pair) - integral(b, *pair) for pair in ((b, c), (c, b))]
    return to.a * (x / at[0].a + weights[0] * m[0] + weights[1] * m[1])


@predictions
def test_diffusers_deis(kind):
    """Intended difference: their polynomial is one in log rho, ours (tAB- and rhoAB-DEIS of the paper) in rho. With their formula
    the same loop gives their result. At order 1 both are DDIM."""
    flow = kind == "flow_prediction"
    levels = torch.cat([LEVELS, torch.tensor([0.02], dtype=torch.float64)])
    path, x = OptimalTransport(0.0) if flow else unit_variance(), draw(16, 2)
    options = {"prediction_type": kind, "use_flow_sigmas": flow, "lower_order_final": False}
    found = {order: theirs(DEISMultistepScheduler(solver_order=order, **options), levels, x, flow) for order in (1, 2)}
    first = ours(replace(MULTISTEP["deis2"], predictors=MULTISTEP["deis2"].predictors[:1]), levels, x, path, PREDICTIONS[kind])
    agree(first, found[1])
    agree(ours(Multistep(EPSILON, "rho", (log_rho, log_rho)), levels, x, path, PREDICTIONS[kind]), found[2])
    assert (ours(MULTISTEP["deis2"], levels, x, path, PREDICTIONS[kind]) - found[2]).abs().max() > 1e-3


def test_diffusers_ipndm():
    """Fixed weights, of order 4 from the fourth step on. Their network predicts v on the path of unit variance. Intended
    difference: where a = 0 they take a for 1e-8 and lose the predicted data. Our first step keeps them. Both start at a > 0."""
    scheduler, path = IPNDMScheduler(), unit_variance()
    scheduler.set_timesteps(len(LEVELS) - 1)
    scheduler.betas, scheduler.alphas = LEVELS / (1 + LEVELS**2).sqrt(), 1 / (1 + LEVELS**2).sqrt()
    scheduler.timesteps = torch.arange(len(LEVELS) - 1)
    scheduler.set_begin_index(0)
    x = other = draw(16, 2)
    for n, level in zip(scheduler.timesteps, LEVELS.tolist(), strict=False):
        other = scheduler.step(network(other, level), n, other).prev_sample
    agree(ours(MULTISTEP["ipndm"], LEVELS, x, path, V), other)


def their_third(eps, x, p, one, two, to):
    """diffusers' third order: to its second inner level it takes the step of second order."""
    h, h2 = to.lam - p.lam, two.lam - p.lam
    e = eps(p, x)
    u1 = one.a / p.a * x - one.s * math.expm1(one.lam - p.lam) * e
    u2 = two.a / p.a * x - two.s * math.expm1(h2) * eps(one, u1)
    return to.a / p.a * x - to.s * (math.expm1(h) * e + h / h2 * (math.expm1(h) / h - 1) * (eps(two, u2) - e))


@both_types
@pytest.mark.filterwarnings("ignore:.*dpmsolver:FutureWarning")
@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(("solver", "order"), [(DPM_2S, 2), (DPM_3S, 3)], ids=["dpm_2s", "dpm_3s"])
def test_diffusers_single_step_dpm_solver(solver, order, kind, dtype):
    """Intended differences: their inner evaluations are at levels of the grid, ours at fractions of a step in log(a / s).
    On levels equally spaced there these are the same. Their third order has another state at its second inner level than the
    paper's algorithm 2. With that state our loop gives their result."""
    levels = torch.logspace(1, -1, 4 * order + 1, dtype=torch.float64)
    options = {"solver_order": order, "algorithm_type": "dpmsolver", "prediction_type": kind, "lower_order_final": False}
    scheduler = DPMSolverSinglestepScheduler(**options, final_sigmas_type="sigma_min")
    path, x = unit_variance(), draw(16, 2, dtype=dtype)
    grid = path.time_of_log_snr(-2 * levels[::order].log())
    field = CountingField(lambda t, y: network(y, float(torch.exp(-path.log_snr(t) / 2))))
    with mock.patch.dict(STEPS, {3: their_third}):
        mine = solver.solve(field, x, grid, path, [order] * 4, PREDICTIONS[kind])
    assert field.calls == 4 * order
    agree(mine, theirs(scheduler, levels, x, flow=False))


@both_types
def test_edms_euler(dtype):
    """DDIM on EDM's path, a = 1. Intended differences: their network's input and output are scaled by c_in, c_skip and c_out
    (Karras et al. 2022, Table 1), and a step is in float32, which a test of float64 lifts."""
    scheduler = EDMEulerScheduler(sigma_min=0.002, sigma_max=20.0, sigma_data=0.5)
    scheduler.set_timesteps(12)
    levels = scheduler.sigmas.double()
    scheduler.sigmas = levels.to(dtype)
    x = other = levels[0].to(dtype) * draw(16, 2, dtype=dtype)
    with mock.patch.object(torch, "float32", dtype):
        for n, level in zip(scheduler.timesteps, levels.tolist(), strict=False):
            other = scheduler.step(network(scheduler.scale_model_input(other, n), level), n, other).prev_sample

    path = GeneralAffine(torch.ones_like, lambda t: HIGHEST * (1 - t), noise_std=HIGHEST)

    def data(t: Tensor, y: Tensor) -> Tensor:
        level = HIGHEST * (1 - float(t))
        total = level**2 + 0.5**2
        return 0.5**2 / total * y + 0.5 * level / total**0.5 * network(y / total**0.5, level)

    mine = ddim(data, x, 1 - levels / HIGHEST, path, X)
    tolerance = 1e-8 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance * float(levels[0]))
