"""Parity with diffusers: DDIM on a table of noise levels, flow matching, and samplers in noise levels."""

import math

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
)
from parity import draw, every_dtype, same, times
from torch import Tensor

from fmbench.flow.fields import CountingField, velocity_field
from fmbench.flow.general_paths import GeneralAffine, Rescaled
from fmbench.flow.paths import AffinePath, Coefficients, CosineVP, OptimalTransport
from fmbench.flow.prediction import EPSILON, VELOCITY, V, X, convert
from fmbench.flow.solvers.ddim import ddim
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import karras_grid, log_snr_grid
from fmbench.flow.solvers.stochastic import heun_churn
from fmbench.flow.solvers.tableaux import EULER

TRAIN = 1000


class Table(AffinePath):
    """diffusers' discrete path: a^2 is alphas_cumprod, s^2 the rest; step n is our time 1 - (n + 1) / TRAIN, data after step 0.

    Without derivatives, which DDIM must not need: they are NaN.
    """

    def __init__(self, alphas_cumprod: Tensor, final: Tensor) -> None:
        self.squares = torch.cat([final.reshape(1), alphas_cumprod]).double()

    def coefficients(self, t: Tensor) -> Coefficients:
        squares = self.squares[torch.round((1 - t) * TRAIN).long()]
        missing = torch.full_like(squares, torch.nan)
        return Coefficients(squares.sqrt(), (1 - squares).sqrt(), missing, missing)


def network(x: Tensor, level: float) -> Tensor:
    """A network's prediction: bounded, nonlinear, different at every level."""
    weights = torch.tensor([[0.9, -0.4], [0.3, 0.7]], dtype=x.dtype)
    return torch.tanh(x @ weights + level) * (1 + 0.5 * math.cos(7 * level))


@every_dtype
@pytest.mark.parametrize("steps_offset", [0, 1])
@pytest.mark.parametrize("to_one", [True, False], ids=["set_alpha_to_one", "last alpha"])
@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize(
    ("prediction_type", "prediction"), [("epsilon", EPSILON), ("sample", X), ("v_prediction", V)], ids=["epsilon", "sample", "v"]
)
def test_diffusers_ddim(prediction_type, prediction, schedule, to_one, steps_offset, dtype):
    """eta 0 and no clipping. v is alpha eps - sigma x0 here and there. Intended differences: time runs the other way; their table
    is in float32, and in the float64 comparison is made float64 first; without set_alpha_to_one their last step ends at step 0's
    level, and does nothing when it starts there (steps_offset 0), as ours does on a grid with one level twice."""
    scheduler = DDIMScheduler(
        num_train_timesteps=TRAIN,
        beta_schedule=schedule,
        beta_end=0.01,  # ends at a = 0.08: a conversion divides by it, in any library, and float32 has to bear that
        clip_sample=False,
        set_alpha_to_one=to_one,
        steps_offset=steps_offset,
        prediction_type=prediction_type,
    )
    if schedule != "linear":  # their cosine ends at a = 5e-5
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.clamp(min=1e-2)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.to(dtype)
    scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.to(dtype)
    scheduler.set_timesteps(20)
    x = theirs = draw(16, 2, dtype=dtype)
    for n in scheduler.timesteps.tolist():
        theirs = scheduler.step(network(theirs, n / TRAIN), n, theirs, eta=0.0).prev_sample

    path = Table(scheduler.alphas_cumprod, scheduler.final_alpha_cumprod)
    steps = torch.tensor([*scheduler.timesteps.tolist(), -1], dtype=torch.float64)
    grid = 1 - (steps + 1) / TRAIN
    field = CountingField(lambda t, y: network(y, 1 - float(t) - 1 / TRAIN))
    ours = ddim(field, x, grid, path, prediction)
    same(ours, theirs, scale=10)
    assert field.calls == 20


@every_dtype
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_diffusers_flow_match_euler(shift, dtype):
    """Euler on the velocity of the straight path. Intended differences: their time is the noise level sigma = 1 - t, their
    velocity noise minus data, minus ours; a state of float64 is float32 within a step, so it is compared to float32's digits."""
    scheduler = FlowMatchEulerDiscreteScheduler(TRAIN, shift=shift)
    levels = np.linspace(1, 0.05, 20)
    scheduler.set_timesteps(sigmas=levels.tolist())
    x = theirs = draw(16, 2, dtype=dtype)
    for n, sigma in zip(scheduler.timesteps, scheduler.sigmas.tolist(), strict=False):
        theirs = scheduler.step(-network(theirs, sigma), n, theirs).prev_sample

    # Their shift divides the signal-to-noise ratio by itself: lambda - 2 log shift at every level.
    path = OptimalTransport(0.0)
    t = 1 - torch.cat([torch.from_numpy(levels), torch.zeros(1, dtype=torch.float64)])
    grid = path.time_of_log_snr(path.log_snr(t) - 2 * math.log(shift))
    torch.testing.assert_close(1 - grid, scheduler.sigmas.double(), rtol=1e-6, atol=1e-6)
    ours = integrate(lambda t, y: network(y, 1 - float(t)), x, grid, EULER)
    same(ours.float(), theirs.float())
    same(ddim(lambda t, y: network(y, 1 - float(t)), x, grid, path, VELOCITY).float(), theirs.float())


@every_dtype
def test_diffusers_flow_match_noising_is_the_straight_path(dtype):
    scheduler = FlowMatchEulerDiscreteScheduler(TRAIN)
    steps = scheduler.timesteps[::100]
    x0, x1 = draw(10, 2, seed=1, dtype=dtype), draw(10, 2, seed=2, dtype=dtype)
    theirs = scheduler.scale_noise(x1, steps, x0)
    x_t, _ = OptimalTransport(0.0).interpolate(x0, x1, 1 - steps.double() / TRAIN)
    torch.testing.assert_close(x_t, theirs, rtol=1e-6, atol=1e-6)  # their levels are float32 in either type


HIGHEST = 200.0


def exploding() -> GeneralAffine:
    """EDM's own path: a = 1, sigma falls evenly from 200 to 0. The state is the z of the samplers."""
    return GeneralAffine(torch.ones_like, lambda t: HIGHEST * (1 - t), noise_std=HIGHEST)


def preserving() -> GeneralAffine:
    """The same levels at unit variance: the state is what diffusers' scale_model_input makes of z."""
    return Rescaled(exploding(), lambda t: 1 / torch.sqrt(1 + (HIGHEST * (1 - t)) ** 2))


def levels_of(scheduler: HeunDiscreteScheduler | EulerDiscreteScheduler) -> list[float]:
    """Every level once: Heun's list has all but both ends twice."""
    return sorted(set(scheduler.sigmas.tolist()), reverse=True)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("make_path", [exploding, preserving])
def test_diffusers_heun(make_path, prediction_type):
    """Karras et al.'s sampler without churn, down to level zero. Intended differences: their state is z = x / a, and the
    network's input is scaled to unit variance by a call of its own; their levels are float32, made float64 here before either
    runs; their v is that of the unit-variance path, whatever the path of the state."""
    scheduler = HeunDiscreteScheduler(beta_end=0.02, prediction_type=prediction_type, use_karras_sigmas=True)
    scheduler.set_timesteps(12)
    scheduler.sigmas = scheduler.sigmas.double()
    prediction = {"epsilon": EPSILON, "sample": X, "v_prediction": V}[prediction_type]
    levels = levels_of(scheduler)
    z = theirs = levels[0] * draw(16, 2)
    evaluated = [levels[0], *(level for level in levels[1:-1] for _ in range(2))]  # a proposal, then the next step's start
    for n, level in zip(scheduler.timesteps, evaluated, strict=True):
        output = network(scheduler.scale_model_input(theirs, n), math.log(level))
        theirs = scheduler.step(output, n, theirs).prev_sample

    path, unit = make_path(), preserving()
    grid = 1 - torch.tensor(levels, dtype=torch.float64) / HIGHEST

    def field(t: Tensor, x: Tensor) -> Tensor:
        scaled = x * (unit.coefficients(t).a / path.coefficients(t).a)
        output = network(scaled, math.log(HIGHEST * (1 - float(t))))
        data = convert(output, scaled, t, unit, prediction, X)  # x1 is the same on every path
        return convert(data, x, t, path, X, VELOCITY)

    counting = CountingField(field)
    start = float(path.coefficients(grid[:1]).a) * z
    ours = heun_churn(counting, start, grid, path, noise=lambda k: torch.zeros(0))
    same(ours / float(path.coefficients(grid[-1:]).a), theirs, scale=10)
    assert counting.calls == len(evaluated) == 2 * 12 - 1


@pytest.mark.parametrize("form", ["plain", "epsilon"])
@pytest.mark.parametrize("make_path", [exploding, preserving])
def test_diffusers_euler_in_noise_levels_is_ddim(make_path, form):
    """Their Euler step in sigma, on the epsilon prediction. Intended difference: float32 within a step, as the levels are, so
    float32 is what can be compared; errors are relative to the states, which start at the highest level's size."""
    scheduler = EulerDiscreteScheduler(beta_end=0.02, use_karras_sigmas=True)
    scheduler.set_timesteps(12)
    levels = scheduler.sigmas.tolist()
    z = theirs = (levels[0] * draw(16, 2)).float()
    for n, level in zip(scheduler.timesteps, levels, strict=False):
        output = network(scheduler.scale_model_input(theirs, n), math.log(level))
        theirs = scheduler.step(output, n, theirs).prev_sample

    path, unit = make_path(), preserving()
    grid = 1 - torch.tensor(levels, dtype=torch.float64) / HIGHEST

    def predicted(t: Tensor, x: Tensor) -> Tensor:
        scaled = x * (unit.coefficients(t).a / path.coefficients(t).a)
        return network(scaled, math.log(HIGHEST * (1 - float(t))))

    start = float(path.coefficients(grid[:1]).a) * z.double()
    ours = ddim(predicted, start, grid, path, EPSILON, form=form) / float(path.coefficients(grid[-1:]).a)
    same(ours.float(), theirs, scale=levels[0])


@pytest.mark.parametrize("path", [exploding(), CosineVP(), OptimalTransport(0.0)], ids=["EDM's", "cosine VP", "OT"])
@pytest.mark.parametrize(
    ("schedule", "grid"), [("karras", karras_grid), ("exponential", log_snr_grid)], ids=["karras", "log SNR"]
)
def test_diffusers_levels_are_our_grids(schedule, grid, path):
    """Karras et al.'s levels from 80 to 0.002, or evenly in their logarithm. Intended differences: N levels and a zero, where
    ours has N + 1 times with both ends of the interval; their levels are float32."""
    scheduler = EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, sigma_schedule=schedule)
    scheduler.set_timesteps(18)
    ends = path.time_of_log_snr(-2 * torch.log(torch.tensor([80.0, 0.002], dtype=torch.float64)))
    ours = grid(path, float(ends[0]), float(ends[1]), 17)
    levels = torch.exp(-path.log_snr(ours) / 2)
    assert scheduler.sigmas[-1] == 0
    torch.testing.assert_close(levels.float(), scheduler.sigmas[:-1], rtol=1e-5, atol=0)


def test_diffusers_ddim_is_our_euler_on_the_straight_path():
    """Euler on the velocity of the straight path is their DDIM on the same levels at unit variance: DDIM sees no rescaling."""
    t = times(5, 0.1, 0.9)
    squares = t**2 / (t**2 + (1 - t) ** 2)
    scheduler = DDIMScheduler(num_train_timesteps=5, clip_sample=False, set_alpha_to_one=False)
    scheduler.alphas_cumprod = squares.flip(0)
    scheduler.set_timesteps(5)
    path, scale = OptimalTransport(0.0), torch.sqrt(t**2 + (1 - t) ** 2)
    x = draw(16, 2)
    theirs = x / scale[0]
    for n in (4, 3, 2, 1):
        theirs = scheduler.step(network(theirs, n / 5), n, theirs).prev_sample

    def epsilon(time: Tensor, y: Tensor) -> Tensor:
        k = int((t - time[0]).abs().argmin())
        return network(y / scale[k], (4 - k) / 5)

    ours = integrate(velocity_field(epsilon, path, EPSILON), x, t, EULER)
    same(ours / scale[-1], theirs)
