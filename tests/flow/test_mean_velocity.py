"""The mean velocity (MeanFlow, arXiv:2505.13447) where it is known in closed form: on Gaussian data."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from draws import draw
from torch import Tensor, nn

from fmbench.config.methods import METHODS, Part
from fmbench.flow.fields import CountingField
from fmbench.flow.mean_velocity import MeanVelocity, jump, jump_field
from fmbench.flow.objectives import build
from fmbench.flow.paths import CosineVP, OptimalTransport
from fmbench.networks.mlp import MLP
from fmbench.networks.transformer import Transformer
from fmbench.networks.unet import UNet

STD, MEAN = 0.6, 1.5
"""Of the data, N(MEAN, STD^2) in every dimension. Every marginal is Gaussian, and its flow moves each quantile."""
every_path = pytest.mark.parametrize("path", [OptimalTransport(0.1), OptimalTransport(0.0), CosineVP()], ids=repr)


def quantile_flow(path, t: Tensor, r: Tensor, x: Tensor) -> Tensor:
    """Where the flow of Gaussian data carries x from t to r: mean and standard deviation of x_t = a x1 + s x0 are known."""

    def moments(time):
        c = path.coefficients(time)
        return c.a * MEAN, torch.sqrt(c.a**2 * STD**2 + c.s**2)

    (m_t, s_t), (m_r, s_r) = moments(t), moments(r)
    return m_r + s_r / s_t * (x - m_t)


def mean_velocity(path):
    """The closed form as a network of times (t, r - t) (B, 2) and points (B, 1)."""

    def network(times: Tensor, x: Tensor) -> Tensor:
        t, span = times[:, :1], times[:, 1:]
        safe = torch.where(span == 0, 1.0, span)
        return (quantile_flow(path, t, t + safe, x) - x) / safe

    return network


def velocity(path, t: Tensor, x: Tensor) -> Tensor:
    """The marginal velocity of Gaussian data: the mean of a' x1 + s' x0 given x."""
    c = path.coefficients(t)
    variance = c.a**2 * STD**2 + c.s**2
    return c.da * MEAN + (c.a * c.da * STD**2 + c.s * c.ds) / variance * (x - c.a * MEAN)


T = torch.tensor([0.1, 0.3, 0.5, 0.7], dtype=torch.float64)
R = torch.tensor([0.9, 0.4, 0.8, 0.75], dtype=torch.float64)


@every_path
def test_the_identity_that_it_is_trained_by(path):
    """m = v + (r - t) dm/dt along the trajectory, by a central difference along it."""
    x, h, network = draw(0, 4, 1), 1e-5, mean_velocity(path)

    def along(step: float) -> Tensor:
        return network(torch.stack([T + step, R - T - step], 1), quantile_flow(path, T[:, None], T[:, None] + step, x))

    slope = (along(h) - along(-h)) / (2 * h)
    right = velocity(path, T[:, None], x) + (R - T)[:, None] * slope
    torch.testing.assert_close(along(0.0), right, rtol=1e-7, atol=1e-7)


@every_path
def test_one_jump_with_the_exact_mean_velocity_ends_where_the_flow_does(path):
    x, network = draw(1, 50, 1), mean_velocity(path)
    for steps in (1, 2, 5):
        field = CountingField(jump_field(network), 0.0, 1.0)
        grid = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        expected = quantile_flow(path, torch.tensor([[0.0]]).double(), torch.tensor([[1.0]]).double(), x)
        torch.testing.assert_close(jump(field, x, grid, path), expected, rtol=1e-10, atol=1e-10)
        assert field.calls == steps


class Scaled(nn.Module):
    """k times the exact mean velocity."""

    def __init__(self, path):
        super().__init__()
        self.k, self.exact = nn.Parameter(torch.tensor(1.0, dtype=torch.float64)), mean_velocity(path)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.k * self.exact(t, x)


def expected_gradient(path, k: float) -> float:
    """That of E|D|^2 by k, over noise and data by Gauss-Hermite quadrature, for one pair of times; the weight is 1 at power 0."""
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(24))
    x0, x1 = (v.reshape(-1, 1) for v in torch.meshgrid(nodes, MEAN + STD * nodes, indexing="ij"))
    weight = (weights[:, None] * weights).flatten() / weights.sum() ** 2
    network = Scaled(path)
    network.k.data.fill_(k)
    ends = (torch.full((len(x0),), 0.2, dtype=torch.float64), torch.full((len(x0),), 0.8, dtype=torch.float64))
    loss = MeanVelocity(power=0.0).loss(network, path, ends, x0, x1)
    (gradient,) = torch.autograd.grad(weight @ loss, network.k)
    return float(gradient)


@every_path
def test_the_exact_mean_velocity_is_where_the_loss_has_no_gradient(path):
    """Given x_t, the conditional velocity in the target has the marginal one as its mean, and the network is linear in x."""
    assert expected_gradient(path, 1.0) == pytest.approx(0, abs=1e-9)
    assert abs(expected_gradient(path, 1.1)) > 1e-3


@pytest.mark.parametrize(("power", "optimum"), [(0.0, 0.5), (0.75, 0.0013)])
def test_the_weight_moves_the_optimum_away_from_the_mean_where_the_velocity_is_skew(power, optimum):
    """At r = t, where three of four conditional velocities are 0 and one is 2: their mean is 0.5.

    At power p the optimum is that of E(D^2 + c)^(1 - p), found here on a grid.
    """
    velocities = torch.tensor([0.0, 0.0, 0.0, 2.0], dtype=torch.float64)[:, None]
    settings, times = MeanVelocity(power=power), torch.full((4,), 0.5, dtype=torch.float64)
    grid = torch.linspace(-1, 3, 40001, dtype=torch.float64)
    objective = ((grid - velocities) ** 2 + settings.offset).pow(1 - power).mean(0)
    assert grid[objective.argmin()].item() == pytest.approx(optimum, abs=2e-4)
    guess = torch.tensor(optimum, dtype=torch.float64, requires_grad=True)
    for shift, sign in ((-0.0007, -1), (0.0007, 1)):
        x0 = torch.zeros(4, 1, dtype=torch.float64)
        loss = settings.loss(
            lambda t, x, s=shift: (guess + s).expand(len(x), 1), OptimalTransport(0.0), (times, times), x0, velocities
        )
        assert torch.autograd.grad(loss.mean(), guess)[0].sign() == sign


def test_the_loss_by_hand():
    """|D|^2 over (|D|^2 + c)^p, where D is the network less v + (r - t) times its derivative, here of sin(x) + t r."""
    x0, x1 = draw(2, 2, 4, 3)
    path, t, r = OptimalTransport(0.0), T[:, None], R[:, None]
    x, v = (1 - t) * x0 + t * x1, x1 - x0
    slope = torch.cos(x) * v + r
    square = (torch.sin(x) + t * r - v - (r - t) * slope).square().sum(1)
    found = MeanVelocity(power=0.75, offset=0.01).loss(
        lambda times, x: torch.sin(x) + times[:, :1] * times.sum(1, keepdim=True), path, (T, R), x0, x1
    )
    torch.testing.assert_close(found, square / (square + 0.01) ** 0.75, rtol=1e-12, atol=0)


def test_the_weight_and_the_derivative_have_no_gradient():
    """The gradient of a sample is that of its squared error to a fixed target, times a fixed weight."""
    x0, x1 = draw(3, 2, 4, 2)
    torch.manual_seed(0)
    network = MLP((2,), width=8, depth=2, spans=True).double()
    path, settings = OptimalTransport(0.0), MeanVelocity()
    found = torch.autograd.grad(settings.loss(network, path, (T, R), x0, x1).sum(), list(network.parameters()))
    x, v = path.interpolate(x0, x1, T)
    h = 1e-6

    def at(step: float) -> Tensor:
        return network(torch.stack([T + step, R - T - step], 1), x + step * v)

    slope = (at(h) - at(-h)).detach() / (2 * h)
    error = at(0.0) - (v + (R - T)[:, None] * slope)
    weight = (error.square().sum(1) + settings.offset).detach() ** -settings.power
    expected = torch.autograd.grad((weight * error.square().sum(1)).sum(), list(network.parameters()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_times_are_in_order_and_alike_for_the_rest_of_the_batch():
    s = torch.rand(20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pairs = torch.stack([s, torch.cat([s[-1:], s[:-1]])], 1).sort(1).values
    t, r = MeanVelocity(share=0.75).ends(s)
    assert torch.equal(t, pairs[:, 0]) and (r == t).tolist() == [True] * 5 + [False] * 15
    assert torch.equal(r[5:], pairs[5:, 1])
    assert torch.equal(*MeanVelocity(share=0.0).ends(s))


def test_at_equal_times_it_is_flow_matching():
    """The span is 0, so the derivative does not count."""
    x0, x1 = draw(4, 2, 4, 2)
    network = MLP((2,), width=8, depth=2, spans=True).double()
    x, v = OptimalTransport(0.0).interpolate(x0, x1, T)
    found = MeanVelocity(power=0.0).loss(network, OptimalTransport(0.0), (T, T), x0, x1)
    torch.testing.assert_close(found, (network(T, x) - v).square().sum(1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", ["raw", "sinusoidal", "unet", "transformer"])
def test_a_network_with_spans_has_the_weights_of_one_without_and_needs_them_to_jump(kind):
    def made(**options):
        torch.manual_seed(3)
        if kind == "unet":
            return UNet((1, 4, 4), channels=8, channels_multiple=(1, 2), depth=1, head_channels=8, **options)
        if kind == "transformer":
            return Transformer((1, 4, 4), width=16, depth=2, heads=2, **options)
        return MLP((2,), width=16, depth=2, time_embedding=kind, **options)

    plain, spans = made(), made(spans=True)
    before, after = plain.state_dict(), spans.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert {name.partition(".")[0] for name in after.keys() - before.keys()} == {"span"}
    x = draw(5, 3, *((1, 4, 4) if kind in ("unet", "transformer") else (2,))).float()
    for parameter in spans.parameters():  # the last layers start at 0
        nn.init.normal_(parameter, std=0.3)
    t = torch.tensor([0.1, 0.5, 0.9])
    at_zero, later = (spans(torch.stack([t, torch.full((3,), span)], 1), x) for span in (0.0, 0.4))
    torch.testing.assert_close(at_zero, spans(t, x), rtol=0, atol=0)
    assert (later - at_zero).abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"takes times of shape \(B,\), not \(3, 2\); build it with spans=True"):
        plain(torch.stack([t, t], 1), x)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 1.5}, "share must be between 0 and 1, not 1.5"),
        ({"power": -0.1}, "power must be between 0 and 1, not -0.1"),
        ({"offset": 0.0}, "offset must be positive and finite, not 0.0"),
        ({"offset": math.inf}, "offset must be positive and finite, not inf"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MeanVelocity(**settings)


# As the part of a method


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction": Part("x"), "t_max": 0.9}, "jumps go with prediction: velocity"),
        ({"weighting": Part("epsilon"), "t_min": 0.1}, "jumps go with .* weighting: uniform"),
        ({"target": Part("marginal")}, "jumps go with .* target: conditional"),
        ({"time": Part("logit_normal", {"corrected": True})}, "times that are not corrected"),
        ({"jumps": Part("mean_velocity", {"share": 2.0})}, "share must be between 0 and 1, not 2.0"),
        ({"jumps": Part("mean_velocity", {"part": 0.5})}, r"jumps 'mean_velocity' does not take the parameters \{'part': 0.5\}"),
        (
            {"jumps": Part("fmbench.flow.paths:CosineVP")},
            "jumps must be a fmbench.flow.mean_velocity.MeanVelocity, not a CosineVP",
        ),
    ],
)
def test_a_method_whose_parts_do_not_go_with_jumps_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        build(dataclasses.replace(METHODS["mean_flow"], **change))


def test_mean_flow_has_the_settings_of_its_paper():
    """Its times are logit-normal(-2, 2) from data to noise, so logit-normal(2, 2) here: the median is 1 / (1 + e^-2)."""
    objective = build(METHODS["mean_flow"])
    assert (objective.jumps, objective.path) == (MeanVelocity(0.75, 0.75, 1e-3), OptimalTransport(0.0))
    t, _ = objective.times.draw(torch.tensor([0.5], dtype=torch.float64), objective.path, 0.0, 1.0)
    assert t.item() == pytest.approx(1 / (1 + math.exp(-2)))


def test_the_objective_gives_each_sample_two_times_of_its_distribution():
    objective = dataclasses.replace(build(METHODS["mean_flow"]), jumps=MeanVelocity(share=1.0))
    x0, x1 = draw(6, 2, 5, 2)
    u = torch.tensor([0.2, 0.9, 0.4, 0.1, 0.6], dtype=torch.float64)
    seen = []

    def network(times: Tensor, x: Tensor) -> Tensor:
        seen.append(times.clone())
        return x

    loss = objective.loss(network, x0, x1, u)
    t, _ = objective.times.draw(u, objective.path, 0.0, 1.0)
    pairs = torch.stack([t, t.roll(1)], 1).sort(1).values
    (times,) = (value for value in seen)
    torch.testing.assert_close(torch.stack([times[:, 0], times.sum(1)], 1), pairs, rtol=1e-12, atol=0)
    expected = objective.jumps.loss(lambda times, x: x, objective.path, (pairs[:, 0], pairs[:, 1]), x0, x1)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
