"""Parity with Meta's flow_matching. Its time also runs from noise to data; its alpha and sigma are our a and s."""

import pytest
import torch
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
from parity import draw, every_dtype, same, times
from torch import Tensor

from fmbench.flow.divergence import exact_divergence
from fmbench.flow.fields import CountingField
from fmbench.flow.general_paths import GeneralAffine, Rescaled
from fmbench.flow.likelihood import gaussian_log_density, log_likelihood
from fmbench.flow.oracle import FiniteOracle
from fmbench.flow.paths import AffinePath, CosineVP, OptimalTransport, VarianceExploding, VariancePreserving
from fmbench.flow.prediction import EPSILON, VELOCITY, X, convert
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import uniform_grid
from fmbench.flow.solvers.tableaux import EULER, HEUN3, MIDPOINT, RK4_38


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
