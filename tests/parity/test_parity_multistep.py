"""Parity with diffusers' multistep schedulers on the same levels: DPM-Solver++, UniPC, DEIS and iPNDM.

Intended differences, everywhere: their time runs from data to noise and their velocity is noise minus data; their levels are
float32, made float64 here before either runs; DPM-Solver++ works in float32 within a step, which a test of float64 lifts. They
lower the order at the end only below 15 steps (DPM-Solver++, DEIS), we where the setting says so.
"""

import itertools
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from diffusers import (
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    IPNDMScheduler,
    UniPCMultistepScheduler,
)
from parity import draw
from torch import Tensor

from fmbench.flow.fields import CountingField
from fmbench.flow.general_paths import GeneralAffine, Rescaled
from fmbench.flow.paths import AffinePath, OptimalTransport
from fmbench.flow.prediction import EPSILON, VELOCITY, Prediction, V, X
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
