"""What the paper claims, each claim tested on parquet rows alone: ``claims.csv``, ``claims.md``, ``claims.tex``.

A claim is one function from the rows to lines of evidence (:class:`~fmbench.report.evidence.Finding`). A claim that fails on
these rows is shown as failing; what cannot be tested says which file is missing and what makes it. How intervals and verdicts
come about is in :mod:`fmbench.report.evidence`; every threshold is a constant here, with its reason. Claims are about the
paper's five methods; of methods of one's own nothing is claimed. Lines on oracles, the closed-form field of the training set,
answer what depends on the path alone, and do not enter a claim's overall verdict.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial.distance import cdist

from fmbench.config.names import STEP_COSTS
from fmbench.errors import DataError
from fmbench.report.evidence import (
    ENOUGH_SEEDS,
    FAILS,
    HOLDS,
    INCONCLUSIVE,
    LEVEL,
    NOT_TESTED,
    Finding,
    Judged,
    combine,
    combine_leaning,
    coverage,
    evaluations_at,
    half_time,
    judge,
    relative_difference,
)
from fmbench.report.layout import SECOND_ORDER_UP_TO, latex_table, markdown_table, paper, tex, to_csv, write_all
from fmbench.report.style import label
from fmbench.store.benchmark import stale_files
from fmbench.store.records import read_rows, read_table

OURS, DIFFUSION = "fm_ot", ("ddpm", "score_matching", "scoreflow", "fm_diffusion")
ORACLE, ORACLE_DIFFUSION = "oracle_ot", ("oracle_vp",)
DISTANCES = {"frechet": "Frechet distance", "energy_distance": "energy distance"}
"""The main distance of images and of points; with Inception's features the first is called FID."""

ABOUT_SIXTY = math.sqrt(0.6 * 1.0)
"""Claim 2: a ratio of NFE below this (0.77) is nearer to the paper's 0.6 than to no saving at all, as ratios go."""
FLOOR_MARGIN = 100.0
"""Claim 2: errors are compared above so many times the reference's own mean squared error, which then shifts an error's root by
a tenth at most, and the NFE of a second-order solver by 5 %."""
LEVELS = 9
"""Claim 2: error levels compared, evenly spaced in the logarithm over the range that both curves cover."""
LEAST_RANGE = 4.0
"""Claim 2: errors that the curves have in common must span this factor (doubling the NFE of a second-order solver divides the
mean squared error by 16), else one interpolated point would stand for a curve."""
EVERY = 0.9
"""Claim 3: "at every budget" is held to nine tenths of the budgets: among some ten per solver, one may go the other way by
chance. Likewise it fails where so many are decidedly lost that fewer than nine tenths remain."""
CONSTANT_NFE = 1.25
"""Claim 5: largest over smallest NFE along training that still counts as constant. dopri5 spends 6 evaluations a step, so with
some 50 to 100 evaluations two or three steps more or less are within it."""
DRASTIC_NFE = 2.0
"""Claim 5: a change is drastic if sampling costs twice as much at one time of the training as at another."""
EARLIER = 0.05
"""Claim 7: a difference in t that is seen: half the spacing of a strip of ten frames. Where the states are spaced more coarsely
it is half their spacing, about what interpolation between them may be wrong by."""
ROUNDING = 1e-9
"""Claims 8 and 9: relative differences below this are float64 rounding (the stage ``theory`` uses the same)."""
GROUPS = 10
"""Claim 7: groups of samples left out in turn for the interval; nine degrees of freedom widen it by a seventh."""
WAY_SAMPLES = 2000
"""Claim 7: the first so many samples; the distances between them are a square of that."""

FILES = {
    "records": "records.parquet",
    "learning_curve": "learning_curve.parquet",
    "few_step": "few_step.parquet",
    "trajectory": "trajectory.parquet",
    "dequantisation": "dequantisation.parquet",
    "fields": "theory/fields.parquet",
    "trajectories": "theory/trajectories.parquet",
    "identities": "theory/identities.parquet",
}
"""What claims are tested on, below the results folder; any may be missing but the first."""
_OF_RECORDS = ("records", "learning_curve", "few_step", "dequantisation")

Sources = Mapping[str, pd.DataFrame]
"""The files that are there, by their names in :data:`FILES`."""
Lines = list[Finding]


@dataclass(frozen=True)
class Claim:
    """One claim: what is claimed, where the paper makes it, how it is tested, and the files that takes."""

    number: int
    title: str
    statement: str
    where: str
    how: str
    needs: tuple[str, ...]
    test: Callable[[Sources], Lines]


# What the tests share


def _has(rows: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    for name, value in columns.items():
        rows = rows[rows[name] == value]
    return rows


def _datasets(rows: pd.DataFrame) -> list[str]:
    return list(rows.dataset.unique())


def _by_seed(rows: pd.DataFrame, method: str, metric: str) -> pd.Series:
    """The finite values of a metric, indexed by seed; one row a seed."""
    found = _has(rows, method=method, metric=metric, status="ok")
    return found.drop_duplicates("seed").set_index("seed").value


def _pairs(ours: pd.Series, other: pd.Series) -> pd.DataFrame:
    """Values of the seeds that both have, columns ``ours`` and ``other``."""
    return pd.concat([ours.rename("ours"), other.rename("other")], axis=1, join="inner").dropna().sort_index()


def _distance(rows: pd.DataFrame) -> str | None:
    """The main distance that a data set has."""
    return next((metric for metric in DISTANCES if (rows.metric == metric).any()), None)


def _name(rows: pd.DataFrame, metric: str) -> str:
    features = rows[rows.metric == metric].features.dropna()
    inception = metric == "frechet" and features.str.startswith("pytorch-fid InceptionV3(").any()
    return "FID" if inception else DISTANCES.get(metric, metric)


def _from(judged: Judged, scale: Callable[[float], float] = float) -> dict[str, Any]:
    """The columns of a finding that a judgement fills, its numbers scaled for reading (a logarithm to a ratio)."""

    def shown(value: float) -> float | None:
        return scale(value) if math.isfinite(value) else None

    return {
        "value": shown(judged.value),
        "low": shown(judged.low),
        "high": shown(judged.high),
        "interval": "seeds" if judged.seeds > 1 else "",
        "seeds": judged.seeds,
        "coverage": coverage(judged.seeds),
        "leans": judged.leans,
    }


def _against(
    compared: Mapping[str, Sequence[float]],
    ours: str,
    others: Sequence[str],
    lost: Mapping[str, "Lost"],
    **columns: Any,
) -> Finding:
    """One line on "ours is lower than every other", from the differences to each other for each seed.

    The numbers shown are those against the other that comes closest (the largest mean difference). It holds if ours is lower
    than each (an intersection-union test), and fails if any is lower than ours. Others without numbers leave it inconclusive.
    Seeds that ours lost keep it from holding: those left are the ones that went well. They do not keep it from failing.
    """
    judged = {m: j for m, v in compared.items() if (j := judge(v, 0.0)).verdict != NOT_TESTED}
    absent = [m for m in others if m not in judged]
    lacking = "; ".join(f"{label(m)}: {lost[m].reason if m in lost else 'no rows'}" for m in absent)
    partly = _survivors(lost, absent)
    if not judged:
        lacking = f"{label(ours)}: {lost[ours].reason}" if ours in lost else lacking
        tried = any("diverged" in found.reason for found in lost.values())
        return Finding(verdict=INCONCLUSIVE if tried else NOT_TESTED, why=f"nothing to compare with ({lacking})", **columns)
    closest = max(judged, key=lambda m: judged[m].value)
    verdict = combine(j.verdict for j in judged.values())
    leans = combine_leaning((j.verdict, j.leans) for j in judged.values())
    if verdict == HOLDS:
        why = f"lower than {'each of ' if len(judged) > 1 else ''}{_list(judged)}; {judged[closest].why}"
    else:
        reasons_why: dict[str, list[str]] = {}
        for method, j in judged.items():
            if j.verdict == verdict:
                reasons_why.setdefault(j.why, []).append(method)
        outcome = "higher than" if verdict == FAILS else "not told apart from"
        why = "; ".join(f"{outcome} {_list(methods)}: {because}" for because, methods in reasons_why.items())
    if partly:
        why += f". Over the seeds that went well: {partly}"
    if absent:
        why += f". Not compared with {lacking}"
    if absent or ours in lost:
        verdict, leans = _not_holding(verdict, leans)
    return Finding(verdict=verdict, why=why, against=closest, **_from(judged[closest]) | {"leans": leans}, **columns)


def _list(methods: Iterable[str]) -> str:
    return ", ".join(label(m) for m in methods)


@dataclass(frozen=True)
class Lost:
    """The seeds of a method that went bad, how many it has in all, and why the first did."""

    seeds: tuple[int, ...]
    of: int
    reason: str


def _lost(rows: pd.DataFrame, methods: Sequence[str], metric: str) -> dict[str, Lost]:
    """Methods with seeds that have a row of the metric that is not ok, or only rows of other metrics, one of which is not."""
    found = {}
    for method in methods:
        own = rows[rows.method == method]
        bad, of_metric = own.status != "ok", own.metric == metric
        elsewhere = set(own[bad].seed) - set(own[of_metric & ~bad].seed)
        seeds = sorted(set(own[bad & of_metric].seed) | elsewhere)
        if seeds:
            first = (
                own[bad & (own.seed == seeds[0])].sort_values("metric", key=lambda names: names != metric, kind="stable").iloc[0]
            )
            found[method] = Lost(tuple(map(int, seeds)), own.seed.nunique(), f"{first.status}: {first.reason}")
    return found


def _survivors(lost: Mapping[str, Lost], absent: Sequence[str] = ()) -> str:
    return "; ".join(
        f"{label(m)} lost {len(found.seeds)} of {found.of} seeds, {found.reason}" for m, found in lost.items() if m not in absent
    )


def _not_holding(verdict: str, leans: str) -> tuple[str, str]:
    """The verdict and leaning where something keeps a line from holding, but not from failing."""
    return (INCONCLUSIVE if verdict == HOLDS else verdict), ("" if leans == HOLDS else leans)


def _contests(rows: pd.DataFrame) -> list[tuple[str, str, tuple[str, ...]]]:
    """The comparisons that these rows allow: (about, ours, others)."""
    methods = set(rows.method)
    found = [("trained", OURS, DIFFUSION)] if OURS in methods else []
    return found + ([("oracle", ORACLE, ORACLE_DIFFUSION)] if ORACLE in methods and methods & set(ORACLE_DIFFUSION) else [])


def _no_contest(claim: int, dataset: str) -> Finding:
    return Finding(claim, dataset, "trained", "", NOT_TESTED, f"there is no {label(OURS)} on this data set")


# The claims


def lowest(sources: Sources) -> Lines:
    """1: paired differences, FM-OT minus each other method, of NLL, distance and NFE; lower than all must be."""
    records, lines = sources["records"], []
    for dataset in _datasets(records):
        here = _has(records, dataset=dataset)
        contests = _contests(here)
        if not any(about == "trained" for about, *_ in contests):
            lines.append(_no_contest(1, dataset))
        for about, ours, others in contests:
            for metric in ("nll", _distance(here), "nfe") if about == "trained" else ("nfe",):
                if metric is None:
                    lines.append(Finding(1, dataset, about, "distance", NOT_TESTED, "no rows of a distance to the data"))
                    continue
                own = _by_seed(here, ours, metric)
                compared = {}
                for other in others:
                    pairs = _pairs(own, _by_seed(here, other, metric))
                    compared[other] = (pairs.ours - pairs.other).tolist()
                unit = here[here.metric == metric].unit.iloc[0] if (here.metric == metric).any() else ""
                name = {"nll": "NLL", "nfe": "NFE"}.get(metric) or _name(here, metric)
                lines.append(
                    _against(
                        compared,
                        ours,
                        others,
                        _lost(here, (ours, *others), metric),
                        claim=1,
                        dataset=dataset,
                        about=about,
                        part=name,
                        statistic="difference to the closest other",
                        unit=unit,
                        # A FID is no distance of other features.
                        paper=_printed_difference(dataset, metric)
                        if about == "trained" and (metric != "frechet" or name == "FID")
                        else None,
                    )
                )
    return lines


def _printed_difference(dataset: str, metric: str) -> float | None:
    column = {"nll": "nll_bpd", "frechet": "fid", "nfe": "nfe"}.get(metric)
    printed = paper("table1")
    values = printed[printed.dataset == dataset].set_index("method")
    if column is None or OURS not in values.index or not set(DIFFUSION) <= set(values.index):
        return None
    return float(values[column][OURS] - values[column][list(DIFFUSION)].min())


def fewer_evaluations(sources: Sources) -> Lines:
    """2: the NFE of the midpoint rule at which FM-OT comes down to an error, over that of a diffusion path, by interpolation."""
    records, lines = sources["records"], []
    for dataset in _datasets(records):
        here = _has(records, dataset=dataset)
        curves = _has(here, metric="mse", solver="midpoint")
        if curves.empty:
            lines.append(Finding(2, dataset, "trained", "", NOT_TESTED, "the sweep has no rows of the midpoint rule"))
            continue
        contests = _contests(here)
        if not any(about == "trained" for about, *_ in contests):
            lines.append(_no_contest(2, dataset))
        for about, ours, others in contests:
            for other in [m for m in others if m in set(here.method)]:
                lines.append(_equal_error(dataset, about, ours, other, here))
    return lines


def _equal_error(dataset: str, about: str, ours: str, other: str, here: pd.DataFrame) -> Finding:
    """One pair of methods, from all rows of the data set, so that seeds without a curve are named."""
    curves = _has(here, metric="mse", solver="midpoint", status="ok")
    floors = _has(here, metric="reference_mse", status="ok").set_index(["method", "seed"]).value
    numbers = {m: set(here[here.method == m].seed) for m in (ours, other)}
    columns: dict[str, Any] = {
        "claim": 2,
        "dataset": dataset,
        "about": about,
        "part": "midpoint rule",
        "against": other,
        "statistic": "geometric mean ratio of NFE at equal error",
        "unit": "ratio",
        "paper": 0.6 if about == "trained" else None,
    }
    found = curves[curves.method.isin([ours, other])]
    seeds = sorted(set(found[found.method == ours].seed) & set(found[found.method == other].seed))
    if not seeds:
        lost = _lost(_has(here, metric="mse", solver="midpoint"), (ours, other), "mse")
        why = f"no seed has both ({_survivors(lost)})" if lost else "no seed has both"
        return Finding(verdict=INCONCLUSIVE if lost else NOT_TESTED, why=why, **columns)
    found = found[found.seed.isin(seeds)]
    by_curve = found.sort_values("nfe", kind="stable").groupby(["method", "seed"]).value
    bottoms = [max(low, FLOOR_MARGIN * floors.get(key, 0.0)) for key, low in by_curve.min().items()]
    # What a curve comes down from is its error at the fewest evaluations: where it rises first, it never comes down from there.
    bottom, top = max(bottoms), float(by_curve.first().min())
    if not top > LEAST_RANGE * bottom > 0:
        why = f"no range of errors is common to both: from {bottom:.2g} (above the references' own) up to {top:.2g}"
        return Finding(verdict=NOT_TESTED, why=why, **columns)
    # The bounds themselves are ends of curves; a hair inside, rounding cannot put them outside.
    levels = np.geomspace(bottom * (1 + 1e-9), top * (1 - 1e-9), LEVELS)
    logs = []
    for seed in seeds:
        spent = []
        for method in (ours, other):
            curve = _has(found, method=method, seed=seed)
            spent.append(evaluations_at(curve.value.to_numpy(), curve.nfe.to_numpy(), levels))
        logs.append(np.log(spent[0] / spent[1]))
    ratios = [float(np.mean(v)) for v in logs]
    judged = judge(ratios, math.log(ABOUT_SIXTY))
    verdict, leans = judged.verdict, judged.leans
    by_level = np.exp(np.mean(logs, 0))
    why = f"at errors from {levels[0]:.1g} to {levels[-1]:.1g} the ratio is {by_level.min():.2f} to {by_level.max():.2f}; "
    why += f"against {ABOUT_SIXTY:.2f}, {judged.why}"
    for method in (ours, other):
        without = sorted(numbers[method] - set(curves[curves.method == method].seed))
        if without:
            why += f". {label(method)} has no curve of seed {', '.join(map(str, without))}"
            if method == ours:
                verdict, leans = _not_holding(verdict, leans)
    if broken := [str(seed) for seed, ratio in zip(seeds, ratios, strict=True) if not math.isfinite(ratio)]:
        why += f". No ratio of seed {', '.join(broken)}, an error is 0"
        verdict, leans = _not_holding(verdict, leans)
    return Finding(verdict=verdict, why=why, **columns, **_from(judged, math.exp) | {"leans": leans})


def best_at_every_budget(sources: Sources) -> Lines:
    """3: FM-OT's distance to the data against the best other's, at every budget of every fixed-step solver."""
    budget, lines = sources["few_step"], []
    fixed = budget[[str(s).partition("/")[0] in STEP_COSTS for s in budget.solver]]
    for dataset in _datasets(fixed):
        here = _has(fixed, dataset=dataset)
        metric = _distance(here)
        contests = _contests(here)
        if metric is None or not any(about == "trained" for about, *_ in contests):
            lines.append(_no_contest(3, dataset))
        for about, ours, others in contests if metric else []:
            for solver in here.solver.unique():
                rows = _has(here, solver=solver, metric=metric)
                lines.append(_at_budgets(dataset, about, ours, others, solver, rows))
    return lines or [Finding(3, "all", "trained", "", NOT_TESTED, "there are no rows of fixed-step solvers")]


def _signed(metric: str, values: pd.Series) -> bool:
    """Whether a distance may be about 0 or below, so that a relative difference of two of it means nothing."""
    return metric == "energy_distance" or bool((values <= 0).any())


def _at_budgets(dataset: str, about: str, ours: str, others: Sequence[str], solver: str, rows: pd.DataFrame) -> Finding:
    columns: dict[str, Any] = {"claim": 3, "dataset": dataset, "about": about, "part": solver}
    if len(rows):
        columns["part"] += f", {_name(rows, rows.metric.iloc[0])}"
    rows = rows[rows.method.isin([ours, *others])]
    good = rows[rows.status == "ok"]
    there = [m for m in others if (good.method == m).any()]
    if not (good.method == ours).any() or not there:
        gone = _lost(rows, (ours, *others), str(rows.metric.iloc[0])) if len(rows) else {}
        why = f"one side of the comparison has no numbers{f' ({_survivors(gone)})' if gone else ''}"
        return Finding(verdict=INCONCLUSIVE if gone else NOT_TESTED, why=why, **columns)
    metric = str(good.metric.iloc[0])
    signed = _signed(metric, good.value)
    scale = float(good[good.nfe == good.nfe.min()].value.abs().mean()) if signed else 0.0
    columns["statistic"] = f"{'' if signed else 'relative '}difference to the best other, mean over budgets"
    columns["unit"] = f"of the mean at NFE {good.nfe.min():g}" if signed else "of the mean of both"
    differences, best, beaten, notes = [], [], [], []
    lost: dict[str, list[str]] = {}
    for nfe in sorted(good.nfe.unique()):
        cell = rows[rows.nfe == nfe]
        own = _by_seed(cell, ours, metric)
        paired = {m: _pairs(own, _by_seed(cell, m, metric)) for m in there}
        for method, found in _lost(cell, (ours, *there), metric).items():
            lost.setdefault(method, []).append(f"{len(found.seeds)} of {found.of} at {nfe:g}")
        if own.empty and (cell[cell.method == ours].status != "ok").any():
            # Where ours has no number and another has, that budget is lost; where another has none, it is no rival.
            best.append(False)
            beaten.append(f"{nfe:g}")
            continue
        paired = {m: pair for m, pair in paired.items() if len(pair)}
        if not paired:
            if own.empty or (cell[cell.method != ours].status == "ok").any():
                notes.append(f"{nfe:g}")  # no seed in common
            else:
                best.append(True)
            continue
        gaps = {m: pair.ours - pair.other for m, pair in paired.items()}
        rival = max(gaps, key=lambda m: float(gaps[m].mean()))
        pair = paired[rival]
        relative = gaps[rival] / scale if signed else relative_difference(pair.ours.to_numpy(), pair.other.to_numpy())
        differences.append(pd.Series(relative, pair.index))
        best.append(bool(gaps[rival].mean() < 0))
        if any(judge(gap.tolist(), 0.0).verdict == FAILS for gap in gaps.values()):
            beaten.append(f"{nfe:g}")
    if not differences:
        return Finding(verdict=NOT_TESTED, why="at no budget do both sides have numbers of the same seed", **columns)
    judged = judge(pd.concat(differences, axis=1).mean(axis=1).tolist(), 0.0)
    share, kept = float(np.mean(best)), 1 - len(beaten) / len(best)
    why = f"lowest mean at {sum(best)} of {len(best)} budgets; over all of them {judged.why}"
    verdict, leans = judged.verdict, judged.leans
    if kept < EVERY:
        verdict, leans, why = FAILS, "", f"{why}; decidedly lost at NFE {', '.join(beaten)}"
    elif share < EVERY:
        verdict, leans = _not_holding(verdict, leans)
    absent = [m for m in others if m not in there]
    if lost:
        why += ". Seeds lost: " + "; ".join(f"{label(m)} {', '.join(where)} NFE" for m, where in lost.items())
    if notes:
        why += f". No seed in common at NFE {', '.join(notes)}"
    if absent:
        why += f". Not compared with {_list(absent)}"
    if absent or notes or ours in lost:
        verdict, leans = _not_holding(verdict, leans)
    return Finding(verdict=verdict, why=why, **columns, **_from(judged) | {"leans": leans})


def _curves(rows: pd.DataFrame, method: str, metric: str, lost: Mapping[str, Lost] | None = None) -> dict[int, pd.Series]:
    """Value over training iteration for each seed, the good rows; without the seeds that the method lost."""
    found = _has(rows, method=method, metric=metric, status="ok").sort_values("step")
    if lost and method in lost:
        found = found[~found.seed.isin(lost[method].seeds)]
    seeds = sorted(int(s) for s in found.seed.unique())
    return {seed: found[found.seed == seed].drop_duplicates("step").set_index("step").value for seed in seeds}


def _on_common_steps(ours: Mapping[int, pd.Series], other: Mapping[int, pd.Series], least: int) -> dict[int, pd.DataFrame]:
    """For each seed of both, the pairs of values at the iterations of both; those with ``least`` of them or more."""
    pairs = {seed: _pairs(ours[seed], other[seed]) for seed in sorted(set(ours) & set(other))}
    return {seed: pair for seed, pair in pairs.items() if len(pair) >= least}


def _scale_at_first(pairs: Mapping[int, pd.DataFrame]) -> float:
    """The mean magnitude at the first common snapshot, over both methods and all seeds: one scale for a pair of methods.

    A distance near its floor is noise about 0, which a scale of its own would blow up.
    """
    return float(np.mean([pair.iloc[0].abs().mean() for pair in pairs.values()])) if pairs else math.nan


def faster_and_further(sources: Sources) -> Lines:
    """4: the distance along training, FM-OT against each other: averaged over iterations (faster), and at the end (further)."""
    along, lines = sources["learning_curve"], []
    for dataset in _datasets(along):
        here = _has(along, dataset=dataset)
        metric = _distance(here)
        if metric is None or OURS not in set(here.method):
            lines.append(_no_contest(4, dataset))
            continue
        # A training that stopped has snapshots from before, the last of which is not its end.
        lost = _lost(here, (OURS, *DIFFUSION), metric)
        own = _curves(here, OURS, metric, lost)
        compared = here[(here.metric == metric) & (here.status == "ok") & here.method.isin([OURS, *DIFFUSION])]
        signed = _signed(metric, compared.value)
        relative, unit = ("", "of the mean of both at the first") if signed else ("relative ", "of the mean of both")
        faster: dict[str, list[float]] = {}
        further: dict[str, list[float]] = {}
        for other in DIFFUSION:
            theirs = _curves(here, other, metric, lost)
            pairs = _on_common_steps(own, theirs, 2)
            scale = _scale_at_first(pairs)
            for pair in pairs.values():
                a, b = pair.ours.to_numpy(), pair.other.to_numpy()
                difference = (a - b) / scale if signed else relative_difference(a, b)
                steps = pair.index.to_numpy(dtype=float)
                faster.setdefault(other, []).append(float(np.trapezoid(difference, steps) / (steps[-1] - steps[0])))
                further.setdefault(other, []).append(float(difference[-1]))
        name = _name(here, metric)
        for part, values, statistic in (
            (f"faster, {name}", faster, f"{relative}difference to the closest other, mean over iterations"),
            (f"further, {name}", further, f"{relative}difference to the closest other, last snapshot"),
        ):
            columns = {"part": part, "statistic": statistic, "unit": unit}
            lines.append(_against(values, OURS, DIFFUSION, lost, claim=4, dataset=dataset, about="trained", **columns))
    return lines


def steady_cost(sources: Sources) -> Lines:
    """5: largest over smallest NFE among the snapshots of a training: near 1 for flow matching, large for score matching."""
    along, lines = sources["learning_curve"], []
    for dataset in _datasets(along):
        here = _has(along, dataset=dataset)
        methods = (OURS, "fm_diffusion", "score_matching")
        lost = _lost(here, methods, "nfe")
        spreads: dict[str, pd.Series] = {}
        for method in methods:
            curves = {s: c for s, c in _curves(here, method, "nfe", lost).items() if len(c) > 1 and (c > 0).all()}
            spreads[method] = pd.Series({s: math.log(c.max() / c.min()) for s, c in curves.items()}, dtype=float)
        for method, threshold, below in (
            (OURS, CONSTANT_NFE, True),
            ("fm_diffusion", CONSTANT_NFE, True),
            ("score_matching", DRASTIC_NFE, False),
        ):
            judged = judge(spreads[method].tolist(), math.log(threshold), below)
            why = f"against {threshold:g}, {judged.why}" if judged.seeds else "no training has NFE at two snapshots or more"
            columns = {"part": f"{label(method)} {'constant' if below else 'changes drastically'}"}
            columns["statistic"] = "largest over smallest NFE along training"
            lines.append(_steadiness(dataset, judged, why, lost, (method,), columns))
        for method in (OURS, "fm_diffusion"):
            pairs = _pairs(spreads[method], spreads["score_matching"])
            judged = judge((pairs.ours - pairs.other).tolist(), 0.0)
            columns = {"part": f"{label(method)} steadier", "against": "score_matching", "statistic": "ratio of those ratios"}
            lines.append(_steadiness(dataset, judged, judged.why, lost, (method, "score_matching"), columns))
    return lines


def _steadiness(
    dataset: str, judged: Judged, why: str, lost: Mapping[str, Lost], methods: Sequence[str], columns: Mapping[str, str]
) -> Finding:
    """A line on the logarithm of a ratio of NFE, from the seeds that went well.

    Flow matching's lost seeds keep it from holding; a training of score matching that is lost was not constant either.
    """
    gone = {m: lost[m] for m in methods if m in lost}
    verdict, leans = judged.verdict, judged.leans
    if gone:
        why += f". Over the seeds that went well: {_survivors(gone)}"
        if verdict == NOT_TESTED:
            verdict = INCONCLUSIVE
        elif methods[0] != "score_matching" and methods[0] in gone:
            verdict, leans = _not_holding(verdict, leans)
    filled = _from(judged, math.exp) | {"leans": leans}
    return Finding(5, dataset, "trained", verdict=verdict, why=why, unit="ratio", **columns, **filled)  # type: ignore[arg-type]


def stable_training(sources: Sources) -> Lines:
    """6: FM with the diffusion path against score matching: trainings lost, steps back along training, spread over seeds."""
    records, lines = sources["records"], []
    along = sources.get("learning_curve")
    ours, other = "fm_diffusion", "score_matching"
    for dataset in _datasets(records):
        here = _has(records, dataset=dataset)
        common: dict[str, Any] = {"claim": 6, "dataset": dataset, "about": "trained", "against": other}
        ends = here[here.metric == "final_loss"]
        if not {ours, other} <= set(ends.method):
            why = f"it takes {label(ours)} and {label(other)}"
            lines.append(Finding(6, dataset, "trained", "", NOT_TESTED, why))
            continue
        lost = {m: int((ends[ends.method == m].status != "ok").sum()) for m in (ours, other)}
        if lost[ours] != lost[other]:
            trainings = min(int((ends.method == m).sum()) for m in lost)
            # Fisher's exact test: whether so uneven a split of the trainings lost is chance.
            table = [[lost[m], int((ends.method == m).sum()) - lost[m]] for m in (ours, other)]
            chance = float(stats.fisher_exact(table).pvalue)
            verdict = INCONCLUSIVE if chance > 1 - LEVEL else (HOLDS if lost[ours] < lost[other] else FAILS)
            why = f"{lost[ours]} against {lost[other]} diverged; Fisher's exact test p = {chance:.2g}"
            columns: dict[str, Any] = {"statistic": "difference in diverged trainings", "unit": "trainings", "seeds": trainings}
            difference = lost[ours] - lost[other]
            lines.append(Finding(part="trainings lost", verdict=verdict, why=why, value=difference, **columns, **common))
        lines.append(_steps_back(along, dataset, ours, other, common))
        lines.append(_spread_over_seeds(here, ours, other, common))
    return lines


def _steps_back(along: pd.DataFrame | None, dataset: str, ours: str, other: str, common: dict[str, Any]) -> Finding:
    columns = common | {"statistic": "rises of the distance between snapshots", "unit": "of the mean of both at the first"}
    if along is None:
        return Finding(part="steps back along training", verdict=NOT_TESTED, why=_lacking("learning_curve"), **columns)
    here = _has(along, dataset=dataset)
    metric = _distance(here)
    curves = [_curves(here, method, metric) if metric else {} for method in (ours, other)]
    common_steps = _on_common_steps(curves[0], curves[1], 3)
    scale = _scale_at_first(common_steps)
    # No distance is below 0: what an unbiased estimate does there is its noise, which only the method that got there shows.
    rises = {seed: pair.clip(lower=0).diff().clip(lower=0).sum() / scale for seed, pair in common_steps.items()}
    pairs = pd.DataFrame(rises, index=["ours", "other"], dtype=float).T
    judged = judge((pairs.ours - pairs.other).tolist(), 0.0)
    if judged.seeds and not pairs.to_numpy().any():
        judged = replace(judged, verdict=INCONCLUSIVE, leans="", why="neither ever rises")
    why = judged.why if judged.seeds else "no seed has both with three snapshots or more"
    return Finding(part="steps back along training", verdict=judged.verdict, why=why, **columns, **_from(judged))


def _spread_over_seeds(here: pd.DataFrame, ours: str, other: str, common: dict[str, Any]) -> Finding:
    """The ratio of two standard deviations over seeds, with the F interval: a bootstrap of a spread needs many more values."""
    metric = _distance(here) or "nll"
    columns = common | {"part": f"spread over seeds, {_name(here, metric)}"}
    columns |= {"statistic": "ratio of standard deviations over seeds", "unit": "ratio"}
    a, b = (_by_seed(here, m, metric) for m in (ours, other))
    if len(a) < 2 or len(b) < 2 or not a.std() > 0 or not b.std() > 0:
        return Finding(verdict=NOT_TESTED, why="a spread takes two seeds or more", **columns)
    ratio = float(a.std() / b.std())
    low, high = (ratio / math.sqrt(stats.f.ppf(q, len(a) - 1, len(b) - 1)) for q in ((1 + LEVEL) / 2, (1 - LEVEL) / 2))
    verdict = HOLDS if high < 1 else FAILS if low > 1 else INCONCLUSIVE
    why = f"F interval, normal values; {'all on one side of' if verdict != INCONCLUSIVE else 'it includes'} 1"
    columns |= {"value": ratio, "low": low, "high": high, "interval": "seeds", "seeds": min(len(a), len(b)), "coverage": LEVEL}
    return Finding(verdict=verdict, why=why, **columns)


def structure_earlier(sources: Sources) -> Lines:
    """7: the time at which half of the way from noise to data is gone, as a distribution, scale aside.

    The way is the energy distance between the states at t and the states at the end, both brought to the same overall mean and
    spread (a path may shrink or swell its noise, which is no structure), over that at t = 0. That a state lies near its own end
    would not do: a flow takes a point of noise to data near by, so in few dimensions the noise knows its end from the start.
    Methods start from the same noise, so the interval is over samples: a delete-group jackknife, groups taken out of both
    methods at once.
    """
    states, lines = sources["trajectory"], []
    records = sources.get("records", states.iloc[:0].assign(status="", metric=""))
    for dataset in dict.fromkeys([*_datasets(states), *_datasets(records)]):
        here, rows = _has(states, dataset=dataset), _has(records, dataset=dataset)
        # What was trained and lost has no states.
        contests = _contests(pd.concat([here[["method"]], rows[["method"]]]))
        if not any(about == "trained" for about, *_ in contests):
            lines.append(_no_contest(7, dataset))
        for about, ours, others in contests:
            lost = _lost(rows, (ours, *others), "final_loss")
            if ours in lost and ours not in set(here.method):
                columns: dict[str, Any] = {"claim": 7, "dataset": dataset, "about": about, "part": "half way from noise to data"}
                lines.append(Finding(verdict=INCONCLUSIVE, why=f"no trajectory: {_survivors({ours: lost[ours]})}", **columns))
                continue
            lines.append(_half_way(dataset, about, ours, [m for m in others if m in set(here.method)], others, here))
    return lines


def _half_way(dataset: str, about: str, ours: str, others: Sequence[str], wanted: Sequence[str], here: pd.DataFrame) -> Finding:
    columns: dict[str, Any] = {"claim": 7, "dataset": dataset, "about": about, "part": "half way from noise to data"}
    columns |= {"statistic": "difference in t to the closest other", "unit": "t"}
    seed = here[here.method == ours].seed.min()
    curves = {m: _way_gone(_has(here, method=m, seed=seed)) for m in (ours, *others)}
    found = {m: c for m, c in curves.items() if c is not None}
    if ours not in found or len(found) < 2:
        why = f"it takes states of the same {2 * GROUPS} samples or more, at three times or more, of both paths"
        return Finding(verdict=NOT_TESTED, why=why, **columns)
    times = {m: half_time(t, gone) for m, (t, gone) in found.items()}
    spacing = max(float(np.diff(t).max()) for t, _ in found.values())
    margin = max(EARLIER, spacing / 2)
    compared = {m: times[ours] - times[m] for m in found if m != ours}
    closest = max(compared, key=lambda m: compared[m][0])
    bounds = {m: _jackknife(d) for m, d in compared.items()}
    verdicts = [HOLDS if high < -margin else FAILS if low > 0 else INCONCLUSIVE for low, high in bounds.values()]
    verdict = combine(verdicts)
    at = ", ".join(f"{label(m)} at t = {float(v[0]):.2f}" for m, v in times.items())
    why = f"{at}; against a margin of {margin:.2g}; the interval is over samples of one seed, the only one with states, and "
    why += "lacks what another would change"
    # Whatever its samples say, one seed decides nothing.
    leans, verdict = (verdict, INCONCLUSIVE) if verdict in (HOLDS, FAILS) else ("", verdict)
    absent = [m for m in wanted if m not in found]
    if absent:
        why += f". Not compared with {_list(absent)}"
        verdict, leans = _not_holding(verdict, leans)
    low, high = bounds[closest]
    columns |= {"value": float(compared[closest][0]), "low": low, "high": high}
    columns |= {"interval": "samples", "seeds": 1, "coverage": LEVEL, "against": closest, "leans": leans}
    return Finding(verdict=verdict, why=why, **columns)


def _jackknife(values: NDArray) -> tuple[float, float]:
    """Student's interval from the value of all samples and those without each group."""
    whole, left_out = float(values[0]), values[1:]
    g = len(left_out)
    error = math.sqrt((g - 1) / g * ((left_out - left_out.mean()) ** 2).sum())
    half = float(stats.t.ppf((1 + LEVEL) / 2, g - 1)) * error
    return whole - half, whole + half


def _way_gone(rows: pd.DataFrame) -> tuple[NDArray, NDArray] | None:
    """Times (T,), and the share of the way that is gone at each, (1 + groups, T): of all samples, then without each group."""
    times = np.sort(rows.t.unique())
    by_time = [rows[rows.t == t].sort_values("index").head(WAY_SAMPLES) for t in times]
    if len(times) < 3 or len({tuple(part["index"]) for part in by_time}) != 1 or len(by_time[0]) < 2 * GROUPS:
        return None
    values = np.stack([np.stack(part["values"].to_list()) for part in by_time]).astype(np.float64)  # (T, n, D)
    values -= values.mean((1, 2), keepdims=True)
    values /= values.std((1, 2), keepdims=True).clip(min=1e-12)
    end = values[-1]
    within_end = _mean_distances(end, end)
    ways = np.stack([2 * _mean_distances(x, end) - _mean_distances(x, x) - within_end for x in values], 1)
    if not (ways[:, 0] > 0).all():
        return None
    return times, 1 - ways / ways[:, :1]


def _mean_distances(x: NDArray, y: NDArray) -> NDArray:
    """The mean distance between different samples, i of x and j of y, i not j: of all, then without each group, (1 + groups,).

    i and j start from different noise, so leaving out i = j makes the energy distance unbiased, for x and y of the same flow too.
    """
    n = len(x)
    group = np.arange(n) * GROUPS // n
    starts = np.searchsorted(group, np.arange(GROUPS))
    distances = cdist(x, y)
    np.fill_diagonal(distances, 0.0)
    blocks = np.add.reduceat(np.add.reduceat(distances, starts, 0), starts, 1)
    sizes = np.bincount(group)
    total = blocks.sum()
    left = total - blocks.sum(0) - blocks.sum(1) + np.diag(blocks)
    kept = n - sizes
    return np.concatenate([[total / (n * (n - 1))], left / (kept * (kept - 1))])


def straight_paths(sources: Sources) -> Lines:
    """8: how far the OT conditional field turns with time, and how far its particles leave the straight line and even speed."""
    lines = []
    if "fields" in sources:
        turns = {}
        for panel, rows in sources["fields"].groupby("panel"):
            turns[str(panel)] = _largest_turn(rows)
        found = [v for panel, v in turns.items() if panel.startswith("OT path")]
        contrast = "; ".join(f"{panel} {v:.3g}" for panel, v in turns.items() if not panel.startswith("OT path"))
        lines.append(_exact(8, "direction of the field", "largest turn of an arrow", "degrees", found, contrast))
    if "trajectories" in sources:
        bends, paces = {}, {}
        for path, rows in sources["trajectories"].groupby("path"):
            bends[str(path)], paces[str(path)] = _bend_and_pace(rows)
        for part, statistic, unit, values in (
            ("straight lines", "largest distance from the chord", "of the chord", bends),
            ("even speed", "largest deviation from the mean speed", "of the mean speed", paces),
        ):
            contrast = "; ".join(f"{path.upper()} path {v:.3g}" for path, v in values.items() if path != "ot")
            lines.append(_exact(8, part, statistic, unit, [v for path, v in values.items() if path == "ot"], contrast))
    return lines


def _exact(claim: int, part: str, statistic: str, unit: str, found: Sequence[float], contrast: str) -> Finding:
    """A line on what follows from definitions: it holds to rounding or not at all."""
    columns: dict[str, Any] = {"claim": claim, "dataset": "", "about": "definition", "part": part}
    columns |= {"statistic": statistic, "unit": unit}
    if not found or not all(map(math.isfinite, found)):
        return Finding(verdict=NOT_TESTED, why="the rows of the theory do not have it", **columns)
    value = max(found)
    why = f"rounding is below {ROUNDING:g}{f'; for contrast: {contrast}' if contrast else ''}"
    return Finding(verdict=HOLDS if value < ROUNDING else FAILS, why=why, value=value, **columns)


def _largest_turn(rows: pd.DataFrame) -> float:
    """Degrees between an arrow at any time and the same at the first, at the worst place."""
    worst = 0.0
    for _, place in rows.groupby(["x", "y", "figure"]):
        u, v = (place.sort_values("t")[c].to_numpy(float) for c in ("u", "v"))
        turn = np.arctan2(u[0] * v - v[0] * u, u[0] * u + v[0] * v)
        worst = max(worst, float(np.degrees(np.abs(turn)).max()))
    return worst


def _bend_and_pace(rows: pd.DataFrame) -> tuple[float, float]:
    bend = pace = 0.0
    for _, particle in rows.groupby("particle"):
        track = particle.sort_values("t")
        xy, t = track[["x", "y"]].to_numpy(float), track.t.to_numpy(float)
        chord = xy[-1] - xy[0]
        length = float(np.hypot(*chord))
        off = xy - xy[0]
        bend = max(bend, float(np.abs(off[:, 0] * chord[1] - off[:, 1] * chord[0]).max()) / length**2)
        speed = np.hypot(*np.diff(xy, axis=0).T) / np.diff(t)
        pace = max(pace, float(np.abs(speed / speed.mean() - 1).max()))
    return bend, pace


def probability_flow(sources: Sources) -> Lines:
    """9: the field of the VP path against the drift of the VP equation's probability flow, at the same points and times."""
    lines = []
    for identity, rows in sources["identities"].groupby("identity", sort=False):
        relative = (rows.max_difference / rows.scale).to_numpy(float)
        span = f"{len(rows)} times, {rows.n.iloc[0]} points each"
        found = _exact(9, str(identity), "largest difference", "of the largest field", relative.tolist(), "")
        lines.append(replace(found, why=f"{found.why}; at {span}"))
    return lines


def falls_with_draws(sources: Sources) -> Lines:
    """10: NLL at one K less NLL at the K before, averaged over methods; each such step must be a fall.

    Averaged probes are corrected for what their noise is estimated to do; the paper's estimator is taken as it is.
    """
    draws, lines = sources["dequantisation"], []
    trained = draws[draws.method.isin([OURS, *DIFFUSION])]
    for dataset in _datasets(trained):
        here = _has(trained, dataset=dataset)
        for metric, name in (
            ("nll_exact", "exact divergence"),
            ("nll_averaged", "probes averaged"),
            ("nll_paper", "the paper's"),
        ):
            rows = _has(here, metric=metric)
            if len(rows):
                lines.append(_steps_of_k(dataset, metric, f"{name} estimator" if "paper" in name else name, rows, here))
    return lines


def _steps_of_k(dataset: str, metric: str, name: str, rows: pd.DataFrame, here: pd.DataFrame) -> Finding:
    columns: dict[str, Any] = {"claim": 10, "dataset": dataset, "about": "trained", "part": name, "unit": rows.unit.iloc[0]}
    index = ["method", "seed"]
    table = rows[rows.status == "ok"].pivot_table(index=index, columns="draws", values="value").dropna()
    lost = _lost(rows, list(rows.method.unique()), metric)
    bias = _has(here, metric="nll_probe_bias", status="ok").pivot_table(index=index, columns="draws", values="value")
    if table.shape[1] < 2 or table.empty:
        why = _survivors(lost) if table.empty and lost else "it takes two numbers of draws"
        tried = any("diverged" in found.reason for found in lost.values())
        return Finding(verdict=INCONCLUSIVE if table.empty and tried else NOT_TESTED, why=why, **columns)
    note = ""
    variance = _has(here, metric="nll_probe_variance", status="ok").value.mean()
    large = variance > SECOND_ORDER_UP_TO  # not where it is not known
    if metric == "nll_averaged" and len(bias):
        table = (table - bias.reindex_like(table).fillna(0.0)).dropna()
        note = ". The remaining noise of the probes is estimated and taken off"
        note += f", which is too little at a variance of {variance:.1f} nats^2" if large else ""
    elif metric == "nll_paper":
        note = ". Its single probe's noise lowers the number too, the more the larger K"
        if len(bias):
            # One probe does as many times as much as a mean of several where the noise is small, and more in any case.
            times = 1.0 if large else float(_has(here, metric="nll_probe_bias").probes.iloc[0])
            k = max(bias.columns)
            by = f"{'at least' if large else 'about'} {-times * float(bias[k].mean()):.2g}"
            note += f": by {by} at K = {k:g}, which is no likelihood"
    # Over the seeds that have all methods with numbers, so that each mean is over the same ones.
    methods = table.index.get_level_values("method")
    whole = table.groupby("seed").size() == methods.nunique()
    if not whole.any():
        said = f" ({_survivors(lost)})" if lost else ""
        return Finding(verdict=INCONCLUSIVE, why=f"no seed has numbers of every method{said}", **columns)
    table = table[table.index.get_level_values("seed").isin(whole[whole].index)]
    ks = sorted(float(k) for k in table.columns)
    steps = {(a, b): table[b] - table[a] for a, b in pairwise(ks)}
    judged = {pair: judge(step.groupby("seed").mean().tolist(), 0.0) for pair, step in steps.items()}
    least = max(judged, key=lambda pair: judged[pair].value)
    falls = sum(int((step.groupby("method").mean() < 0).sum()) for step in steps.values())
    cells = sum(step.index.get_level_values("method").nunique() for step in steps.values())
    verdict = combine(j.verdict for j in judged.values())
    leans = combine_leaning((j.verdict, j.leans) for j in judged.values())
    a, b = least
    worst = next(j for j in judged.values() if j.verdict == verdict) if verdict != HOLDS else judged[least]
    why = f"{falls} of {cells} steps of single methods fall; {worst.why}{note}"
    if lost:
        why += f". Over the seeds that went well: {_survivors(lost)}"
        verdict, leans = _not_holding(verdict, leans)
    columns |= {"statistic": f"difference from K = {a:g} to {b:g}, the smallest fall", "paper": _printed_fall(dataset, a, b)}
    return Finding(verdict=verdict, why=why, **columns, **_from(judged[least]) | {"leans": leans})


def _printed_fall(dataset: str, a: float, b: float) -> float | None:
    printed = paper("table4")
    table = printed[printed.dataset == dataset].pivot_table(index="method", columns="k", values="nll_bpd")
    return float((table[b] - table[a]).mean()) if {a, b} <= set(table.columns) else None


_PATH_ALONE = " The oracles' lines show what the path alone does."

CLAIMS = (
    Claim(
        1,
        "FM-OT has the lowest NLL, FID and NFE",
        "Flow matching with the OT path has lower NLL, lower FID and fewer evaluations of the adaptive solver than every other "
        "method trained, on every data set.",
        "Table 1",
        "Differences of means, FM-OT minus each other method, paired by seed; all must be below 0. Shown is the closest other. "
        "With a seed of FM-OT's lost, by divergence, it cannot hold: the seeds left are those that went well. "
        "Where the features are not Inception's the distance is not FID, and points have the energy distance in its place. "
        "The intervals hold what seeds change, sampling included; the test set is one, so what another would change is not in "
        "them." + _PATH_ALONE,
        ("records",),
        lowest,
    ),
    Claim(
        2,
        "FM-OT needs about 60 % of the NFE for the same error",
        "To reach the same numerical error as models of a diffusion path, FM-OT needs only about 60 % of their evaluations.",
        "Fig. 7, left",
        f"NFE of the midpoint rule at {LEVELS} errors that both curves reach, interpolated in logarithms, FM-OT's over the "
        f"other's; errors below {FLOOR_MARGIN:g} times the reference's own are left out. A ratio is about 60 % or better if "
        f"it is below {ABOUT_SIXTY:.2f}, nearer to 0.6 than to 1. An underfit network is easy to integrate: read the ratio "
        "beside claim 1's NLL." + _PATH_ALONE,
        ("records",),
        fewer_evaluations,
    ),
    Claim(
        3,
        "FM-OT is best at every budget",
        "With few evaluations FM-OT's samples are already decent, and at every budget, with every fixed-step solver, they are "
        "the best.",
        "Fig. 7, right",
        "At each NFE of each solver the distance to the data, FM-OT's against that of the best other, paired by seed with each. "
        "Differences are relative to the mean of both; where the distance may fall to 0 or below, as the unbiased energy "
        "distance, over one scale: its mean magnitude over the methods at the solver's smallest NFE (which then weighs most). "
        f"It holds if the mean over budgets is below 0 and FM-OT has the lowest mean at {EVERY:.0%} of them, and fails if it is "
        f"above, or if more than {1 - EVERY:.0%} are decidedly lost: to any other, or by every seed of FM-OT diverging there. "
        "With some of them lost it cannot hold." + _PATH_ALONE,
        ("few_step",),
        best_at_every_budget,
    ),
    Claim(
        4,
        "FM-OT lowers FID faster and further in training",
        "Along training the FID of FM-OT falls faster than that of the other methods, and ends lower.",
        "Fig. 5",
        "The distance of the averaged weights at the snapshots of a training: the relative difference to each other method, "
        "averaged over iterations (faster) and at the last (further), paired by seed. Where the distance may fall to 0 or below, "
        "as the unbiased energy distance, the difference is over one scale: the mean magnitude of both methods at the first "
        "snapshot. With a seed of FM-OT's lost it cannot hold.",
        ("learning_curve",),
        faster_and_further,
    ),
    Claim(
        5,
        "NFE stays constant in FM training and not in score matching",
        "The evaluations that sampling takes hardly change along the training of flow matching, and change drastically along "
        "that of score matching.",
        "Fig. 10",
        f"Largest over smallest NFE of dopri5 among the snapshots: at most {CONSTANT_NFE:g} is constant, {DRASTIC_NFE:g} or "
        "more is drastic; and flow matching's against score matching's, paired by seed.",
        ("learning_curve",),
        steady_cost,
    ),
    Claim(
        6,
        "FM trains more stably than score matching on the same path",
        "With the same diffusion path, the flow-matching loss trains more stably than score matching.",
        "Fig. 4",
        "Three measures of stability: trainings lost (where they differ), how far the distance climbs back between snapshots "
        "(the sum of its rises, estimates below 0 as 0, over one scale for both: their mean magnitude at the first "
        "snapshot), and its spread over seeds. The spread is judged by normal theory, and takes many seeds to tell.",
        ("records",),
        stable_training,
    ),
    Claim(
        7,
        "The OT path shows structure earlier",
        "On the way from noise to data, the OT path shows the structure of the data early, while diffusion paths stay noise "
        "until near the end.",
        "Fig. 4 and 6",
        "The time t at which half of the way from noise to data is gone: the energy distance of the states to those at the end, "
        "both at the same overall mean and spread, over that at t = 0 (states of images as they are drawn, clamped). FM-OT must "
        f"be more than {EARLIER:g} earlier than each diffusion method, or half the spacing of the states if that is more; it "
        "fails where it is later. States are kept of the first seed only, so it is never more than inconclusive, and leans. "
        "It is about t as the paths define it: another clock on the same path moves it." + _PATH_ALONE,
        ("trajectory",),
        structure_earlier,
    ),
    Claim(
        8,
        "The OT conditional field keeps its direction",
        "The direction of the OT conditional field does not change in time, and its particles move straight at constant speed.",
        "Fig. 2 and 3",
        "From the definitions: the largest turn of an arrow between times, and the largest deviation of a particle from its "
        "chord and mean speed. About conditional fields; a trained field, their average, is straight for no path.",
        ("fields", "trajectories"),
        straight_paths,
    ),
    Claim(
        9,
        "The VP conditional field is the probability flow's",
        "The conditional field of the VP path equals the drift of the probability-flow equation of the VP diffusion.",
        "Appendix D",
        "Both from their own definitions, at the same random points: eq. 15 of the path against -beta/2 (x + grad log p) in "
        "reversed time, the gradient by automatic differentiation; of one data point, and of a mixture.",
        ("identities",),
        probability_flow,
    ),
    Claim(
        10,
        "NLL falls as K grows",
        "The more dequantisation draws K are averaged, the lower the NLL.",
        "Table 4",
        "The difference between each K and the one before, averaged over the trained methods; every such step must be a fall. "
        "By each estimator: the paper's has a probe's noise in every draw, which lowers the number with K by itself.",
        ("dequantisation",),
        falls_with_draws,
    ),
)


# The whole


def read_sources(results: Path) -> Sources:
    """Every file of :data:`FILES` that a results folder has, but for those of another config.

    Raises:
        DataError: it has none, or one cannot be read.
    """
    found, others = {}, stale_files(results)
    for name, file in FILES.items():
        path = results / file
        if path.exists() and file not in others:
            found[name] = (read_rows([path]) if name in _OF_RECORDS else read_table(path)).to_pandas()
    if not found:
        raise DataError(f"{results} has none of {', '.join(FILES.values())}: give the folder of a finished run")
    return found


def _lacking(name: str) -> str:
    return f"{FILES[name]} is not in these results; `snakemake --cores all results/{FILES[name]}` makes it"


def test_claims(sources: Sources) -> Lines:
    """Every claim's lines, the line on the claim as a whole first."""
    found: Lines = []
    for claim in CLAIMS:
        missing = [name for name in claim.needs if name not in sources]
        if len(missing) == len(claim.needs):
            lines = [Finding(claim.number, "all", "overall", "", NOT_TESTED, "; ".join(map(_lacking, missing)))]
        else:
            own = claim.test(sources)
            lines = [overall(claim, own, missing), *own]
        found += lines
    return found


def overall(claim: Claim, lines: Lines, missing: Sequence[str] = ()) -> Finding:
    """The line on the claim as a whole; oracles do not count."""
    counted = [line for line in lines if line.about != "oracle"]
    verdict = combine(line.verdict for line in counted)
    leans = combine_leaning((line.verdict, line.leans) for line in counted)
    partly = _tested_in_part(counted)
    if missing or partly:
        verdict, leans = _not_holding(verdict, leans)
    tally = [(v, sum(line.verdict == v for line in counted)) for v in (HOLDS, FAILS, INCONCLUSIVE, NOT_TESTED)]
    why = ", ".join(f"{n} {v}" for v, n in tally if n) or "there are no rows to test it on"
    why = f"{len(counted)} line{'s' if len(counted) > 1 else ''}: {why}" if counted else why
    if partly:
        why += f"; tested in part only on {', '.join(partly)}"
    return Finding(claim.number, "all", "overall", "", verdict, "; ".join([why, *map(_lacking, missing)]), leans=leans)


def _tested_in_part(lines: Lines) -> list[str]:
    """Data sets with lines that could be tested beside lines that could not: of these a claim does not hold as a whole."""
    verdicts: dict[str, set[str]] = {}
    for line in lines:
        verdicts.setdefault(line.dataset, set()).add(line.verdict)
    return [dataset or "definitions" for dataset, found in verdicts.items() if NOT_TESTED in found and len(found) > 1]


test_claims.__test__ = False  # type: ignore[attr-defined]  # not a test of pytest's


def frame(lines: Lines) -> pd.DataFrame:
    """The lines as a tidy table, each with its claim's title."""
    titles = {claim.number: claim.title for claim in CLAIMS}
    names = [f.name for f in fields(Finding)]
    order = ["claim", "title", "dataset", "about", "part", "against", "statistic", "unit", "value", "low", "high", "interval"]
    order += ["seeds", "coverage", "paper", "verdict", "leans", "why"]
    table = pd.DataFrame([asdict(line) for line in lines], columns=names)
    table.insert(1, "title", table.claim.map(titles))
    return table[order]


def _number(value: Any) -> str:
    return "" if value is None or pd.isna(value) else f"{value:.3g}"


def _value(line: Finding) -> str:
    if line.value is None:
        return ""
    bounds = "" if line.low is None or line.high is None else f" [{_number(line.low)}, {_number(line.high)}]"
    return f"{_number(line.value)}{bounds} {line.unit}"


_BOLD = {HOLDS: "**holds**", FAILS: "**fails**"}


def _summary(lines: Lines) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the overview: a verdict for each claim, overall and by data set."""
    datasets = list(dict.fromkeys(line.dataset for line in lines if line.dataset not in ("", "all")))
    with_oracles = any(line.about == "oracle" for line in lines)
    header = ["", "Claim", "Where", "Verdict", *datasets, *(["Path alone (oracles)"] if with_oracles else [])]
    rows = []
    for claim in CLAIMS:
        own = [line for line in lines if line.claim == claim.number]
        groups = [[line for line in own if line.dataset == d and line.about == "trained"] for d in datasets]
        groups += [[line for line in own if line.about == "oracle"]] if with_oracles else []
        whole = [line for line in own if line.about == "overall"]
        rows.append([str(claim.number), claim.title, claim.where, *map(_together, [whole, *groups])])
    return header, rows


def _together(lines: Lines) -> str:
    """The verdict of several lines, in words; empty for none."""
    verdict = combine(line.verdict for line in lines)
    leaning = combine_leaning((line.verdict, line.leans) for line in lines)
    return (f"{verdict}, leans to {leaning}" if leaning else verdict) if lines else ""


def markdown(lines: Lines) -> str:
    """The page: an overview, how to read it, and a section for each claim."""
    header, rows = _summary(lines)
    few = min((line.seeds for line in lines if line.interval == "seeds"), default=0)
    shown = [[_BOLD.get(cell, cell) for cell in row] for row in rows]
    text = ["# Claims", "", "What Lipman et al. (2023) claim, tested on the numbers of this run.", ""]
    text += markdown_table(header, shown)
    text += [
        "",
        "* A claim holds where every line of evidence does, on every data set tested; it fails where one fails. Brackets are "
        f"{LEVEL:.0%} intervals over seeds (percentile bootstrap, differences paired by seed) unless a line says otherwise. No "
        "correction is made for the number of lines.",
    ]
    if few:
        worth = coverage(few) or 0.0
        text.append(
            f"* With {few} seeds the interval is {'their range' if few < 4 else 'hardly more than their range'}, which holds the "
            f"true median with at most {worth:.0%}. A verdict then needs Student's interval to agree; where that is what lacks, "
            f"the line is inconclusive and says where its interval leans. {ENOUGH_SEEDS} seeds need no such help."
            if worth < LEVEL
            else f"* The fewest seeds behind an interval are {few}."
        )
    text.append("* Another data set, budget or network is another answer: these verdicts are on this run, not on the paper's.")
    for claim in CLAIMS:
        own = [line for line in lines if line.claim == claim.number]
        whole = next(line for line in own if line.about == "overall")
        text += ["", f"## {claim.number}. {claim.title}: {whole.verdict}", "", f"{claim.statement} ({claim.where})", ""]
        text += [f"How it is tested: {claim.how}", "", f"Overall: {_together([whole])}; {whole.why}.", ""]
        if said := _said_by_the_paper(claim.number):
            text += [f"In the paper: {said}.", ""]
        rest = [line for line in own if line.about != "overall"]
        if rest:
            columns = ["Data set", "What", "Statistic", "Value", "Seeds", "Paper", "Verdict", "Why"]
            text += markdown_table(columns, [_row(line) for line in rest])
    return "\n".join(text) + "\n"


def _row(line: Finding) -> list[str]:
    what = f"oracles: {line.part}" if line.about == "oracle" else line.part
    against = f" against {label(line.against)}" if line.against else ""
    value = _value(line) + (" (over samples)" if line.interval == "samples" else "")
    seeds = str(line.seeds) if line.seeds else ""
    verdict = _BOLD.get(line.verdict, _together([line]))
    return [line.dataset, f"{what}{against}", line.statistic, value, seeds, _number(line.paper), verdict, line.why]


def _said_by_the_paper(claim: int) -> str:
    """The paper's own numbers for a claim, computed from its printed tables."""
    if claim == 1:
        parts = []
        for dataset in ("cifar10", "imagenet32", "imagenet64"):
            values = [_printed_difference(dataset, metric) for metric in ("nll", "frechet", "nfe")]
            parts.append(f"{dataset} " + ", ".join(map(_number, values)))
        return "difference to the closest other in NLL (bits/dim), FID and NFE: " + "; ".join(parts)
    if claim == 2:
        return "about 0.6"
    if claim == 10:
        printed, parts = paper("table4"), []
        for dataset in printed.dataset.unique():
            ks = sorted(float(k) for k in printed[printed.dataset == dataset].k.unique())
            falls = [f"{_number(_printed_fall(dataset, a, b))} from K = {a:g} to {b:g}" for a, b in pairwise(ks)]
            parts.append(f"{dataset} {', '.join(falls)}")
        return "mean difference over methods (bits/dim): " + "; ".join(parts)
    return ""


def latex(lines: Lines) -> str:
    """The overview as a booktabs table."""
    header, rows = _summary(lines)
    names = " & ".join(map(tex, header)) + r" \\"
    bold = {HOLDS: rf"\textbf{{{HOLDS}}}", FAILS: rf"\textbf{{{FAILS}}}"}
    cells = [[bold.get(cell, tex(cell)) for cell in row] for row in rows]
    return "\n".join(latex_table("rll" + "l" * (len(header) - 3), [names], cells))


def write_claims(results: Path, out: Path) -> Lines:
    """Test every claim on a results folder and write ``out`` (CSV) and beside it ``.md`` and ``.tex``."""
    lines = test_claims(read_sources(results))
    write_all(out, to_csv(frame(lines)), markdown(lines), latex(lines))
    return lines
