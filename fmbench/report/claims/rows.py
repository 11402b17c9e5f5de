"""What the claims share on rows: selection, pairs by seed, the methods to compare, and lost seeds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmbench.report.claims.claim import Finding
from fmbench.report.claims.verdicts import NOT_TESTED
from fmbench.report.style import DISTANCES, distance_label, label

OURS, DIFFUSION = "fm_ot", ("ddpm", "score_matching", "scoreflow", "fm_diffusion")
ORACLE, ORACLE_DIFFUSION = "oracle_ot", ("oracle_vp",)
PAPER_SOLVERS = ("euler", "midpoint", "rk4")
"""The fixed-step solvers of the paper's Fig. 7 and its appendix, each on the uniform grid. Claims on solvers are about these."""


def select(rows: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """The rows in which every named column has the given value."""
    for name, value in columns.items():
        rows = rows[rows[name] == value]
    return rows


def by_dataset(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each data set with its rows, in the order of the rows."""
    for dataset in rows.dataset.unique():
        yield dataset, rows[rows.dataset == dataset]


def by_seed(rows: pd.DataFrame, method: str, metric: str) -> pd.Series:
    """The good values of a metric, indexed by seed; one row a seed."""
    kept = good(rows, method, metric)
    found: dict[int, float] = {}
    for seed, value in zip(rows.seed.to_numpy()[kept], rows.value.to_numpy(float)[kept], strict=True):
        found.setdefault(int(seed), float(value))
    return pd.Series(found, dtype=float)


def good(rows: pd.DataFrame, method: str, metric: str) -> NDArray:
    """Whether each row is a good value of this method and metric."""
    # Of plain arrays, which compare many times faster than columns.
    return np.asarray(
        (rows.method.to_numpy() == method) & (rows.metric.to_numpy() == metric) & (rows.status.to_numpy() == "ok"), dtype=bool
    )


def pairs(ours: pd.Series, other: pd.Series) -> pd.DataFrame:
    """The values at the index entries (seeds or iterations) that both have, in columns ``ours`` and ``other``."""
    left, right = (dict(zip(series.index.tolist(), series.tolist(), strict=True)) for series in (ours, other))
    at = sorted(key for key in left if key in right and not (pd.isna(left[key]) or pd.isna(right[key])))
    return pd.DataFrame({"ours": [left[key] for key in at], "other": [right[key] for key in at]}, index=at, dtype=float)


def paper_solves(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the paper's solvers at the NFE that all of them spent, those of them that a run has.

    So a claim does not change with the other solvers and NFE that a run also measures. The rows are of one data set and metric.
    """
    rows = rows[rows.solver.isin(PAPER_SOLVERS)]
    spent = [set(of_solver.nfe) for _, of_solver in rows.groupby("solver", sort=False)]
    return rows[rows.nfe.isin(set.intersection(*spent) if spent else set())]


def main_distance(rows: pd.DataFrame) -> str | None:
    """The metric that is the main distance to the data: Frechet for images, energy for points; None without rows of one."""
    return next((metric for metric in DISTANCES if (rows.metric == metric).any()), None)


def metric_name(rows: pd.DataFrame, metric: str) -> str:
    """The name of a metric in print; the Frechet distance of Inception's features is called FID."""
    names = {distance_label(metric, features) for features in rows[rows.metric == metric].features.dropna()}
    return "FID" if "FID" in names else DISTANCES.get(metric, metric)


def in_prose(method: str) -> str:
    """A method's name in a sentence, without a comma: "FM (OT path)" for "FM, OT path"."""
    name, _, path = label(method).partition(", ")
    return f"{name} ({path})" if path else name


def listed(methods: Iterable[str]) -> str:
    """The methods' names in a sentence, "and" before the last."""
    *before, last = map(in_prose, methods)
    return f"{', '.join(before)} and {last}" if before else last


# The methods compared


@dataclass(frozen=True)
class Contest:
    """A comparison: the method the claim is about, against each of the others.

    Attributes:
        about: "trained", or "oracle" for the closed-form fields.
    """

    about: str
    ours: str
    others: tuple[str, ...]


TRAINED = Contest("trained", OURS, DIFFUSION)
ORACLES = Contest("oracle", ORACLE, ORACLE_DIFFUSION)


def contests(rows: pd.DataFrame) -> list[Contest]:
    """The comparisons that the rows' methods allow: of trained methods, of oracles."""
    methods = set(rows.method.unique())
    found = [TRAINED] if OURS in methods else []
    return found + ([ORACLES] if ORACLE in methods and methods & set(ORACLE_DIFFUSION) else [])


def no_contest(claim: int, dataset: str) -> Finding:
    """The line for a data set without rows of FM-OT."""
    return Finding(claim, dataset, "trained", "", NOT_TESTED, f"There are no rows of {in_prose(OURS)} on this data set")


def no_distance(claim: int, dataset: str, part: str = "") -> Finding:
    """The line for a data set without rows of a main distance."""
    return Finding(claim, dataset, "trained", part, NOT_TESTED, "There are no rows with a distance to the data")


# Seeds that were lost


@dataclass(frozen=True)
class Lost:
    """The seeds of a method that failed, how many it has in all, and why the first failed."""

    seeds: tuple[int, ...]
    of: int
    reason: str


def lost_seeds(rows: pd.DataFrame, methods: Sequence[str], metric: str) -> dict[str, Lost]:
    """The methods that lost seeds, with those seeds.

    A seed is lost if it has a row of the metric that is not ok, or if it has no row of the metric and another that is not ok.
    """
    found: dict[str, Lost] = {}
    if (rows.status == "ok").all():
        return found
    for method in methods:
        own = rows[rows.method == method]
        bad, of_metric = own.status != "ok", own.metric == metric
        elsewhere = set(own[bad].seed) - set(own[of_metric & ~bad].seed)
        seeds = sorted(set(own[bad & of_metric].seed) | elsewhere)
        if seeds:
            of_first = own[bad & (own.seed == seeds[0])]
            first = of_first.sort_values("metric", key=lambda names: names != metric, kind="stable").iloc[0]
            found[method] = Lost(tuple(map(int, seeds)), own.seed.nunique(), f"{first.status}: {first.reason}")
    return found


def say_lost(lost: Mapping[str, Lost], without: Sequence[str] = ()) -> str:
    """How many seeds each method lost and why; methods in ``without`` are left out."""
    return "; ".join(
        f"{in_prose(m)} lost {len(found.seeds)} of {found.of} seeds ({found.reason})"
        for m, found in lost.items()
        if m not in without
    )


def any_diverged(lost: Mapping[str, Lost]) -> bool:
    """Whether a method lost seeds by divergence, which is a result, and not only by missing measurements."""
    return any("diverged" in found.reason for found in lost.values())
