"""Parity with published libraries: the same inputs give the same outputs, to 1e-10 in float64 and 1e-6 in float32.

Where a library differs on purpose, the difference has a name, a test's own docstring or a test of its own:

* **types**: fmbench takes coefficients in float64 whatever the state's type, the others in the state's or t's own type. Sections
  that compare in float32 keep away from the ends of the paths, and other tests show what happens there.
* **direction**: diffusers counts its time from data to noise, in steps or in noise levels; its velocity is noise minus data.
* **levels**: diffusers' Euler and Heun schedulers hold z = x / a and sigma = s / a, and scale the network's input themselves.
* **what x0 is**: torchcfm's matchers add noise of their own to a pair; fmbench's noise is x0 itself.

Not compared, for want of a counterpart here: stochastic interpolants with a bridge's noise and couplings by optimal transport
(torchcfm), multistep methods (torchdiffeq), ancestral sampling and Euler with churn (diffusers).
"""

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
from flow_matching.path import AffineProbPath, CondOTProbPath
from flow_matching.path.scheduler import (
    CondOTScheduler,
    CosineScheduler,
    LinearVPScheduler,
    PolynomialConvexScheduler,
    Scheduler,
    SchedulerOutput,
    ScheduleTransformedModel,
    VPScheduler,
)
from flow_matching.solver import ODESolver
from flow_matching.utils import ModelWrapper
from torch import Tensor
from torchcfm import (
    ConditionalFlowMatcher,
    ExactOptimalTransportConditionalFlowMatcher,
    TargetConditionalFlowMatcher,
    VariancePreservingConditionalFlowMatcher,
)
from torchcfm.models.unet.unet import UNetModel
from torchdiffeq import odeint
from torchdiffeq._impl.odeint import SOLVERS

from fmbench.flow.fields import CountingField, exact_divergence, velocity_field
from fmbench.flow.likelihood import gaussian_log_density, log_likelihood
from fmbench.flow.oracle import FiniteOracle
from fmbench.flow.paths import (
    AffinePath,
    Coefficients,
    CosineVP,
    GeneralAffine,
    OptimalTransport,
    Rescaled,
    VarianceExploding,
    VariancePreserving,
)
from fmbench.flow.prediction import EPSILON, VELOCITY, V, X, convert
from fmbench.flow.solvers.adaptive import TORCHDIFFEQ_ADAPTIVE, dopri5, torchdiffeq_adaptive
from fmbench.flow.solvers.ddim import ddim
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import karras_grid, log_snr_grid, uniform_grid
from fmbench.flow.solvers.stochastic import heun_churn
from fmbench.flow.solvers.tableaux import EULER, FIXED, HEUN, HEUN3, MIDPOINT, RK4, RK4_38
from fmbench.networks.unet import UNet

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-6}
every_dtype = pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])
both_directions = pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)], ids=["forwards", "backwards"])


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def same(ours: Tensor, theirs: Tensor, scale: float = 1.0) -> None:
    """Equal to the tolerance of their type, absolutely for numbers up to ``scale`` and relatively above."""
    assert ours.dtype == theirs.dtype
    tolerance = TOLERANCE[ours.dtype]
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * scale)


def times(n: int, low: float = 0.02, high: float = 0.98) -> Tensor:
    return torch.linspace(low, high, n, dtype=torch.float64)


# flow_matching: schedules and paths. Its time, too, runs from noise to data; its alpha and sigma are our a and s.


def from_scheduler(scheduler: Scheduler, t_max: float = 1.0) -> GeneralAffine:
    """Our path from their schedule, derivatives included: building it holds them to automatic differentiation."""
    return GeneralAffine(
        lambda t: scheduler(t).alpha_t,
        lambda t: scheduler(t).sigma_t,
        lambda t: scheduler(t).d_alpha_t,
        lambda t: scheduler(t).d_sigma_t,
        t_max=t_max,
    )


SCHEDULES: dict[str, tuple[Scheduler, AffinePath]] = {
    "CondOT, our OT with sigma_min 0": (CondOTScheduler(), OptimalTransport(0.0)),
    "Cosine, our cosine VP": (CosineScheduler(), CosineVP()),
    "VP, our VP": (VPScheduler(), VariancePreserving()),
    "VP with other betas": (VPScheduler(0.2, 8.0), VariancePreserving(0.2, 8.0)),
    # Theirs alone; ours are written out with derivatives by automatic differentiation.
    "Polynomial 2, ours general": (PolynomialConvexScheduler(2), GeneralAffine(lambda t: t**2, lambda t: 1 - t**2)),
    "Polynomial 3.5, ours general": (PolynomialConvexScheduler(3.5), GeneralAffine(lambda t: t**3.5, lambda t: 1 - t**3.5)),
    "LinearVP, ours general, ends early for its infinite slope": (
        LinearVPScheduler(),
        GeneralAffine(lambda t: t, lambda t: torch.sqrt(1 - t**2), t_max=1 - 1e-3),
    ),
}
every_schedule = pytest.mark.parametrize(("scheduler", "path"), SCHEDULES.values(), ids=SCHEDULES.keys())


@every_schedule
def test_flow_matching_schedules_have_our_coefficients(scheduler, path):
    t = times(97, 0.001, 0.999)
    ours, theirs = path.coefficients(t), scheduler(t)
    for mine, other in zip(ours, (theirs.alpha_t, theirs.sigma_t, theirs.d_alpha_t, theirs.d_sigma_t), strict=True):
        same(mine, other)


@every_schedule
def test_flow_matching_schedules_pass_the_general_paths_check_of_derivatives(scheduler, path):
    general = from_scheduler(scheduler, t_max=min(path.t_max, 1 - 1e-3))
    for mine, other in zip(general.coefficients(times(31)), path.coefficients(times(31)), strict=True):
        same(mine, other)


@every_schedule
def test_flow_matching_snr_inverse_is_our_time_of_log_snr(scheduler, path):
    """Their ratio is a / s, our log SNR is twice its logarithm. Where a path of ours does not know its inverse, it bisects."""
    t = times(31)
    theirs = scheduler(t)
    snr = theirs.alpha_t / theirs.sigma_t
    same(path.log_snr(t), 2 * snr.log(), scale=10)
    same(path.time_of_log_snr(2 * snr.log()), scheduler.snr_inverse(snr))
    same(scheduler.snr_inverse(torch.exp(path.log_snr(t) / 2)), t)


@every_dtype
@every_schedule
def test_flow_matching_samples_and_velocities(scheduler, path, dtype):
    """Their x_t and dx_t. In float32 their schedule is asked in float64 and rounded, as ours is: see the test of VP below."""
    x0, x1, t = draw(33, 3, 2, seed=1), draw(33, 3, 2, seed=2), times(33)
    ours = path.interpolate(x0.to(dtype), x1.to(dtype), t)

    class Rounded(Scheduler):
        def __call__(self, t: Tensor) -> SchedulerOutput:
            c = scheduler(t.double())
            return SchedulerOutput(*(v.to(dtype) for v in (c.alpha_t, c.sigma_t, c.d_alpha_t, c.d_sigma_t)))

        def snr_inverse(self, snr: Tensor) -> Tensor:
            raise NotImplementedError

    theirs = AffineProbPath(Rounded()).sample(x_0=x0.to(dtype), x_1=x1.to(dtype), t=t)
    same(ours[0], theirs.x_t)
    same(ours[1], theirs.dx_t, scale=10)


@every_dtype
def test_flow_matching_cond_ot_path_as_it_is(dtype):
    x0, x1 = draw(33, 5, seed=1, dtype=dtype), draw(33, 5, seed=2, dtype=dtype)
    t = torch.linspace(0, 1, 33, dtype=dtype)  # both ends included, and in float32 its own times
    theirs = CondOTProbPath().sample(x_0=x0, x_1=x1, t=t)
    x_t, u_t = OptimalTransport(0.0).interpolate(x0, x1, t)
    same(x_t, theirs.x_t)
    same(u_t, theirs.dx_t)


def test_flow_matching_vp_in_float32_has_few_digits_near_the_data():
    """Intended difference: from the same float32 times, theirs computes 1 - exp(-T) in float32, ours -expm1(-T) in float64."""
    t = (1 - torch.logspace(-4, -2, 20, dtype=torch.float64)).float()
    true = VPScheduler()(t.double())
    ours = VariancePreserving().coefficients(t)
    theirs = VPScheduler()(t)
    for exact, mine, other in ((true.sigma_t, ours.s, theirs.sigma_t), (true.d_sigma_t, ours.ds, theirs.d_sigma_t)):
        assert float((mine / exact - 1).abs().max()) < 1e-9
        assert float((other.double() / exact - 1).abs().max()) > 1e-4


CONVERSIONS = [
    ("target_to_velocity", X, VELOCITY),
    ("target_to_epsilon", X, EPSILON),
    ("epsilon_to_velocity", EPSILON, VELOCITY),
    ("epsilon_to_target", EPSILON, X),
    ("velocity_to_target", VELOCITY, X),
    ("velocity_to_epsilon", VELOCITY, EPSILON),
]


@every_dtype
@pytest.mark.parametrize(("name", "source", "target"), CONVERSIONS, ids=[c[0] for c in CONVERSIONS])
@every_schedule
def test_flow_matching_conversions(scheduler, path, name, source, target, dtype):
    """Any prediction, not only one that belongs to a pair (x0, x1). Intended difference: their times must already have the
    shape of the state, or broadcast to it. Float64 times; near the ends, where the conversions divide by almost nothing, float32
    has no digits to compare, so that comparison is of the middle."""
    t = times(25) if dtype == torch.float64 else times(25, 0.3, 0.7)
    x_t, p = draw(25, 4, seed=1, dtype=dtype), draw(25, 4, seed=2, dtype=dtype)
    ours = convert(p, x_t, t, path, source, target)
    convert_theirs = getattr(AffineProbPath(scheduler), name)
    theirs = convert_theirs(p, x_t, t[:, None]).to(dtype)  # float64 coefficients make their result float64
    same(ours, theirs, scale=float(theirs.abs().max()))


POINTS = torch.tensor([[1.0, 0.3], [-0.7, 0.9], [0.2, -1.4], [-1.1, -0.6]], dtype=torch.float64)
ORACLE = FiniteOracle(POINTS, bandwidth=0.3)


class Marginal(ModelWrapper):
    """The exact marginal field of the four blurred points on a path, as flow_matching calls its models."""

    def __init__(self, path: AffinePath) -> None:
        super().__init__(torch.nn.Identity())
        self.path = path

    def forward(self, x: Tensor, t: Tensor, **extras: Tensor) -> Tensor:
        return ORACLE.velocity(self.path, t, x)


class Ours(Scheduler):
    """A path of ours as a schedule of theirs."""

    def __init__(self, path: AffinePath) -> None:
        self.path = path

    def __call__(self, t: Tensor) -> SchedulerOutput:
        return SchedulerOutput(*self.path.coefficients(t))

    def snr_inverse(self, snr: Tensor) -> Tensor:
        return self.path.time_of_log_snr(2 * snr.log())


RESCALED = Rescaled(CosineVP(), lambda t: torch.exp(-t))


@pytest.mark.parametrize("r", [0.05, 0.4, 0.9])
@pytest.mark.parametrize(
    ("original", "before", "new", "after"),
    [
        (CondOTScheduler(), OptimalTransport(0.0), CosineScheduler(), CosineVP()),
        (CondOTScheduler(), OptimalTransport(0.0), VPScheduler(), VariancePreserving()),
        (VPScheduler(), VariancePreserving(), CondOTScheduler(), OptimalTransport(0.0)),
        (CondOTScheduler(), OptimalTransport(0.0), Ours(VarianceExploding()), VarianceExploding()),
        (CosineScheduler(), CosineVP(), Ours(RESCALED), RESCALED),
    ],
    ids=["OT to cosine", "OT to VP", "VP to OT", "OT to our VE", "cosine to a rescaling of itself"],
)
def test_flow_matching_change_of_schedule_after_training(original, before, new, after, r):
    """Their change of schedule takes the exact marginal field of one path to the exact marginal field of the other."""
    x, t = draw(16, 2), torch.tensor(r, dtype=torch.float64)
    ours = ORACLE.velocity(after, t, x)
    theirs = ScheduleTransformedModel(Marginal(before), original, new)(x=x, t=t)
    same(ours, theirs, scale=float(theirs.abs().max()))


# flow_matching: sampling and likelihood


@every_dtype
@pytest.mark.parametrize(
    ("method", "tableau"),
    [("euler", EULER), ("midpoint", MIDPOINT), ("heun3", HEUN3), ("rk4", RK4_38)],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_flow_matching_solver_on_a_given_grid(method, tableau, dtype):
    """Their solver is torchdiffeq's, so its rk4 is the 3/8 rule. It calls model(x=, t=), with t in the state's type."""
    path, grid = OptimalTransport(0.0), torch.tensor([0.0, 0.05, 0.2, 0.5, 0.75, 1.0], dtype=torch.float64)
    x0 = draw(32, 2, dtype=dtype)
    theirs = ODESolver(Marginal(path)).sample(x0, None, method=method, time_grid=grid.to(dtype), return_intermediates=True)
    ours = integrate(lambda t, x: ORACLE.velocity(path, t, x), x0, grid.to(dtype).double(), tableau, keep=True)
    same(ours, theirs)


def test_flow_matching_step_size_may_take_a_step_too_many():
    """Intended difference: theirs takes a step size, ours a number of steps. A step size of 1/61 makes 62 steps."""
    theirs, ours = CountingField(lambda t, x: -x), CountingField(lambda t, x: -x)
    ODESolver(lambda x, t: theirs(t, x)).sample(torch.ones(2, 2), 1 / 61)
    integrate(ours, torch.ones(2, 2), uniform_grid(0, 1, 61), EULER)
    assert (theirs.calls, ours.calls) == (62, 61)


def swirl(t: Tensor, x: Tensor) -> Tensor:
    """A nonlinear field whose divergence depends on place and time."""
    return torch.stack([torch.sin(x[:, 1]) + t * x[:, 0], 0.5 * torch.cos(x[:, 0]) * x[:, 1] - t**2], 1).to(x.dtype)


class Swirl(ModelWrapper):
    def __init__(self) -> None:
        super().__init__(torch.nn.Identity())

    def forward(self, x: Tensor, t: Tensor, **extras: Tensor) -> Tensor:
        return swirl(t, x)


def standard_normal(x: Tensor) -> Tensor:
    return gaussian_log_density(x, 1.0)


@pytest.mark.parametrize(("method", "tableau"), [("euler", EULER), ("midpoint", MIDPOINT), ("rk4", RK4_38)])
def test_flow_matching_likelihood_on_a_given_grid(method, tableau):
    """The same joint solve of x and log p, backwards, with an exact divergence. Intended differences: theirs takes its exact
    divergence of states (B, D) only; ours has no likelihood by fixed steps, so its parts are put together here."""
    x1, grid = draw(16, 2), torch.tensor([1.0, 0.9, 0.6, 0.35, 0.1, 0.0], dtype=torch.float64)
    start, log_p = ODESolver(Swirl()).compute_likelihood(
        x1, standard_normal, None, method=method, time_grid=grid, exact_divergence=True
    )

    def joint(t: Tensor, state: Tensor) -> Tensor:
        v, divergence = exact_divergence(swirl, t, state[:, :2])
        return torch.cat([v, divergence[:, None]], 1)

    end = integrate(joint, torch.cat([x1, x1.new_zeros(16, 1)], 1), grid, tableau)
    same(end[:, :2], start)
    same(standard_normal(end[:, :2]) + end[:, 2], log_p, scale=10)


def test_flow_matching_likelihood_by_dopri5():
    """Both at a tolerance of 1e-12. Intended differences: they take the larger of the error norms of x and log p where ours
    is the RMS over both, and they step past t = 0 and interpolate back: so equal results, not equal steps."""
    x1 = draw(16, 2)
    tight = {"rtol": 1e-12, "atol": 1e-12}
    _, theirs = ODESolver(Swirl()).compute_likelihood(
        x1, standard_normal, None, method="dopri5", time_grid=torch.tensor([1.0, 0.0]).double(), exact_divergence=True, **tight
    )
    ours = log_likelihood(swirl, x1, 0.0, 1.0, **tight)
    assert not ours.failed.any()
    same(ours.log_p, theirs, scale=10)


# torchcfm: x_t and u_t of its matchers, from the noise that it drew itself


@every_dtype
@pytest.mark.parametrize("sigma", [0.0, 0.1])
@pytest.mark.parametrize(
    ("matcher", "path"),
    [(ConditionalFlowMatcher, OptimalTransport(0.0)), (VariancePreservingConditionalFlowMatcher, CosineVP())],
    ids=["independent, our OT with sigma_min 0", "variance preserving, our cosine VP"],
)
def test_torchcfm_matchers_of_pairs(matcher, path, sigma, dtype):
    """Intended difference: with sigma > 0 they add sigma times fresh noise to x_t and nothing to u_t; ours has no such term."""
    torch.manual_seed(0)
    x0, x1 = draw(40, 3, 2, seed=1, dtype=dtype), draw(40, 3, 2, seed=2, dtype=dtype)
    t = torch.linspace(0, 1, 40, dtype=dtype)
    _, x_t, u_t, noise = matcher(sigma).sample_location_and_conditional_flow(x0, x1, t, return_noise=True)
    ours = path.interpolate(x0, x1, t)
    same(ours[0], x_t - sigma * noise)
    same(ours[1], u_t)


@every_dtype
@pytest.mark.parametrize("sigma_min", [0.0, 1e-4, 0.1])
def test_torchcfm_target_matcher_is_the_papers_path(sigma_min, dtype):
    """Its sigma is the paper's sigma_min, its noise our x0 (it does not read the x0 it is given). Intended difference: its u_t is
    the quotient of eq. 21, (x1 - (1 - sigma_min) x_t) / s; ours a' x1 + s' x0, which divides by nothing. In float32 the two are
    compared where s >= 1/2, since the quotient's rounding grows as 1 / s."""
    torch.manual_seed(0)
    x1 = draw(40, 3, 2, seed=2, dtype=dtype)
    t = torch.linspace(0, 0.99 if dtype == torch.float64 else 0.5, 40, dtype=dtype)
    matcher = TargetConditionalFlowMatcher(sigma_min)
    _, x_t, u_t, noise = matcher.sample_location_and_conditional_flow(torch.full_like(x1, torch.nan), x1, t, return_noise=True)
    ours = OptimalTransport(sigma_min).interpolate(noise, x1, t)
    same(ours[0], x_t)
    same(ours[1], u_t)


def test_torchcfm_quotient_form_loses_digits_in_float32():
    """The difference above, near the data: three digits are left of its velocity at s = 2e-4, all of ours."""
    torch.manual_seed(0)
    x1, t = draw(100, 2, dtype=torch.float32), torch.full((100,), 0.9999)
    matcher = TargetConditionalFlowMatcher(1e-4)
    _, _, u_t, noise = matcher.sample_location_and_conditional_flow(x1, x1, t, return_noise=True)
    true = x1.double() - (1 - 1e-4) * noise.double()
    ours = OptimalTransport(1e-4).interpolate(noise, x1, t)[1]
    assert float((ours - true).abs().max()) < 1e-6
    assert float((u_t - true).abs().max()) > 1e-4


@every_dtype
def test_torchcfm_optimal_transport_matcher_after_its_plan(dtype):
    """What is compared: the path between the pairs that the plan drew, not the plan. Every x1 is its x0 shifted by one vector, so
    the exact plan pairs them so; torchcfm then draws pairs from it with replacement, here once more from the same seed."""
    x0 = draw(24, 2, dtype=dtype)
    x1 = x0 + torch.tensor([0.3, -0.2], dtype=dtype)
    t = torch.linspace(0, 1, 24, dtype=dtype)
    matcher = ExactOptimalTransportConditionalFlowMatcher(0.0)
    state = np.random.get_state()
    try:
        np.random.seed(0)
        _, x_t, u_t = matcher.sample_location_and_conditional_flow(x0, x1, t)
        np.random.seed(0)
        first, second = matcher.ot_sampler.sample_plan(x0, x1)
    finally:
        np.random.set_state(state)
    assert (first[:, None] == x0).all(2).any(1).all()
    torch.testing.assert_close(second - first, torch.tensor([[0.3, -0.2]], dtype=dtype).expand(24, 2))
    ours = OptimalTransport(0.0).interpolate(first, second, t)
    same(ours[0], x_t)
    same(ours[1], u_t)


# torchdiffeq: fixed steps

FIXED_METHODS = {"euler": EULER, "midpoint": MIDPOINT, "heun2": HEUN, "heun3": HEUN3, "rk4": RK4_38}
WITHOUT_COUNTERPART = {
    "explicit_adams": "multistep: keeps slopes of past steps",
    "implicit_adams": "multistep and implicit",
    "fixed_adams": "another name of implicit_adams",
    "scipy_solver": "SciPy's solvers; tests/test_solvers.py compares with them directly",
}


def test_every_method_of_torchdiffeq_is_compared_or_named():
    assert set(SOLVERS) == {*FIXED_METHODS, *TORCHDIFFEQ_ADAPTIVE, *WITHOUT_COUNTERPART}
    # The other way round: ours that it does not have.
    assert set(FIXED) - {t.name for t in FIXED_METHODS.values()} == {"ralston", "rk4"}


def pendulums(t: Tensor, x: Tensor) -> Tensor:
    """Coupled, nonlinear and driven, for states (B, 2) and (B, 2, *)."""
    return torch.stack([x[:, 1] + t.to(x.dtype), -torch.sin(x[:, 0]) - 0.3 * x[:, 1] * torch.cos(3 * t).to(x.dtype)], 1)


@every_dtype
@both_directions
@pytest.mark.parametrize("shape", [(2,), (2, 3, 2)], ids=["points", "images"])
@pytest.mark.parametrize("method", FIXED_METHODS)
def test_torchdiffeq_fixed_steps(method, shape, ends, dtype):
    """Every state on an uneven grid, and the evaluations. Their times have the state's type when they reach the field; in
    float32 that is the only difference there is, hence a tolerance of a few roundings."""
    grid = ends[0] + (ends[1] - ends[0]) * torch.tensor([0.0, 0.02, 0.1, 0.3, 0.35, 0.6, 0.9, 1.0], dtype=torch.float64)
    x = draw(5, *shape, dtype=dtype)
    ours, theirs = CountingField(pendulums), CountingField(pendulums)
    states = integrate(ours, x, grid, FIXED_METHODS[method], keep=True)
    reference = odeint(theirs, x, grid, method=method)
    same(states, reference, scale=1 if dtype == torch.float64 else 2)
    assert ours.calls == theirs.calls == 7 * FIXED_METHODS[method].stages


def test_torchdiffeq_rk4_is_not_the_classical_one():
    grid, x = uniform_grid(0, 1, 5), draw(5, 2)
    theirs = odeint(pendulums, x, grid, method="rk4")[-1]
    same(integrate(pendulums, x, grid, RK4_38), theirs)
    classical = integrate(pendulums, x, grid, RK4)
    assert 1e-8 < float((classical - theirs).abs().max()) < 1e-3


# torchdiffeq: adaptive steps


@both_directions
@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-8])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_torchdiffeq_dopri5_has_our_nfe_and_result(batch, tolerance, ends):
    """One step size for the batch. Intended difference: their stages at a step's end are one representable number before it."""
    x = draw(batch, 2) * torch.logspace(-1, 0.5, batch, dtype=torch.float64)[:, None]
    ours, theirs = CountingField(pendulums), CountingField(pendulums)
    solution = dopri5(ours, x, *ends, rtol=tolerance, atol=tolerance, per_sample=False)
    reference = torchdiffeq_adaptive(theirs, x, *ends, rtol=tolerance, atol=tolerance)
    same(solution.x, reference)
    assert ours.calls == theirs.calls == int(solution.nfe[0])


@both_directions
def test_torchdiffeq_one_sample_at_a_time_is_our_step_per_sample(ends):
    """In float64. Intended difference in float32: they take the error norm in float32, ours in float64, so a step whose error is
    at the tolerance to within rounding may be accepted by one and not by the other."""
    x = draw(12, 2) * torch.logspace(-1, 1, 12, dtype=torch.float64)[:, None]

    def each(t: Tensor, x: Tensor) -> Tensor:
        t = t.reshape(-1)
        return torch.stack([x[:, 1] + t, -torch.sin(x[:, 0]) - 0.3 * x[:, 1] * torch.cos(3 * t)], 1)

    solution = dopri5(each, x, *ends, rtol=1e-8, atol=1e-8, per_sample=True)
    counts, results = [], []
    for one in x.split(1):
        field = CountingField(each)
        results.append(torchdiffeq_adaptive(field, one, *ends, rtol=1e-8, atol=1e-8))
        counts.append(field.calls)
    same(solution.x, torch.cat(results))
    assert solution.nfe.tolist() == counts
    assert len(set(counts)) > 3


def solution_of_turning(x0: Tensor, t0: float, t1: float) -> Tensor:
    """Of dx/dt = cos(4t) x + (x turned by a quarter) in the plane: turned by t and grown by exp(sin(4t) / 4)."""
    angle, size = t1 - t0, math.exp((math.sin(4 * t1) - math.sin(4 * t0)) / 4)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    return size * x0 @ turn.T


class Turning:
    """That field, which remembers when it was called; undefined outside of the interval."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        self.times.append(float(t))
        if not 0 <= t <= 1:
            raise AssertionError(f"the field was called at t = {float(t)}")
        return torch.cos(4 * t) * x + torch.stack([-x[:, 1], x[:, 0]], 1)


@both_directions
@pytest.mark.parametrize("method", TORCHDIFFEQ_ADAPTIVE)
def test_torchdiffeq_adaptive_methods_reach_a_closed_form(method, ends):
    """To the tolerance, never looking outside of the interval once counted, in steps of each method's own evaluations."""
    stages = {"dopri5": 6, "dopri8": 13, "bosh3": 3, "fehlberg2": 2, "adaptive_heun": 1}[method]
    x = draw(8, 2)
    errors = []
    for tolerance in (1e-4, 1e-6):
        field = Turning()
        counting = CountingField(field, 0.0, 1.0)
        end = torchdiffeq_adaptive(counting, x, *ends, method=method, rtol=tolerance, atol=tolerance)
        errors.append(float((end - solution_of_turning(x, *ends)).abs().max()))
        assert errors[-1] < 300 * tolerance
        assert (counting.calls - 2) % stages == 0
        # The last step ends at the end of the interval, and looks there (one number before it).
        assert max(abs(t - ends[0]) for t in field.times) == pytest.approx(1, abs=1e-15)
    assert errors[1] < errors[0] / 5


@both_directions
def test_torchdiffeq_steps_past_the_end_unless_it_is_a_step_point(ends):
    """Why :func:`torchdiffeq_adaptive` names the end. Intended difference: ours ends there by construction."""
    seen: list[float] = []

    def field(t: Tensor, x: Tensor) -> Tensor:
        seen.append(float(t))
        return torch.cos(4 * t) * x

    def beyond() -> float:
        return max(max(seen) - 1, -min(seen), 0.0)

    x, span = draw(4, 2), torch.tensor(ends, dtype=torch.float64)
    odeint(field, x, span, rtol=1e-5, atol=1e-5, method="dopri5")
    assert beyond() > 1e-3
    seen.clear()
    torchdiffeq_adaptive(field, x, *ends)
    assert beyond() == 0
    seen.clear()
    dopri5(field, x, *ends, per_sample=False)
    assert beyond() == 0


# diffusers: DDIM on a table of noise levels

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
    """Something for a network to say: bounded, nonlinear, different at every level."""
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


# diffusers: flow matching


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


# diffusers: samplers in noise levels

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
        data = convert(output, scaled, t, unit, prediction, X)  # of no path: x1 is the same on all
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


# torchcfm: its U-Net, which is ADM's


@pytest.mark.parametrize("resample_blocks", [True, False])
def test_torchcfm_unet_with_the_same_weights(resample_blocks):
    """Its parameters are in our order; its heads have queries, keys and values side by side, ours one after the other."""
    torch.manual_seed(0)
    ours = UNet((3, 8, 12), 128, (1, 2), 1, (4,), 64, resample_blocks=resample_blocks, max_frequency=1.0).eval()
    theirs = UNetModel(
        image_size=8,
        in_channels=3,
        model_channels=128,
        out_channels=3,
        num_res_blocks=1,
        attention_resolutions=(2,),
        channel_mult=(1, 2),
        num_head_channels=64,
        use_scale_shift_norm=True,
        resblock_updown=resample_blocks,
    )
    theirs = theirs.eval()
    parameters = list(theirs.named_parameters())
    assert len(parameters) == len(list(ours.parameters()))
    with torch.no_grad():
        for (name, mine), (_, other) in zip(ours.named_parameters(), parameters, strict=True):
            mine.add_(0.05 * torch.randn_like(mine))
            values = mine
            if "qkv" in name:
                values = mine.unflatten(0, (3, 256 // 64, 64)).transpose(0, 1).flatten(0, 2)
            other.copy_(values.reshape(other.shape))
    t, x = torch.tensor([0.1, 0.8]), torch.randn(2, 3, 8, 12)  # its embedding and norms are in float32 always
    torch.testing.assert_close(theirs(t, x), ours(t, x), rtol=1e-4, atol=1e-5)
    assert ours(t, x).std() > 0.1
