"""Objectives: the five losses of the paper, Theorem 2, and building from a method."""

import dataclasses

import numpy as np
import pytest
import torch
from draws import draw
from point_network import behind_inputs, network
from torch import Tensor

from fmbench.config import names
from fmbench.config.methods import METHODS, ORACLE, Method, Part
from fmbench.flow.mean_velocity import JUMPS
from fmbench.flow.objectives import Objective, build
from fmbench.flow.paths import PATHS, CosineVP, OptimalTransport, VarianceExploding, VariancePreserving
from fmbench.flow.prediction import EPSILON, PREDICTIONS, VELOCITY, X, convert
from fmbench.flow.solvers.tableaux import FIXED
from fmbench.flow.training_times import TIME_DISTRIBUTIONS, TimeDistribution, UniformTime
from fmbench.flow.weighting import WEIGHTINGS
from fmbench.networks import NETWORKS
from fmbench.networks.mlp import MLP

NETWORKED = [m for m in METHODS.values() if m.oracle is None and m.path is not None and m.jumps is None]


def paper_vp(t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """T(1 - t), T'(1 - t), alpha and sigma_t of eq. 18."""
    r = 1 - t
    T, dT = 0.1 * r + r**2 * (20 - 0.1) / 2, 0.1 + r * (20 - 0.1)
    return T, dT, torch.exp(-T / 2), torch.sqrt(1 - torch.exp(-T))


def vp_point(t, x0, x1):
    _, _, alpha, sigma = paper_vp(t)
    return alpha * x1 + sigma * x0


def eq_45_ddpm(t, x0, x1):
    return (network(t.flatten(), vp_point(t, x0, x1)) - x0) ** 2


def eq_43_residual(t, x0, x1):
    # The paper's s is minus the score, with target x0 / sigma; the network puts out the score.
    s = -network(t.flatten(), vp_point(t, x0, x1))
    return (s - x0 / paper_vp(t)[3]) ** 2


def eq_43_score_matching(t, x0, x1):
    return paper_vp(t)[3] ** 2 * eq_43_residual(t, x0, x1)


def eq_43_scoreflow(t, x0, x1):
    return paper_vp(t)[1] * eq_43_residual(t, x0, x1)


def eq_9_with_eq_19(t, x0, x1):
    x = vp_point(t, x0, x1)
    T, dT, _, _ = paper_vp(t)
    u = -dT / 2 * (torch.exp(-T) * x - torch.exp(-T / 2) * x1) / (1 - torch.exp(-T))
    return (network(t.flatten(), x) - u) ** 2


def eq_23_fm_ot(t, x0, x1):
    x = (1 - (1 - 1e-4) * t) * x0 + t * x1
    return (network(t.flatten(), x) - (x1 - (1 - 1e-4) * x0)) ** 2


@pytest.mark.parametrize(
    ("name", "formula", "t_max"),
    [
        ("ddpm", eq_45_ddpm, 1 - 1e-5),
        ("score_matching", eq_43_score_matching, 1 - 1e-5),
        ("scoreflow", eq_43_scoreflow, 1 - 1e-5),
        ("fm_diffusion", eq_9_with_eq_19, 1 - 1e-5),
        ("fm_ot", eq_23_fm_ot, 1.0),
    ],
)
def test_the_five_losses_are_those_of_the_paper(name, formula, t_max):
    x0, x1 = draw(0, 2, 6, 1, 2, 3)
    u = torch.tensor([0.0, 0.1, 0.37, 0.5, 0.8, 0.999], dtype=torch.float64)
    objective = build(METHODS[name])
    assert (objective.t_min, objective.t_max) == (0.0, t_max)
    expected = formula((t_max * u).reshape(-1, 1, 1, 1), x0, x1).flatten(1).mean(1)
    torch.testing.assert_close(objective.loss(network, x0, x1, u), expected, rtol=1e-9, atol=0)


def test_oracles_are_the_twins_of_trained_methods():
    for name, twin in (("oracle_ot", "fm_ot"), ("oracle_vp", "fm_diffusion")):
        assert METHODS[name].oracle == ORACLE
        assert METHODS[name].oracle is not ORACLE  # a shared default would change all methods at once
        assert (METHODS[name].path, METHODS[name].prediction) == (METHODS[twin].path, METHODS[twin].prediction)


def test_losses_are_zero_for_the_network_that_knows():
    """Given x1, every target is a function of (t, x_t)."""
    x0, x1 = draw(1, 2, 4, 3)
    u = torch.tensor([0.1, 0.4, 0.6, 0.95], dtype=torch.float64)
    for method in NETWORKED:
        o = build(method)

        def knowing(t, x, o=o):
            a, s, _, _ = (v[:, None] for v in o.path.coefficients(t))
            return o.prediction.target(o.path, (x - a * x1) / s, x1, t)

        knowing = behind_inputs(o.prediction, o.path, knowing)
        torch.testing.assert_close(o.loss(knowing, x0, x1, u), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", [method.name for method in NETWORKED])
def test_losses_in_float32_keep_type_and_value(name):
    x0, x1 = draw(2, 2, 8, 4).float()
    u = torch.linspace(0, 0.99, 8)
    objective = build(METHODS[name])
    loss = objective.loss(network, x0, x1, u)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), objective.loss(network, x0.double(), x1.double(), u), rtol=1e-4, atol=0)


@pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=lambda p: p.name)
@pytest.mark.parametrize("path", [OptimalTransport(0.1), VariancePreserving(), VarianceExploding(0.2, 5.0)], ids=repr)
@pytest.mark.parametrize("measured", [EPSILON, VELOCITY, X], ids=lambda p: p.name)
def test_a_converted_weight_makes_the_loss_that_of_the_measured_prediction(path, prediction, measured):
    """One noise network, read as any other kind, has the same noise loss: the weight undoes the conversion."""
    x0, x1 = draw(3, 2, 5, 3)
    u = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)

    def loss(predicted, weighting):
        def read(t, x):
            return convert(network(t, x), x, t, path, EPSILON, predicted)

        read = behind_inputs(predicted, path, read)
        return Objective(path, predicted, WEIGHTINGS[weighting], UniformTime(), 0.05, 0.95).loss(read, x0, x1, u)

    torch.testing.assert_close(loss(prediction, measured.name), loss(measured, "uniform"), rtol=1e-8, atol=1e-10)


POINTS = torch.tensor([[1.0, 0.5], [-0.8, 0.2], [0.1, -1.0]], dtype=torch.float64)


def marginal_velocity(path, t: Tensor, x: Tensor) -> Tensor:
    """Eq. 8 for a data set of three points: the conditional fields, weighted by how likely x came from each."""
    a, s, da, ds = path.coefficients(t)
    centred = x[:, None, :] - a * POINTS
    weights = torch.softmax(-centred.square().sum(-1) / (2 * s**2), 1)
    return (weights[..., None] * (ds / s * centred + da * POINTS)).sum(1)


@pytest.mark.parametrize("time", [0.15, 0.4, 0.6])
@pytest.mark.parametrize("path", [OptimalTransport(0.1), VariancePreserving(), CosineVP()], ids=repr)
def test_conditional_and_marginal_flow_matching_have_one_gradient(path, time):
    """Theorem 2, with the expectation over noise by Gauss-Hermite quadrature and over data by summing."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(48)
    grid = torch.from_numpy(np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2))
    weight = torch.from_numpy(np.outer(weights, weights).ravel() / weights.sum() ** 2)
    x0, x1 = grid.repeat(3, 1), POINTS.repeat_interleave(len(grid), 0)
    weight = weight.repeat(3) / 3
    objective = Objective(path, VELOCITY, WEIGHTINGS["uniform"], UniformTime(), 0.0, 0.999)
    t = torch.tensor(time, dtype=torch.float64)
    u = (t / 0.999).expand(len(x0))
    x_t, conditional = path.interpolate(x0, x1, t.expand(len(x0)))
    marginal = marginal_velocity(path, t, x_t)
    assert (weight @ (conditional - marginal).square().sum(1)) > 0.01

    gradients, gaps = [], []
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = MLP((2,), width=8, depth=2).double()
        cfm = weight @ objective.loss(net, x0, x1, u)
        fm = weight @ (net(t.expand(len(x0)), x_t) - marginal).square().mean(1)
        gaps.append((cfm - fm).item())
        for loss in (cfm, fm):
            parts = torch.autograd.grad(loss, list(net.parameters()))
            gradients.append(torch.cat([p.flatten() for p in parts]))
        torch.testing.assert_close(gradients[-2], gradients[-1], rtol=1e-6, atol=1e-8)
        assert gradients[-1].norm() > 0.1
    assert gaps[0] == pytest.approx(gaps[1], rel=1e-6)
    # The constant is the variance of the conditional field given x_t.
    assert gaps[0] == pytest.approx(float(weight @ (conditional - marginal).square().mean(1)), rel=1e-6)


@pytest.mark.parametrize("part", ["path", "prediction", "weighting", "time"])
def test_unknown_names_list_the_known_ones(part):
    registry = {"path": PATHS, "prediction": PREDICTIONS, "weighting": WEIGHTINGS, "time": TIME_DISTRIBUTIONS}[part]
    with pytest.raises(ValueError, match="'nonsense'") as caught:
        build(dataclasses.replace(METHODS["fm_ot"], **{part: Part("nonsense")}))
    assert all(name in str(caught.value) for name in registry)


@pytest.mark.parametrize(
    "change",
    [
        {"path": Part("ot", {"beta_min": 0.1})},
        {"time": Part("uniform", {"std": 2.0})},
        {"path": Part("ot", {"sigma_min": 2.0})},
        {"time": Part("logit_normal", {"std": 0.0})},
    ],
)
def test_wrong_parameters_are_refused_by_name_and_value(change):
    ((name, value),) = next(iter(change.values())).parameters.items()
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        build(dataclasses.replace(METHODS["fm_ot"], **change))


def test_parameters_reach_path_and_time_distribution():
    objective = build(
        Method("m", Part("ot", {"sigma_min": 0.2}), Part("x"), time=Part("logit_normal", {"mean": 1.0, "std": 0.5}))
    )
    assert objective.path == OptimalTransport(0.2)
    assert objective.prediction is X
    assert (objective.times.mean, objective.times.std, objective.times.corrected) == (1.0, 0.5, False)


class EverythingAtHalf(TimeDistribution):
    def draw(self, u, path, t_min, t_max):
        return torch.full_like(u, 0.5, dtype=torch.float64), torch.ones_like(u, dtype=torch.float64)


def half_the_error(t, path, network):
    return torch.full_like(t, 0.5, dtype=torch.float64)


def test_plug_ins_by_dotted_name():
    method = Method(
        "mine",
        Part("fmbench.flow.paths:OptimalTransport", {"sigma_min": 0.3}),
        Part("fmbench.flow.prediction:X"),
        Part(f"{__name__}:half_the_error"),
        Part(f"{__name__}:EverythingAtHalf"),
    )
    x0, x1 = draw(5, 2, 3, 4)
    expected = 0.5 * (network(torch.full((3,), 0.5).double(), 0.5 * x1 + 0.65 * x0) - x1).square().mean(1)
    torch.testing.assert_close(build(method).loss(network, x0, x1, torch.rand(3)), expected)


def test_names_are_those_of_the_registries():
    assert tuple(PATHS) == names.PATHS
    assert tuple(PREDICTIONS) == names.PREDICTIONS
    assert tuple(WEIGHTINGS) == names.WEIGHTINGS
    assert tuple(TIME_DISTRIBUTIONS) == names.TIME_DISTRIBUTIONS
    assert ("none", *JUMPS) == names.JUMP_KINDS
    assert tuple(NETWORKS) == names.NETWORKS
    assert {name: tableau.stages for name, tableau in FIXED.items()} == names.FIXED_SOLVERS
    assert all(name == method.name for name, method in METHODS.items())


def test_a_network_of_another_shape_is_refused():
    objective = build(METHODS["fm_ot"])
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"puts out shape \(3, 1\) for samples of shape \(3, 2\)"):
        objective.loss(lambda t, x: x[:, :1], x, x, torch.zeros(3))


@pytest.mark.parametrize("time", ["uniform", "log_snr", "logit_normal"])
@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.path is not None])
def test_a_loss_neither_asks_a_gpu_for_a_number_nor_sends_it_one(name, time, monkeypatch):
    """A captured CUDA graph allows neither. Tensors on meta have no numbers, so asking for one fails."""
    objective = build(dataclasses.replace(METHODS[name], time=Part(time), t_min=0.01, t_max=0.99))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("made from numbers of the CPU")

    for maker in ("tensor", "as_tensor", "from_numpy"):
        monkeypatch.setattr(torch, maker, refuse)
    x0, x1 = torch.empty(3, 2, 4, 4, device="meta"), torch.empty(3, 2, 4, 4, device="meta")
    loss = objective.loss(lambda t, x: x, x0, x1, torch.empty(3, device="meta"))
    assert loss.shape == (3,) and loss.device.type == "meta"
