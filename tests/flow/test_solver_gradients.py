"""Derivatives through the solvers: by the start and by the field's parameters, beside torchdiffeq's and closed forms."""

import math

import pytest
import torch
from ode_fields import Recorder, both_directions, square, wavy
from torch import Tensor
from torchdiffeq import odeint

from fmbench.flow.fields import CountingField
from fmbench.flow.paths import CosineVP, OptimalTransport, VarianceExploding, VariancePreserving
from fmbench.flow.prediction import EPSILON, SCORE, VELOCITY, X
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.ddim import FORMS, ddim
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import karras_grid, uniform_grid
from fmbench.flow.solvers.stochastic import Churn, euler_maruyama, heun_churn
from fmbench.flow.solvers.tableaux import FIXED

both_modes = pytest.mark.parametrize("per_sample", [True, False], ids=["per_sample", "shared"])
tolerances = pytest.mark.parametrize(("rtol", "atol"), [(1e-3, 1e-3), (1e-7, 1e-7), (1e-5, 1e-12), (0.0, 1e-6)])


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Network(torch.nn.Module):
    """A smooth nonlinear field with parameters, for states (B, 2), times () or (B,)."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = torch.nn.Parameter(draw(1, 2, 5)), torch.nn.Parameter(draw(2, 5, 2) / 2)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.into + torch.sin(3 * t).reshape(-1, 1)) @ self.out


def gradients(end: Tensor, *by: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad((end * torch.linspace(0.5, 2, end.numel(), dtype=end.dtype).view_as(end)).sum(), by)


def by_torchdiffeq(network: Network, x: Tensor, ends, rtol: float, atol: float) -> tuple[Tensor, Tensor]:
    """Our end with one step size, and torchdiffeq's from our first step. It holds later sizes constant, not its own first."""
    recorder = Recorder(network)
    ours = dopri5(recorder, x, *ends, rtol=rtol, atol=atol, per_sample=False).x
    first, times = 5 * abs(float(recorder.times[2]) - ends[0]), torch.tensor(ends, dtype=torch.float64)
    options = {"step_t": times[1:], "first_step": first}
    return ours, odeint(network, x, times, rtol=rtol, atol=atol, method="dopri5", options=options)[-1]


def same_gradients(ours: Tensor, theirs: Tensor, *by: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    for mine, reference in zip(gradients(ours, *by), gradients(theirs, *by), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-8, atol=1e-10)


@tolerances
@both_directions
def test_the_gradient_is_torchdiffeqs(ends, rtol, atol):
    network, x = Network(), draw(3, 6, 2).requires_grad_()
    same_gradients(*by_torchdiffeq(network, x, ends, rtol, atol), x, *network.parameters())


@tolerances
@both_directions
def test_the_gradient_with_a_step_per_sample_is_torchdiffeqs_one_by_one(ends, rtol, atol):
    network, x = Network(), (draw(4, 5, 2) * torch.logspace(-1, 1, 5, dtype=torch.float64)[:, None]).requires_grad_()
    ours = dopri5(network, x, *ends, rtol=rtol, atol=atol, per_sample=True).x
    theirs = torch.cat([by_torchdiffeq(network, one, ends, rtol, atol)[1] for one in x.split(1)])
    same_gradients(ours, theirs, x, *network.parameters())


@both_modes
@both_directions
def test_a_closed_form(per_sample, ends):
    """dx/dt = -2 q x cos(6 t): x(1) = x(0) exp(-q sin(6) / 3), with both derivatives."""
    rate, x = torch.tensor(1.3, dtype=torch.float64, requires_grad=True), draw(5, 4, 2, 3).requires_grad_()
    end = dopri5(lambda t, x: rate * wavy(t, x), x, *ends, rtol=1e-9, atol=1e-9, per_sample=per_sample).x
    power = (ends[1] - ends[0]) * -math.sin(6) / 3
    factor = math.exp(1.3 * power)
    torch.testing.assert_close(end.detach(), x.detach() * factor, rtol=1e-7, atol=1e-7)
    by_x, by_rate = torch.autograd.grad(end.sum(), (x, rate))
    torch.testing.assert_close(by_x, torch.full_like(x, factor), rtol=1e-7, atol=0)
    assert float(by_rate) == pytest.approx(float(x.detach().sum()) * factor * power, rel=1e-6)


@both_modes
def test_a_constant_field_and_a_start_at_rest(per_sample):
    """An error of zero: its power -1/5 has an infinite derivative."""
    drift, x = (
        torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True),
        torch.zeros(3, 2, dtype=torch.float64).requires_grad_(),
    )
    for field in (lambda t, x: drift.expand_as(x), lambda t, x: drift * torch.ones_like(x), lambda t, x: drift * x):
        solution = dopri5(field, x, 0.0, 1.0, per_sample=per_sample)
        for gradient in torch.autograd.grad(solution.x.sum(), (x, drift), allow_unused=True):
            assert gradient is not None and gradient.isfinite().all()
    by_x, by_drift = torch.autograd.grad(
        dopri5(lambda t, x: drift.expand_as(x), x, 0, 1, per_sample=per_sample).x.sum(), (x, drift)
    )
    torch.testing.assert_close(by_x, torch.ones_like(x))
    torch.testing.assert_close(by_drift, torch.full_like(drift, 3.0))


@both_modes
def test_gradients_of_gradients(per_sample):
    network = Network()

    def end(x: Tensor, into: Tensor) -> Tensor:
        return dopri5(
            lambda t, y: torch.tanh(y @ into + t.reshape(-1, 1)) @ network.out.detach(), x, 0, 1, per_sample=per_sample
        ).x

    # Quotients of differences see the steps change, so they agree up to the solver's tolerance.
    inputs = draw(6, 1, 2).requires_grad_(), network.into
    assert torch.autograd.gradcheck(end, inputs, rtol=1e-3, atol=1e-4)
    assert torch.autograd.gradgradcheck(end, inputs, rtol=1e-2, atol=1e-3)


@both_modes
def test_recording_gradients_changes_no_number(per_sample):
    network, x = Network(), draw(7, 6, 2)
    counted = CountingField(network)
    with_graph = dopri5(counted, x, 0, 1, per_sample=per_sample)
    with torch.no_grad():
        without = dopri5(network, x, 0, 1, per_sample=per_sample)
    assert torch.equal(with_graph.x, without.x) and torch.equal(with_graph.nfe, without.nfe)
    assert counted.evaluations == int(with_graph.nfe.sum())


def test_a_sample_that_blows_up_leaves_the_gradients_of_the_others_alone():
    """q x^2 is gone at t = 1 / (q x0). For the others x(1) = 1 / (1 / x0 - q), with derivatives x(1)^2 / x0^2 and x(1)^2."""
    x = torch.tensor([[0.5], [2.0], [-3.0], [1.25], [0.1]], dtype=torch.float64, requires_grad=True)
    rate = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    field = CountingField(lambda t, x: rate * square(t, x))
    solution = dopri5(field, x, 0, 1, rtol=1e-6, atol=1e-6)
    assert solution.failed.tolist() == [False, True, False, True, False]
    good = ~solution.failed
    by_x, by_rate = torch.autograd.grad(solution.x[good].sum(), (x, rate))
    end = 1 / (1 / x[good] - 1)
    torch.testing.assert_close(by_x[good], (end / x[good]).detach() ** 2, rtol=1e-4, atol=0)
    assert torch.equal(by_x[~good], torch.zeros(2, 1, dtype=torch.float64))
    assert float(by_rate) == pytest.approx(float((end.detach() ** 2).sum()), rel=1e-4)
    assert field.evaluations == int(solution.nfe.sum())


@pytest.mark.parametrize("start", [-1.0, math.nan, math.inf, 0.3])
def test_a_sample_outside_of_the_fields_domain_leaves_the_gradients_of_the_others_alone(start):
    """dx/dt = q log(x) - 2 is NaN below 0, with NaN derivatives: from -1 at once, from 0.3 on the way, in steps not accepted."""
    rate = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def field(t: Tensor, x: Tensor) -> Tensor:
        return rate * torch.log(x) - 2

    both = torch.tensor([[5.0, 6.0], [start, 7.0]], dtype=torch.float64, requires_grad=True)
    alone = both[:1].detach().requires_grad_()
    together, reference = dopri5(field, both, 0, 1), dopri5(field, alone, 0, 1)
    assert together.failed.tolist() == [False, True]
    found, expected = (torch.autograd.grad(s.x[0].sum(), (x, rate)) for s, x in ((together, both), (reference, alone)))
    torch.testing.assert_close(found[0][0], expected[0][0], rtol=1e-12, atol=0)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-12, atol=0)


@both_modes
@pytest.mark.parametrize("end", [0, 1])
def test_a_time_with_a_gradient_is_refused(per_sample, end):
    """Its derivative, the field at the end, would be lost without a word."""
    ends = [torch.tensor(float(i), requires_grad=i == end) for i in range(2)]
    with pytest.raises(ValueError, match="requires a gradient"):
        dopri5(wavy, draw(8, 2, 2), *ends, per_sample=per_sample)


def test_a_grid_with_a_gradient_is_refused():
    grid, x, path = uniform_grid(0.1, 0.9, 3).requires_grad_(), draw(9, 2, 2), CosineVP()
    for solve in (
        lambda: integrate(wavy, x, grid, FIXED["euler"]),
        lambda: euler_maruyama(wavy, x, grid, path, lambda k: x),
        lambda: heun_churn(wavy, x, grid, path, lambda k: x),
    ):
        with pytest.raises(ValueError, match="grid requires a gradient"):
            solve()


def checked_by_differences(end, *inputs: Tensor) -> None:
    assert torch.autograd.gradcheck(end, inputs)
    assert torch.autograd.gradgradcheck(end, inputs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", FIXED)
def test_every_fixed_step_solver(name):
    out, grid = Network().out.detach(), uniform_grid(1, 0, 3)

    def end(x: Tensor, into: Tensor) -> Tensor:
        return integrate(lambda t, y: torch.tanh(y @ into + t) @ out, x, grid, FIXED[name], keep=True)

    checked_by_differences(end, draw(10, 2, 2).requires_grad_(), draw(1, 2, 5).requires_grad_())


@pytest.mark.parametrize("path", [OptimalTransport(0.0), CosineVP()], ids=["ot", "cosine_vp"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prediction", [X, EPSILON, VELOCITY, SCORE], ids=lambda p: p.name)
def test_ddim_down_to_data_alone(path, prediction, form):
    """To t = 1, where s = 0, in the forms that allow it; also by the grid, which is differentiated through."""
    stop = 0.9 if form == "x" else 1.0
    out = Network().out.detach()

    def end(x: Tensor, into: Tensor, grid: Tensor) -> Tensor:
        return ddim(lambda t, y: torch.tanh(y @ into + t) @ out, x, grid, path, prediction, form)

    inputs = draw(11, 2, 2), draw(1, 2, 5), torch.tensor([0.2, 0.5, stop], dtype=torch.float64)
    checked_by_differences(lambda x, into: end(x, into, inputs[2]), *(v.requires_grad_() for v in inputs[:2]))
    inner = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(end, (*inputs[:2], inner))


@pytest.mark.parametrize("path", [CosineVP(), VarianceExploding(0.02, 5.0), VariancePreserving()], ids=["cosine_vp", "ve", "vp"])
def test_stochastic_samplers_with_given_noise(path):
    out, grid = Network().out.detach(), karras_grid(path, 0.1, path.t_max, 4)
    noise = [draw(12 + k, 2, 2) for k in range(4)]

    def by_euler(x: Tensor, into: Tensor) -> Tensor:
        return euler_maruyama(lambda t, y: torch.tanh(y @ into + t) @ out, x, grid, path, noise.__getitem__)

    def by_heun(x: Tensor, into: Tensor) -> Tensor:
        return heun_churn(lambda t, y: torch.tanh(y @ into + t) @ out, x, grid, path, noise.__getitem__, Churn(2.0))

    for end in (by_euler, by_heun):
        checked_by_differences(end, draw(13, 2, 2).requires_grad_(), (draw(1, 2, 5) / 4).requires_grad_())
