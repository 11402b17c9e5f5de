"""Stage ``theory``: what follows from the definitions alone, for figures and ``equivalence.csv``. No data, no training."""

import csv
import io
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from fmbench.config.method_settings import method_from_values
from fmbench.flow.broadcast import expand_to
from fmbench.flow.fields import CountingField, Field, velocity_field
from fmbench.flow.objectives import build
from fmbench.flow.oracle import MixtureOracle
from fmbench.flow.paths import AffinePath, CosineVP, OptimalTransport, Rescaled, VarianceExploding, VariancePreserving
from fmbench.flow.prediction import EPSILON, PREDICTIONS, SCORE, VELOCITY, Prediction, X, convert
from fmbench.flow.solvers.adaptive import TORCHDIFFEQ_ADAPTIVE, dopri5, torchdiffeq_adaptive
from fmbench.flow.solvers.ddim import FORMS, ddim
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import karras_grid, uniform_grid
from fmbench.flow.solvers.stochastic import DIFFUSIONS, euler_maruyama, heun_churn
from fmbench.flow.solvers.tableaux import EULER, HEUN
from fmbench.flow.weighting import noise_levels
from fmbench.metrics.points import energy_distance
from fmbench.networks.mlp import MLP
from fmbench.store.files import write_text
from fmbench.store.records import table, write_table
from fmbench.system.progress import Console
from fmbench.system.rng import generator

Rows = list[dict[str, Any]]
TEXT, NUMBER, WHOLE = pa.string(), pa.float64(), pa.int64()

NOISE_LEVELS = pa.schema(
    [("method", TEXT), ("t", NUMBER), ("log_snr", NUMBER), ("weight", NUMBER), ("density", NUMBER), ("emphasis", NUMBER)]
)
FIELDS = pa.schema([("figure", TEXT), ("panel", TEXT), ("t", NUMBER), ("x", NUMBER), ("y", NUMBER), ("u", NUMBER), ("v", NUMBER)])
TRAJECTORIES = pa.schema([("path", TEXT), ("particle", WHOLE), ("t", NUMBER), ("x", NUMBER), ("y", NUMBER)])
DENSITIES = pa.schema([("path", TEXT), ("particle", WHOLE), ("t", NUMBER), ("x", NUMBER), ("density", NUMBER)])
EQUIVALENCE = pa.schema(
    [
        ("check", TEXT),
        ("schedule", TEXT),
        ("prediction", TEXT),
        ("form", TEXT),
        ("order", WHOLE),
        ("steps", WHOLE),
        ("max_difference", NUMBER),
        ("scale", NUMBER),
        ("expected", TEXT),
        ("found", TEXT),
    ]
)

SAMPLERS = pa.schema(
    [
        ("path", TEXT),
        ("sampler", TEXT),
        ("kind", TEXT),
        ("nfe", NUMBER),
        ("energy_distance", NUMBER),
        ("floor", NUMBER),
        ("n", WHOLE),
    ]
)

IDENTITIES = pa.schema(
    [("identity", TEXT), ("path", TEXT), ("t", NUMBER), ("max_difference", NUMBER), ("scale", NUMBER), ("n", WHOLE)]
)

PATHS: dict[str, AffinePath] = {
    "ot": OptimalTransport(),
    "vp": VariancePreserving(),
    "cosine_vp": CosineVP(),
    "ve": VarianceExploding(),
}
ROUNDING, DIFFERENT = 1e-9, 1e-6
"""Largest difference, relative to the samples' scale, that is rounding; and the smallest that is a difference."""


def run(spec: dict[str, Any], out: Path, summary: Path, console: Console) -> None:
    """Write ``noise_levels``, ``fields``, ``trajectories``, ``densities``, ``samplers``, ``identities`` and ``equivalence`` as
    parquet into ``out``, and the last as CSV into ``summary`` too."""
    equivalence = [*ddim_against_euler(), *forms_of_ddim(), *rescaling(), *second_order()]
    tables = {
        "noise_levels": (emphasis_of(spec["methods"]), NOISE_LEVELS),
        "fields": ([*conditional_fields()], FIELDS),
        "trajectories": ([*trajectories()], TRAJECTORIES),
        "densities": ([*densities()], DENSITIES),
        "samplers": ([*samplers()], SAMPLERS),
        "equivalence": (equivalence, EQUIVALENCE),
        "identities": ([*identities()], IDENTITIES),
    }
    for name, (rows, schema) in tables.items():
        write_table(out / f"{name}.parquet", table(rows, schema))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(EQUIVALENCE.names)
    for row in equivalence:
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in (row[name] for name in EQUIVALENCE.names)])
    write_text(summary, text.getvalue())
    against = [row for row in equivalence if row["expected"] != row["found"]]
    counts = ", ".join(f"{name} {len(rows)}" for name, (rows, _) in tables.items())
    console.say(f"rows: {counts}; {len(against)} equivalences not as expected -> {out}, {summary}")


def emphasis_of(methods: list[dict[str, Any]]) -> Rows:
    """The noise levels that each method's loss cares about; oracles have no loss."""
    rows: Rows = []
    for values in methods:
        method = method_from_values(values)
        if method.oracle is None:
            columns = [v.tolist() for v in noise_levels(build(method), 400)]
            names = NOISE_LEVELS.names[1:]
            rows += [{"method": method.name, **dict(zip(names, row, strict=True))} for row in zip(*columns, strict=True)]
    return rows


def conditional_fields() -> Iterator[dict[str, Any]]:
    """Fig. 2: the conditional score on the VP path against the conditional field on the OT path; Fig. 8: the VP field.

    For one data point, on a grid, at t = 0, 1/3, 2/3 and the path's end, eq. 15.
    """
    x1 = torch.tensor([0.75, 0.75], dtype=torch.float64)
    axis = torch.linspace(-2, 2, 15, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    panels: list[tuple[str, str, AffinePath, Prediction]] = [
        ("fig02", "diffusion path: conditional score", PATHS["vp"], SCORE),
        ("fig02", "OT path: conditional field", PATHS["ot"], VELOCITY),
        ("fig08", "diffusion path: conditional field", PATHS["vp"], VELOCITY),
        ("fig08", "OT path: conditional field", PATHS["ot"], VELOCITY),
    ]
    for figure, panel, path, what in panels:
        for fraction in (0, 1 / 3, 2 / 3, 1):
            t = torch.tensor(fraction * path.t_max, dtype=torch.float64)
            # The network that knows x1: its prediction of the data, turned into what is shown.
            arrows = convert(x1.expand_as(points), points, t, path, X, what)
            for (x, y), (u, v) in zip(points.tolist(), arrows.tolist(), strict=True):
                yield {"figure": figure, "panel": panel, "t": fraction, "x": x, "y": y, "u": u, "v": v}


def trajectories() -> Iterator[dict[str, Any]]:
    """Fig. 3: where the conditional fields carry noise to their data points, x_t = a x1 + s x0 (Theorem 3)."""
    g = generator(0, "theory/trajectories")
    x1 = torch.tensor([[1.5, 1.0], [-1.2, 1.4], [0.4, -1.7]], dtype=torch.float64).repeat_interleave(6, 0)
    x0 = torch.randn(x1.shape, generator=g, dtype=torch.float64)
    for name in ("vp", "ot"):
        path = PATHS[name]
        for t in torch.linspace(0, path.t_max, 61, dtype=torch.float64):
            x_t, _ = path.interpolate(x0, x1, t.expand(len(x1)))
            for particle, (x, y) in enumerate(x_t.tolist()):
                yield {"path": name, "particle": particle, "t": float(t), "x": x, "y": y}


def identities() -> Iterator[dict[str, Any]]:
    """Appendix D: the field of the VP path is the drift of the probability-flow ODE of the VP diffusion.

    The path's side is Theorem 3's field (eq. 15), and its marginal (eq. 8) for a mixture. The diffusion's side is
    dx/dr = -beta(r) (x + grad log p_r) / 2 in its own time r = 1 - t, written out from beta and the density alone: the Gaussian
    of mean exp(-B/2) x1 and variance 1 - exp(-B), B the integral of beta by Gauss-Legendre quadrature, and its gradient by
    automatic differentiation. Differences are to be read against ``scale``, the largest component of the field.
    """
    path = VariancePreserving()
    g = generator(0, "theory/identities")
    oracle = two_dimensional()
    n = 256
    one = torch.tensor([0.75, 0.75], dtype=torch.float64)
    covariances = oracle.vectors @ torch.diag_embed(oracle.eigenvalues) @ oracle.vectors.mT
    data = {
        "conditional field of one point": (one[None], torch.zeros(1, 2, 2, dtype=torch.float64), torch.ones(1).double()),
        "marginal field of a mixture": (oracle.means, covariances, oracle.log_weights.exp()),
    }
    for identity, mixture in data.items():
        for t in (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999):
            time = torch.tensor(t, dtype=torch.float64)
            conditional = len(mixture[0]) == 1
            x1 = one.expand(n, 2) if conditional else oracle.sample(n, g)
            x, _ = path.interpolate(torch.randn(n, 2, generator=g, dtype=torch.float64), x1, time.expand(n))
            ours = convert(x1, x, time, path, X, VELOCITY) if conditional else oracle.velocity(path, time, x)
            theirs = -_probability_flow(path.beta_min, path.beta_max, 1 - t, x, *mixture)  # dx/dt = -dx/dr
            scale, difference = ours.abs().max().item(), (ours - theirs).abs().max().item()
            yield {"identity": identity, "path": "vp", "t": t, "max_difference": difference, "scale": scale, "n": n}


def _probability_flow(
    beta_min: float, beta_max: float, r: float, x: Tensor, means: Tensor, covariances: Tensor, weights: Tensor
) -> Tensor:
    """dx/dr = -beta(r) (x + grad log p_r(x)) / 2, data being a mixture of Gaussians: by the diffusion's definitions alone."""

    def beta(r: Tensor) -> Tensor:
        return beta_min + (beta_max - beta_min) * r

    nodes, shares = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(8))
    integral = r / 2 * (shares * beta(r * (nodes + 1) / 2)).sum()
    kept, spread = torch.exp(-integral / 2), -torch.expm1(-integral) * torch.eye(x.shape[1], dtype=torch.float64)
    parts = torch.distributions.MultivariateNormal(kept * means, kept**2 * covariances + spread)
    point = x.clone().requires_grad_()
    log_density = torch.logsumexp(weights.log() + parts.log_prob(point[:, None]), 1)
    (gradient,) = torch.autograd.grad(log_density.sum(), point)
    return -beta(torch.tensor(r, dtype=torch.float64)) * (x + gradient) / 2


def densities() -> Iterator[dict[str, Any]]:
    """p_t(x) of a 1-D mixture under every path, and the flow's trajectories (eq. 6, 8).

    x is in units of the standard deviation of p_t, so that paths of every scale can be compared. Rows of density have
    particle -1.
    """
    oracle = one_dimensional()
    weights = oracle.log_weights.exp()[:, None]
    mean = (weights * oracle.means).sum()
    std1 = float(((weights * (oracle.eigenvalues + oracle.means**2)).sum() - mean**2).sqrt())
    axis = torch.linspace(-2.5, 2.5, 101, dtype=torch.float64)
    quantiles = torch.linspace(0.04, 0.96, 12, dtype=torch.float64)
    for name, path in PATHS.items():
        grid = torch.linspace(path.t_min, path.t_max, 61, dtype=torch.float64)
        c = path.coefficients(grid)
        scales = (c.a**2 * std1**2 + c.s**2).sqrt()
        x0 = path.base_std * torch.special.ndtri(quantiles)[:, None]

        def field(t: Tensor, x: Tensor, path: AffinePath = path) -> Tensor:
            return oracle.velocity(path, t.clamp(path.t_min, path.t_max), x)

        x, start = x0, path.t_min
        for k, (t, scale) in enumerate(zip(grid.tolist(), scales.tolist(), strict=True)):
            if k:
                x, start = dopri5(field, x, start, t, rtol=1e-6, atol=1e-6).x, t
            density = torch.exp(oracle.log_density(path, grid[k], axis[:, None] * scale)) * scale
            for position, value in zip(axis.tolist(), density.tolist(), strict=True):
                yield {"path": name, "particle": -1, "t": t, "x": position, "density": value}
            for particle, position in enumerate((x[:, 0] / scale).tolist()):
                yield {"path": name, "particle": particle, "t": t, "x": position, "density": None}


def one_dimensional() -> MixtureOracle:
    """Two narrow components and a broad one on the line."""
    return MixtureOracle(
        torch.tensor([[-1.2], [0.6], [1.4]]), torch.tensor([[[0.01]], [[0.01]], [[0.09]]]), torch.tensor([0.4, 0.25, 0.35])
    )


def two_dimensional() -> MixtureOracle:
    """Three components in the plane, one of them correlated."""
    covariances = torch.tensor([[[0.05, 0.0], [0.0, 0.05]], [[0.2, 0.12], [0.12, 0.1]], [[0.02, 0.0], [0.0, 0.3]]])
    return MixtureOracle(torch.tensor([[1.2, 0.5], [-0.8, 0.9], [0.1, -1.1]]), covariances, torch.tensor([0.3, 0.4, 0.3]))


STEPS = 20
SCHEDULES: dict[str, AffinePath] = {"straight": OptimalTransport(0.0), **PATHS}


def _setting(path: AffinePath) -> tuple[Tensor, Tensor]:
    """Starting points and a grid that stays off the ends, where some form or prediction is undefined on some path."""
    x = torch.randn(64, 2, generator=generator(0, "theory/equivalence"), dtype=torch.float64)
    span = path.t_max - path.t_min
    grid = uniform_grid(path.t_min + 0.05 * span, path.t_max - 0.05 * span, STEPS)
    c = path.coefficients(grid[0])
    return (c.a**2 + c.s**2).sqrt() * x, grid


def any_network() -> Field:
    """A network with its initial weights: what is shown holds whatever a network puts out. float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(0, "theory/network").initial_seed())
        network = MLP((2,), width=64, depth=2).double().requires_grad_(False)
    return lambda t, x: 4 * network(t.to(x.dtype).expand(x.shape[0]), x)


def _row(
    check: str, schedule: str, prediction: str, form: str, order: int, a: Tensor, b: Tensor, expected: str
) -> dict[str, Any]:
    difference, scale = float((a - b).abs().max()), float(b.abs().max())
    relative = difference / scale
    found = "rounding" if relative < ROUNDING else "different" if relative > DIFFERENT else "between"
    return {
        "check": check,
        "schedule": schedule,
        "prediction": prediction,
        "form": form,
        "order": order,
        "steps": STEPS,
        "max_difference": difference,
        "scale": scale,
        "expected": expected,
        "found": found,
    }


def ddim_against_euler() -> Rows:
    """DDIM against Euler on the velocity, for every schedule and prediction: the same where a and s are linear in t."""
    rows, network = [], any_network()
    for schedule, path in SCHEDULES.items():
        x, grid = _setting(path)
        for name, prediction in PREDICTIONS.items():
            one = ddim(network, x, grid, path, prediction)
            two = integrate(velocity_field(network, path, prediction), x, grid, EULER)
            expected = "rounding" if isinstance(path, OptimalTransport) else "different"
            rows.append(_row("DDIM = Euler on the velocity", schedule, name, "plain", 1, one, two, expected))
    return rows


def forms_of_ddim() -> Rows:
    """The three reparametrised forms of DDIM against the plain update."""
    rows, network = [], any_network()
    for schedule, path in SCHEDULES.items():
        x, grid = _setting(path)
        for name, prediction in PREDICTIONS.items():
            plain = ddim(network, x, grid, path, prediction)
            for form in FORMS[1:]:
                other = ddim(network, x, grid, path, prediction, form)
                rows.append(_row("forms of DDIM agree", schedule, name, form, 1, other, plain, "rounding"))
    return rows


def rescaling() -> Rows:
    """A network of one schedule used on another that is the first times c(t): DDIM ends at the same point, Euler does not.

    ``vp`` with c = 1 / a is the VE schedule of the same noise levels.
    """
    factors: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
        **{name: (name, lambda t: torch.exp(1.5 * t)) for name in SCHEDULES},
        "vp as ve": ("vp", lambda t: 1 / PATHS["vp"].coefficients(t).a),
    }
    rows, network = [], any_network()
    for name, (schedule, factor) in factors.items():
        path = SCHEDULES[schedule]
        other = Rescaled(path, factor)
        x, grid = _setting(path)
        c = [float(factor(t)) for t in (grid[0], grid[-1])]

        def rescaled(t: Tensor, y: Tensor, factor: Callable[[Tensor], Tensor] = factor) -> Tensor:
            return network(t, y / expand_to(factor(t), y))

        for prediction in (EPSILON, X):
            one = ddim(network, x, grid, path, prediction)
            two = ddim(rescaled, c[0] * x, grid, other, prediction) / c[1]
            rows.append(_row("DDIM under rescaling", name, prediction.name, "plain", 1, two, one, "rounding"))
            one = integrate(velocity_field(network, path, prediction), x, grid, EULER)
            two = integrate(velocity_field(rescaled, other, prediction), c[0] * x, grid, EULER) / c[1]
            rows.append(_row("Euler under rescaling", name, prediction.name, "", 1, two, one, "different"))
    return rows


def second_order() -> Rows:
    """How the forms part at second order, and each form's error against the exact flow, over the number of steps.

    On the exact field of a mixture, where a prediction's error is the solver's alone.
    """
    rows: Rows = []
    oracle = two_dimensional()
    for schedule in ("straight", "vp", "cosine_vp"):
        path = SCHEDULES[schedule]

        def field(t: Tensor, x: Tensor, path: AffinePath = path) -> Tensor:
            return oracle.velocity(path, t, x)

        x, grid = _setting(path)
        exact = dopri5(field, x, float(grid[0]), float(grid[-1]), rtol=1e-11, atol=1e-11).x
        for steps in (5, 10, 20, 40, 80):
            times = uniform_grid(float(grid[0]), float(grid[-1]), steps)
            for order in (1, 2):
                ends = {form: ddim(field, x, times, path, VELOCITY, form, order) for form in FORMS[1:]}
                ends["velocity"] = integrate(field, x, times, EULER if order == 1 else HEUN)
                for form, end in ends.items():
                    row = _row("error", schedule, "exact", form, order, end, exact, "")
                    rows.append(row | {"steps": steps, "found": ""})
                    if form != "u" and order == 2 and steps == STEPS:
                        same = form == "velocity" and schedule == "straight"
                        expected = "rounding" if same else "different"
                        rows.append(_row("second order against form u", schedule, "exact", form, 2, end, ends["u"], expected))
    return rows


SAMPLES = 2000
Sampler = Callable[[CountingField[Tensor]], Tensor]


def samplers() -> Iterator[dict[str, Any]]:
    """What each sampler's samples cost and how near they come to the data: energy distance over measured NFE.

    On the exact field of a mixture, from the same noise. All have the same marginals in the limit of small steps: the
    deterministic ones follow the flow, the stochastic ones the equation of :mod:`fmbench.flow.solvers.stochastic`. The floor is
    the root mean square distance of as many exact draws. OT starts at t = 0.01: a stochastic sampler cannot start where a = 0.
    """
    oracle = two_dimensional()
    exact = oracle.sample(SAMPLES, generator(0, "theory/samplers/exact")).numpy()
    redrawn = [oracle.sample(SAMPLES, generator(0, f"theory/samplers/floor/{k}")).numpy() for k in range(8)]
    floor = math.sqrt(sum(energy_distance(draw, exact) ** 2 for draw in redrawn) / len(redrawn))
    for name, start in (("ot", 0.01), ("vp", 0.0)):
        for sampler, kind, solve in _samplers(PATHS[name], start):
            field = _counted(oracle, PATHS[name], start)
            distance = energy_distance(solve(field).numpy(), exact)
            nfe = field.evaluations / SAMPLES
            columns = {"path": name, "sampler": sampler, "kind": kind, "nfe": nfe, "energy_distance": distance}
            yield columns | {"floor": floor, "n": SAMPLES}


def _counted(oracle: MixtureOracle, path: AffinePath, start: float) -> CountingField[Tensor]:
    return CountingField(lambda t, x: oracle.velocity(path, t, x), start, path.t_max)


def _samplers(path: AffinePath, start: float) -> Iterator[tuple[str, str, Sampler]]:
    x0 = torch.randn(SAMPLES, 2, generator=generator(0, "theory/samplers/start"), dtype=torch.float64)
    for nfe in (6, 12, 24, 48, 96):
        yield from _fixed_samplers(
            path, x0, karras_grid(path, start, path.t_max, nfe), karras_grid(path, start, path.t_max, nfe // 2)
        )
    for method in TORCHDIFFEQ_ADAPTIVE:
        solve = partial(torchdiffeq_adaptive, x=x0, t0=start, t1=path.t_max, method=method, rtol=1e-5, atol=1e-5)
        yield f"torchdiffeq {method}", "adaptive", solve
    for per_sample, name in ((False, "dopri5, one step size"), (True, "dopri5, a step size per sample")):
        yield name, "adaptive", partial(_dopri5, x=x0, t0=start, t1=path.t_max, per_sample=per_sample, rtol=1e-5, atol=1e-5)


def _dopri5(field: Field, **arguments: Any) -> Tensor:
    return dopri5(field, **arguments).x


def _fixed_samplers(path: AffinePath, x0: Tensor, fine: Tensor, coarse: Tensor) -> Iterator[tuple[str, str, Sampler]]:
    """Samplers of one evaluation a step on the fine grid, of two on the coarse one."""

    def noise(step: int) -> Tensor:
        return torch.randn(x0.shape, generator=generator(0, f"theory/samplers/noise/{step}"), dtype=torch.float64)

    yield "Euler", "ode", lambda f: integrate(f, x0, fine, EULER)
    yield "DDIM", "ode", lambda f: ddim(f, x0, fine, path, VELOCITY)
    yield "Heun", "ode", lambda f: integrate(f, x0, coarse, HEUN)
    yield "Heun in noise levels", "ode", lambda f: heun_churn(f, x0, coarse, path, noise)
    yield "Heun with churn", "sde", lambda f: heun_churn(f, x0, coarse, path, noise, churn=0.2 * len(coarse))
    yield "Euler-Maruyama, reverse SDE", "sde", lambda f: euler_maruyama(f, x0, fine, path, noise)
    yield "Euler-Maruyama, g^2 = 2 s", "sde", lambda f: euler_maruyama(f, x0, fine, path, noise, DIFFUSIONS["two_sigma"])
