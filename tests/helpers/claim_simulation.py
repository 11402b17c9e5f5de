"""Simulated results whose true effects are known, to measure how often the verdicts on claims are wrong or right.

The rows have the form that the claims read. A value is a mean, plus noise that all methods share at a seed, plus noise of the
training (method and seed), plus noise of the single measurement (method, seed and NFE, snapshot or K). Positive numbers have this
noise in their logarithm. The noise of a measurement is that of its samples: distances and NFE have rows with this standard error.
Three situations:

* ``equal``: every comparison is exactly at its threshold. All methods are equal, or the ratio is exactly at the limit. A claim
  should neither hold nor fail. It is the worst case for a wrong "fails".
* ``one equal``: one comparison is at its threshold, and all others are far on the claimed side. It is the worst case for a wrong
  "holds".
* ``paper``: effects of the size that the paper prints or draws.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmbench.report.claims.claim import Sources
from fmbench.report.layout import paper

FIVE = ("ddpm", "score_matching", "scoreflow", "fm_diffusion", "fm_ot")
EQUAL, ONE_EQUAL, PAPER = "equal", "one equal", "paper"
POINTS, IMAGES = "points", "images"
FAR = 100.0
"""The size of an effect that every test finds, in standard deviations of the noise."""
SHARES = (0.4, 0.4, 0.2)
"""The parts of the variance that all methods share at a seed, that a training has, and that a single measurement has."""

NOISES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], NDArray]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "uniform": lambda rng, shape: np.sqrt(12) * (rng.random(shape) - 0.5),
    "exponential": lambda rng, shape: rng.exponential(size=shape) - 1,
    "t3": lambda rng, shape: rng.standard_t(3, shape) / np.sqrt(3),
    "lognormal": lambda rng, shape: (np.exp(rng.standard_normal(shape)) - np.exp(0.5)) / np.sqrt(np.e * (np.e - 1)),
}
"""Noise of mean 0 and variance 1, by its distribution."""


@dataclass(frozen=True)
class Draws:
    """What one simulated run is made of: the generator, the number of seeds, the situation, and the distribution of the noise."""

    rng: np.random.Generator
    seeds: int
    situation: str = EQUAL
    noise: str = "normal"

    def values(self, methods: int, cells: int, variances: tuple[float, ...] = SHARES) -> NDArray:
        """Correlated noise, shape (methods, seeds, cells), from the variances of its three parts."""
        sizes = ((1, self.seeds, 1), (methods, self.seeds, 1), (methods, self.seeds, cells))
        parts = [np.sqrt(share) * NOISES[self.noise](self.rng, size) for share, size in zip(variances, sizes, strict=True)]
        return np.asarray(parts[0] + parts[1] + parts[2])


def frame(dataset: str, metric: str, values: NDArray, methods: Sequence[str] = FIVE, **cells: Sequence[object]) -> pd.DataFrame:
    """Rows of a metric from values of shape (methods, seeds, cells); ``cells`` are columns, with an entry for each cell."""
    m, s, c = (index.ravel() for index in np.indices(values.shape))
    columns = {"seed": s, "value": values.ravel()}
    columns |= {name: np.asarray(cells[name], dtype=float)[c] for name in ("nfe", "step", "draws") if name in cells}
    texts = {"dataset": dataset, "metric": metric, "unit": "u", "status": "ok", "reason": "", "features": "c"}
    words = {name: np.full(len(c), text, dtype=object) for name, text in texts.items()}
    words["method"] = np.asarray(methods, dtype=object)[m]
    words |= {name: np.asarray(cells[name], dtype=object)[c] for name in ("solver",) if name in cells}
    # Plain objects, which pandas filters many times faster than its strings.
    return pd.DataFrame(columns | {name: pd.Series(values, dtype=object) for name, values in words.items()})


def measured(
    dataset: str, metric: str, values: NDArray, spread: float, methods: Sequence[str] = FIVE, **cells: Sequence[object]
) -> pd.DataFrame:
    """Rows of a metric whose logarithm has this spread over seeds, and of its standard error over samples."""
    errors = frame(dataset, f"{metric}_stderr", values * spread * np.sqrt(SHARES[2]), methods, **cells)
    return pd.concat([frame(dataset, metric, values, methods, **cells), errors])


def shifts(draws: Draws, dataset: str, paper_effects: Sequence[float], far: float = FAR) -> NDArray:
    """The mean of each method relative to FM-OT's, in standard deviations of the noise, shape (methods, 1, 1).

    Args:
        paper_effects: of the four rivals.
        far: the size of an effect that every test finds.
    """
    effects = {
        EQUAL: [0.0] * 4,
        # Against ScoreFlow on one data set.
        ONE_EQUAL: [far, far, 0.0 if dataset == IMAGES else far, far],
        PAPER: list(paper_effects),
    }[draws.situation]
    return np.array([*effects, 0.0])[:, None, None]


@functools.cache
def table1_effects(column: str, spread: float, relative: bool) -> list[float]:
    """The rivals' numbers in the paper's CIFAR-10 column minus FM-OT's, in units of a spread over seeds."""
    printed = paper("table1")
    values = printed[printed.dataset == "cifar10"].set_index("method")[column].astype(float)
    ours = values["fm_ot"]
    return [float(np.log(values[m] / ours) if relative else values[m] - ours) / spread for m in FIVE[:4]]


NLL_SPREAD, FID_SPREAD, NFE_SPREAD = 0.02, 0.06, 0.03
"""Standard deviations over seeds of NLL (bits/dim), and of the logarithms of FID and NFE: those of the default run, rounded."""


def claim1(draws: Draws) -> Sources:
    """NLL, distance and NFE of the five methods."""
    rows = []
    for dataset in (POINTS, IMAGES):
        distance = "energy_distance" if dataset == POINTS else "frechet"
        for metric, spread, effects in (
            ("nll", NLL_SPREAD, table1_effects("nll_bpd", NLL_SPREAD, False)),
            (distance, FID_SPREAD, table1_effects("fid", FID_SPREAD, True)),
            ("nfe", NFE_SPREAD, table1_effects("nfe", NFE_SPREAD, True)),
        ):
            # Only one metric is equal in the worst case.
            still = draws.situation == ONE_EQUAL and metric != "nll"
            mean = shifts(draws, POINTS if still else dataset, effects)
            z = spread * (mean + draws.values(5, 1))
            rows.append(frame(dataset, metric, 3 + z) if metric == "nll" else measured(dataset, metric, 100 * np.exp(z), spread))
    return {"records": pd.concat(rows)}


SWEEP = (4, 8, 12, 20, 40, 100)


def claim2(draws: Draws) -> Sources:
    """Errors of a second-order solver: (c / NFE)^4, where the ratio of two c is that of the NFE at equal error."""
    spread, limit = 0.1, np.log(np.sqrt(0.6))
    rows = []
    for dataset in (POINTS, IMAGES):
        own = {EQUAL: 0.0, ONE_EQUAL: 0.0, PAPER: (np.log(0.6) - limit) / spread}[draws.situation]
        mean = shifts(draws, dataset, [-own] * 4, far=10.0)
        z = spread * (mean + draws.values(5, 1))
        z[-1] += limit
        values = (10 * np.exp(z) / np.array(SWEEP)) ** 4
        rows.append(frame(dataset, "mse", values, nfe=SWEEP, solver=["midpoint"] * len(SWEEP)))
        rows.append(frame(dataset, "reference_mse", np.full((5, draws.seeds, 1), 1e-12), solver=["midpoint at 1000 NFE"]))
    return {"records": pd.concat(rows)}


STEPS = (4, 8, 12, 20, 40)


def claim3(draws: Draws) -> Sources:
    """Distances at five NFE of three solvers."""
    effects = table1_effects("fid", FID_SPREAD, True)
    rows = []
    for dataset in (POINTS, IMAGES):
        for solver in ("euler", "midpoint", "rk4"):
            mean = np.broadcast_to(shifts(draws, dataset if solver == "euler" else POINTS, effects), (5, 1, len(STEPS))).copy()
            if draws.situation == ONE_EQUAL:
                mean[:4, :, 1:] = FAR  # equal at one NFE
            values = 100 / np.array(STEPS) * np.exp(FID_SPREAD * (mean + draws.values(5, len(STEPS))))
            metric = "energy_distance" if dataset == POINTS else "frechet"
            rows.append(measured(dataset, metric, values, FID_SPREAD, nfe=STEPS, solver=[solver] * len(STEPS)))
    return {"few_step": pd.concat(rows)}


SNAPSHOTS = tuple(range(1, 6))


def claim4(draws: Draws) -> Sources:
    """Distances at five snapshots of a training."""
    effects, rows = table1_effects("fid", FID_SPREAD, True), []
    for dataset in (POINTS, IMAGES):
        mean = np.broadcast_to(shifts(draws, dataset, effects), (5, 1, 5)).copy()
        if draws.situation == ONE_EQUAL:
            mean[:4, :, :4] = FAR  # equal at the end
        values = 10 / np.array(SNAPSHOTS) * np.exp(FID_SPREAD * (mean + draws.values(5, 5)))
        metric = "energy_distance" if dataset == POINTS else "frechet"
        rows.append(measured(dataset, metric, values, FID_SPREAD, step=[1000 * k for k in SNAPSHOTS]))
    return {"learning_curve": pd.concat(rows)}


def claim5(draws: Draws) -> Sources:
    """NFE that grows during training by a known factor: 1.25 or 2 at the thresholds, 1.1 and 3 as in the paper's figure."""
    methods, spread = ("fm_diffusion", "fm_ot", "score_matching"), 0.05
    rows = []
    for dataset in (POINTS, IMAGES):
        growth = {
            EQUAL: [1.25, 1.25, 2.0],
            ONE_EQUAL: [1.0 + 1e-3, 1.25 if dataset == IMAGES else 1.0 + 1e-3, 40.0],
            PAPER: [1.1, 1.1, 3.0],
        }[draws.situation]
        logs = np.log(growth)[:, None, None] + spread * draws.values(3, 1) * (np.array(growth) > 1.01)[:, None, None]
        values = 100 * np.exp(np.maximum(logs, 1e-6) * (np.array(SNAPSHOTS) - 1) / 4)
        rows.append(frame(dataset, "nfe", values, methods, step=[1000 * k for k in SNAPSHOTS]))
    return {"learning_curve": pd.concat(rows)}


def claim6(draws: Draws) -> Sources:
    """Trainings of two methods: steps back during training, and spread over seeds."""
    methods = ("fm_diffusion", "score_matching")
    records, curves = [], []
    for dataset in (POINTS, IMAGES):
        # The factors of score matching's noise: during training, and over seeds.
        back, spread = {EQUAL: (1.0, 1.0), ONE_EQUAL: (30.0, 1.0 if dataset == IMAGES else 1000.0), PAPER: (10.0, 5.0)}[
            draws.situation
        ]
        z = draws.values(2, 1) * np.array([1.0, spread])[:, None, None]
        records += [frame(dataset, "frechet", 100 + 0.1 * z, methods), frame(dataset, "final_loss", np.ones_like(z), methods)]
        wave = 0.1 * draws.values(2, 8) * np.array([1.0, back])[:, None, None]
        curves.append(frame(dataset, "frechet", 10 / np.arange(1, 9) ** 0.2 + wave, methods, step=list(range(1, 9))))
    return {"records": pd.concat(records), "learning_curve": pd.concat(curves)}


def claim7(draws: Draws) -> Sources:
    """Half-way times at seeds of their own: 0.6 for the rivals."""
    gap = {EQUAL: 0.0, ONE_EQUAL: 0.25, PAPER: 0.25}[draws.situation]
    times = 0.6 + 0.01 * draws.values(5, 1)
    times[-1] -= gap
    if draws.situation == ONE_EQUAL:
        times[2] -= gap  # ScoreFlow
    spacing = np.full_like(times, 0.1)
    return {"half_way": pd.concat([frame(POINTS, "half_way", times), frame(POINTS, "half_way_spacing", spacing)])}


DRAWS = (1, 2, 5)


@functools.cache
def table4_falls() -> NDArray:
    """The mean NLL of the paper's CIFAR-10 models at each K."""
    printed = paper("table4")
    return np.asarray(printed[printed.dataset == "cifar10"].groupby("k").nll_bpd.mean().astype(float))


def claim10(draws: Draws) -> Sources:
    """NLL at three K of two estimators."""
    spread, fall = 0.01, table4_falls()
    rows = []
    for metric in ("nll_averaged", "nll_paper"):
        falls = {EQUAL: [0.0, 0.0, 0.0], ONE_EQUAL: [0.0, -1.0, -1.0 - float(metric == "nll_paper")], PAPER: list(fall - fall[0])}
        noise = np.sqrt(2) * draws.values(5, 3)  # so that the noise of a step is about the spread
        values = 3 + np.array(falls[draws.situation]) + spread * noise
        rows.append(frame(IMAGES, metric, values, draws=DRAWS))
    return {"dequantisation": pd.concat(rows).assign(probes=4)}


UPSAMPLED = ("regression", "ddpm", "fm_ot")
SCORE_SPREAD, PSNR_SPREAD, SSIM_SPREAD = 0.03, 0.1, 0.005
"""Standard deviations over seeds of the logarithm of the score, of PSNR (dB) and of SSIM."""


def claim11(draws: Draws) -> Sources:
    """Distance, score, PSNR and SSIM of three super-resolution models on two data sets."""
    printed = paper("table2").set_index("model").loc[["regression", "sr3", "fm_ot"]].astype(float)
    rows = []
    for dataset in (POINTS, IMAGES):
        for metric, column, spread, higher in (
            ("frechet", "fid", FID_SPREAD, False),
            ("classifier_score", "inception_score", SCORE_SPREAD, True),
            ("psnr", "psnr", PSNR_SPREAD, False),
            ("ssim", "ssim", SSIM_SPREAD, False),
        ):
            logs = metric in ("frechet", "classifier_score")
            values = np.log(printed[column]) if logs else printed[column]
            far = FAR * (-1 if higher else 1)
            # Only regression's PSNR on one data set is equal in the worst case.
            still = dataset == IMAGES and metric == "psnr"
            effects = {
                EQUAL: [0.0, 0.0],
                ONE_EQUAL: [0.0 if still else far, far],
                PAPER: ((values - values["fm_ot"]) / spread).tolist()[:2],
            }[draws.situation]
            z = spread * (np.array([*effects, 0.0])[:, None, None] + draws.values(3, 1))
            if logs:
                rows.append(measured(dataset, metric, 10 * np.exp(z), spread, methods=UPSAMPLED))
            else:
                rows.append(frame(dataset, metric, 0.7 + z, UPSAMPLED))
    return {"records": pd.concat(rows)}


SIMULATED = {1: claim1, 2: claim2, 3: claim3, 4: claim4, 5: claim5, 6: claim6, 7: claim7, 10: claim10, 11: claim11}
"""The simulations, by the numbers of the claims. Claims 8 and 9 follow from definitions and have no noise."""


KEYS = {"few_step": "nfe", "learning_curve": "step", "dequantisation": "draws"}
"""The column that tells a real run's cells apart, by source."""


@dataclass(frozen=True)
class Block:
    """One metric of a real run: the mean over seeds, shape (methods, 1, cells), and the variances of the noise."""

    dataset: str
    metric: str
    methods: list[str]
    cells: dict[str, list[object]]
    logs: bool
    mean: NDArray
    variances: tuple[float, ...]

    def rows(self, draws: Draws) -> pd.DataFrame:
        """The rows of simulated seeds."""
        values = self.mean + draws.values(len(self.methods), self.mean.shape[2], self.variances)
        return frame(self.dataset, self.metric, np.exp(values) if self.logs else values, self.methods, **self.cells)


def blocks(source: str, rows: pd.DataFrame) -> list[Block]:
    """What a source of a real run is made of, for the five methods. Numbers that are not there for every seed are left out."""
    rows = rows[(rows.status == "ok") & rows.method.isin(FIVE)]
    if source == "few_step":
        rows = rows[~rows.solver.str.startswith("dopri5")]
    wanted = ["nll", "frechet", "energy_distance", "nfe", "mse", "reference_mse", "final_loss", "nll_averaged", "nll_paper"]
    wanted += ["frechet_stderr", "energy_distance_stderr", "nfe_stderr"]
    found = []
    for (dataset, metric, solver), group in rows[rows.metric.isin(wanted)].groupby(["dataset", "metric", "solver"], dropna=False):
        key = KEYS.get(source, "nfe" if metric == "mse" else "")
        cells = sorted(group[key].astype(float).unique()) if key else [0.0]
        at = group[key].astype(float) if key else pd.Series(0.0, group.index)
        table = group.assign(at=at).pivot_table(index="method", columns=["seed", "at"], values="value")
        seeds = sorted(group.seed.unique())
        known = np.stack([table.reindex(columns=[(s, c) for c in cells]).to_numpy() for s in seeds], 1)
        if len(seeds) < 2 or np.isnan(known).any():
            continue
        logs = bool((known > 0).all()) and not metric.startswith("nll")
        mean, variances = _parts(np.log(known) if logs else known)
        columns = {"solver": [solver] * len(cells)} | ({key: cells} if key else {})
        found.append(Block(dataset, metric, list(table.index), columns, logs, mean, variances))
    return found


def like(made_of: Sequence[Block], draws: Draws) -> pd.DataFrame:
    """Simulated seeds with the means and the spreads of a real run."""
    return pd.concat([block.rows(draws) for block in made_of]).assign(probes=4)


def _parts(known: NDArray) -> tuple[NDArray, tuple[float, ...]]:
    """The mean over seeds of values of shape (methods, seeds, cells), and the variances of the three parts of the noise."""
    mean = known.mean(1, keepdims=True)
    residual = (known - mean) * np.sqrt(known.shape[1] / (known.shape[1] - 1))
    shared = residual.mean((0, 2), keepdims=True)
    training = (residual - shared).mean(2, keepdims=True)
    return mean, (float((shared**2).mean()), float((training**2).mean()), float(((residual - shared - training) ** 2).mean()))
