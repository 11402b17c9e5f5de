"""Hand-made rows for the tests of claims."""

import itertools
import math
from dataclasses import asdict, replace
from typing import Any

import pandas as pd

from fmbench.report.claims.claim import Finding
from fmbench.report.claims.decision import decide
from fmbench.store.records import Row

FIVE = ("ddpm", "score_matching", "scoreflow", "fm_diffusion", "fm_ot")


SEEDS = range(6)


def as_frame(rows: list[Row]) -> pd.DataFrame:
    return pd.DataFrame([asdict(r) for r in rows])


def row(method: str, seed: int, metric: str, value: float | None, dataset: str = "d", **columns: Any) -> Row:
    bad = {} if value is not None else {"status": "diverged", "reason": "the loss became nan"}
    return Row(dataset, method, seed, columns.pop("stage", "s"), metric, value, columns.pop("unit", "u"), **columns, **bad)


def wobble(seed: int, method: str) -> float:
    """A spread over seeds that is never the same for two methods."""
    return math.sin(7.3 * seed + 1.9 * sum(map(ord, method)))


def diverged(rows: list[Row], method: str, seeds: Any) -> list[Row]:
    bad = {"value": None, "status": "diverged", "reason": "the loss became nan"}
    return [replace(r, **bad) if r.method == method and r.seed in seeds else r for r in rows]


def of_claim(test: Any, about: str = "trained", **sources: pd.DataFrame) -> list[Finding]:
    return [line for line in decide(test(sources)) if line.about == about]


def table1_rows(ours: float = -1.0, seeds: Any = SEEDS, lost: str = "", dataset: str = "d") -> list[Row]:
    rows = []
    for method, seed in itertools.product(FIVE, seeds):
        shift = ours if method == "fm_ot" else 0.1 * FIVE.index(method)
        for metric in ("nll", "frechet", "nfe"):
            value = None if method == lost else 10 + shift + 0.05 * seed + 0.01 * wobble(seed, method)
            rows.append(row(method, seed, metric, value, dataset, features="classifier"))
    return rows


def sweep_rows(ratio: float, seeds: Any = SEEDS, floor: float = 1e-12, others: tuple[str, ...] = FIVE[:4]) -> list[Row]:
    """Second order: an error of (c / NFE)^4, so that c is the ratio of NFE at equal error."""
    rows = []
    for method, seed in itertools.product((*others, "fm_ot"), seeds):
        c = (ratio if method == "fm_ot" else 1.0) * 10 * math.exp(0.02 * wobble(seed, method))
        for nfe in (4, 8, 20, 40, 100):
            rows.append(row(method, seed, "mse", (c / nfe) ** 4, solver="midpoint", nfe=float(nfe), stage="sweep"))
            rows.append(row(method, seed, "mse", 1.0, solver="euler", nfe=float(nfe), stage="sweep"))
        rows.append(row(method, seed, "reference_mse", floor, solver="midpoint at 1000 NFE", stage="sweep"))
    return rows


def few_step_rows(factor: dict[float, float], others: tuple[str, ...] = FIVE[:4], solver: str = "euler") -> list[Row]:
    """FM-OT's distance is so many times the others' at each NFE."""
    rows = []
    for method, seed, (nfe, ours) in itertools.product((*others, "fm_ot"), SEEDS, factor.items()):
        value = (ours if method == "fm_ot" else 1.0) * 100 / nfe * (1 + 0.02 * wobble(seed, method))
        rows.append(row(method, seed, "frechet", value, solver=solver, nfe=nfe, features="c"))
    return rows


def snapshot_rows(metric: str, curve: Any, seeds: Any = SEEDS, methods: tuple[str, ...] = FIVE) -> list[Row]:
    """``curve(method, k)`` at snapshots k = 1 .. 5, with a per cent of spread over seeds."""
    return [
        row(m, s, metric, curve(m, k) * (1 + 0.01 * wobble(s, m)), step=1000 * k, features="c", stage="learning_curve")
        for m, s, k in itertools.product(methods, seeds, range(1, 6))
    ]


def final_rows(spread: dict[str, float], lost: dict[str, int] | None = None, seeds: int = 8) -> list[Row]:
    rows = []
    for method, seed in itertools.product(("fm_diffusion", "score_matching"), range(seeds)):
        bad = seed < (lost or {}).get(method, 0)
        rows.append(row(method, seed, "final_loss", None if bad else 0.1))
        rows.append(row(method, seed, "frechet", None if bad else 10 + spread[method] * (-1) ** seed * (1 + seed / 10)))
    return rows


def half_way_rows(times: dict[str, float | None], seed: int = 0, stderr: float = 0.01, spacing: float = 0.1) -> list[Row]:
    """The half-way time of each method; None for a training that was lost."""
    rows = []
    for method, t in times.items():
        values = {"half_way": t, "half_way_stderr": stderr, "half_way_spacing": spacing}
        rows += [row(method, seed, metric, None if t is None else value, stage="trajectory") for metric, value in values.items()]
    return rows


def dequantisation_rows(fall: float, bias: float = 0.0, metric: str = "nll_averaged", dataset: str = "d") -> list[Row]:
    rows = []
    for method, seed, (i, k) in itertools.product(("ddpm", "fm_ot"), SEEDS, enumerate((1, 20, 50))):
        value = 3.0 - fall * i - bias * i + 0.001 * wobble(seed + i, method)
        rows.append(row(method, seed, metric, value, dataset, draws=k, probes=4, unit="bits/dim"))
        if metric == "nll_averaged":
            rows.append(row(method, seed, "nll_probe_bias", -bias * i, dataset, draws=k, probes=4))
    return rows
