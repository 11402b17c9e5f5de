"""Shapes and types that torch would broadcast or convert without a word."""

import pytest
import torch
from torch import Tensor

from fmbench.flow.divergence import hutchinson_divergence
from fmbench.flow.fields import CountingField
from fmbench.flow.general_paths import GeneralAffine
from fmbench.flow.likelihood import gaussian_log_density, log_likelihood, log_mean_p, probe_bias
from fmbench.flow.objectives import Objective
from fmbench.flow.oracle import FiniteOracle, MixtureOracle
from fmbench.flow.paths import CosineVP, OptimalTransport
from fmbench.flow.prediction import EPSILON, VELOCITY, X, convert
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.ddim import ddim
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import uniform_grid
from fmbench.flow.solvers.stochastic import Churn, euler_maruyama, heun_churn
from fmbench.flow.solvers.tableaux import FIXED
from fmbench.flow.solvers.torchdiffeq import torchdiffeq_adaptive
from fmbench.flow.training_times import UniformTime
from fmbench.flow.weighting import WEIGHTINGS

PATH, GRID = OptimalTransport(), uniform_grid(0.1, 0.9, 3)
T = torch.full((10,), 0.5, dtype=torch.float64)


def ones(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.float64)


@pytest.mark.parametrize(
    ("x0", "x1", "t"),
    [
        ((1, 2), (10, 2), (10,)),
        ((10, 2), (1, 2), (10,)),
        ((10, 2), (1, 2), (1,)),
        ((10, 2), (10, 2), (1,)),
        ((10, 1), (10, 2), (10,)),
        ((10, 2), (10, 1), (10,)),
        ((2,), (10, 2), (10,)),
        ((10, 2), (10, 2), (10, 1)),
        ((10, 10), (10, 10), (1, 10)),
    ],
)
def test_noise_data_and_times_of_other_shapes(x0, x1, t):
    objective = Objective(PATH, VELOCITY, WEIGHTINGS["uniform"], UniformTime(), 0.0, 1.0)
    for combine in (
        lambda: PATH.interpolate(ones(*x0), ones(*x1), ones(*t) / 2),
        lambda: EPSILON.target(PATH, ones(*x0), ones(*x1), ones(*t) / 2),
        lambda: objective.loss(lambda t, x: x, ones(*x0), ones(*x1), ones(*t) / 2),
    ):
        with pytest.raises(ValueError, match="must have shape"):
            combine()


@pytest.mark.parametrize("shape", [(1, 2), (10, 1), (2,), (10,), ()])
def test_a_prediction_of_another_shape_than_its_points(shape):
    for target in (EPSILON, X):
        with pytest.raises(ValueError, match=r"the prediction must have shape \(10, 2\)"):
            convert(ones(*shape), ones(10, 2), T, PATH, VELOCITY, target)


@pytest.mark.parametrize("shape", [(), (1,), (10, 1), (1, 10)])
def test_weights_and_densities_of_another_shape(shape):
    def weighting(t, path, prediction):
        return ones(*shape)

    with pytest.raises(ValueError, match="the loss weight must have shape"):
        Objective(PATH, VELOCITY, weighting, UniformTime(), 0.0, 1.0)

    class Odd(UniformTime):
        def draw(self, u, path, t_min, t_max):
            t, density = super().draw(u, path, t_min, t_max)
            return (t, density) if len(u) == 2 else (t, ones(*shape))

    objective = Objective(PATH, VELOCITY, WEIGHTINGS["uniform"], Odd(corrected=True), 0.0, 1.0)
    with pytest.raises(ValueError, match=r"their density must have shape \(10,\)"):
        objective.loss(lambda t, x: x, ones(10, 2), ones(10, 2), T)


WRONG_FIELDS = {
    "one number a sample": (lambda t, x: x[:, :1], r"\(10, 1\)"),
    "one sample": (lambda t, x: x[:1], r"\(1, 2\)"),
    "no batch": (lambda t, x: x[0], r"has \(2,\)"),
    "one number": (lambda t, x: x.mean(), r"has \(\)"),
    "another type": (lambda t, x: x.float(), "torch.float32"),
    "another device": (lambda t, x: x.to("meta"), "meta"),
}
SOLVERS = {
    "counting field": lambda f, x: CountingField(f)(T, x),
    "counting field with divergence": lambda f, x: CountingField(lambda t, x: (f(t, x), x[:, 0]))(T, x),
    "dopri5": lambda f, x: dopri5(f, x, 0.0, 1.0),
    "dopri5 shared": lambda f, x: dopri5(f, x, 0.0, 1.0, per_sample=False),
    "torchdiffeq": lambda f, x: torchdiffeq_adaptive(f, x, 0.0, 1.0),
    "euler": lambda f, x: integrate(f, x, GRID, FIXED["euler"]),
    "ddim": lambda f, x: ddim(f, x, GRID, PATH, VELOCITY),
    "euler_maruyama": lambda f, x: euler_maruyama(f, x, GRID, PATH, lambda k: x),
    "heun_churn": lambda f, x: heun_churn(f, x, GRID, PATH, lambda k: x),
    "likelihood": lambda f, x: log_likelihood(f, x, 0.0, 1.0),
    "likelihood with probes": lambda f, x: log_likelihood(f, x, 0.0, 1.0, probes=x[None]),
    "likelihood with probes, forward": lambda f, x: log_likelihood(f, x, 0.0, 1.0, probes=x[None], mode="forward"),
    "likelihood in closed form": lambda f, x: log_likelihood(f, x, 0.0, 1.0, divergence=lambda t, x: (f(t, x), x[:, 0])),
}


@pytest.mark.parametrize("solve", SOLVERS.values(), ids=SOLVERS)
@pytest.mark.parametrize("field", WRONG_FIELDS)
def test_a_field_of_another_shape_type_or_device(solve, field):
    wrong, found = WRONG_FIELDS[field]
    with pytest.raises(
        ValueError, match=rf"the velocity must have the shape, type and device of x, which are \(10, 2\).*{found}"
    ):
        solve(wrong, ones(10, 2))


@pytest.mark.parametrize("shape", [(), (10, 1), (1, 2)])
def test_noise_of_samplers_of_another_shape(shape):
    for solve in (
        lambda: euler_maruyama(lambda t, x: x, ones(10, 2), GRID, CosineVP(), lambda k: ones(*shape)),
        lambda: heun_churn(lambda t, x: x, ones(10, 2), GRID, CosineVP(), lambda k: ones(*shape), Churn(3.0)),
    ):
        with pytest.raises(ValueError, match=r"the noise of step 0 must have shape \(10, 2\)"):
            solve()


@pytest.mark.parametrize("mode", ["reverse", "forward"])
@pytest.mark.parametrize("shape", [(3, 1, 2), (3, 10, 1), (10, 2), (3, 2)])
def test_probes_of_another_shape(mode, shape):
    with pytest.raises(ValueError, match="probes must have shape"):
        hutchinson_divergence(lambda t, x: x, T, ones(10, 2), ones(*shape), mode)


@pytest.mark.parametrize("shape", [(), (1,), (10, 1), (1, 10)])
def test_a_divergence_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"the divergence must have shape \(10,\)"):
        log_likelihood(lambda t, x: x, ones(10, 2), 0.0, 1.0, divergence=lambda t, x: (x, ones(*shape)))


def test_log_densities_without_their_axes():
    with pytest.raises(ValueError, match=r"shape \(B, D\)"):
        gaussian_log_density(ones(10, 3, 4), 1.0)
    with pytest.raises(ValueError, match=r"shape \(K, B\)"):
        log_mean_p(ones(10))
    with pytest.raises(ValueError, match=r"the variance must have shape \(4, 10\)"):
        probe_bias(ones(4, 10), ones(10))


@pytest.mark.parametrize("oracle", [FiniteOracle(ones(4, 2)), MixtureOracle(ones(3, 2), torch.eye(2).expand(3, 2, 2))])
@pytest.mark.parametrize("shape", [(1,), (5,), (10, 1), (2, 5)])
def test_times_of_another_batch_than_an_oracles_points(oracle, shape):
    """Times of shape (2, 5) were taken for those of 10 samples."""
    for values in (oracle.posterior, oracle.velocity, oracle.score, oracle.log_density):
        with pytest.raises(ValueError, match=r"t must have shape \(\) or \(10,\)"):
            values(PATH, ones(*shape) / 2, ones(10, 2))


def test_a_function_of_times_with_another_shape():
    path = GeneralAffine(lambda t: t, lambda t: 1 - t)
    with pytest.raises(ValueError, match=r"a function of times must have shape \(21,\), not \(1,\)"):
        GeneralAffine(lambda t: t, lambda t: 1 - t, da=lambda t: ones(1))
    constant = GeneralAffine(lambda t: t, lambda t: 1 - t, da=lambda t: torch.tensor(1.0))
    assert all(torch.equal(a, b) for a, b in zip(path.coefficients(T), constant.coefficients(T), strict=True))
