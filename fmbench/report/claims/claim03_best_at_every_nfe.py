"""Claim 3: FM-OT has the best samples at every NFE (Fig. 7, right)."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from fmbench.report.claims.claim import PATH_ALONE, SAMPLING, Claim, Drafts, Evidence, Finding, Sources, Test
from fmbench.report.claims.comparison import (
    error_of_difference,
    may_be_negative,
    not_compared,
    numbers,
    scaled_difference,
)
from fmbench.report.claims.fisher import Counts
from fmbench.report.claims.rows import (
    PAPER_SOLVERS,
    TRAINED,
    Contest,
    by_dataset,
    contests,
    in_prose,
    lost_seeds,
    main_distance,
    metric_name,
    no_contest,
    no_distance,
    paper_solves,
    say_lost,
    select,
)
from fmbench.report.claims.student import mean_test
from fmbench.report.claims.verdicts import INCONCLUSIVE, NOT_TESTED

Tables = dict[str, pd.DataFrame]
"""Values by seed (rows) and NFE (columns), of each method."""


def best_at_every_nfe(sources: Sources) -> Drafts:
    """Compares FM-OT's distance to the data with each other method's, at every NFE of each of the paper's solvers."""
    rows = sources["few_step"]
    lines: Drafts = []
    for dataset, here in by_dataset(rows[rows.solver.isin(PAPER_SOLVERS)]):
        metric = main_distance(here)
        if metric is None:
            lines.append(no_distance(3, dataset))
            continue
        distances = paper_solves(select(here, metric=metric))
        if distances.empty:
            solvers = " and ".join(here.solver.unique())
            lines.append(Finding(3, dataset, "trained", "", NOT_TESTED, f"There is no NFE that {solvers} all spent"))
            continue
        found = contests(here)
        if TRAINED not in found:
            lines.append(no_contest(3, dataset))
        for contest in found:
            for solver in distances.solver.unique():
                of_solver = select(distances, solver=solver)
                columns = {
                    "claim": 3,
                    "dataset": dataset,
                    "about": contest.about,
                    "part": f"{solver}, {metric_name(of_solver, metric)}",
                }
                compared = of_solver[of_solver.method.isin([contest.ours, *contest.others])]
                errors = _by_seed_and_nfe(select(here, solver=solver, metric=f"{metric}_stderr"))
                lines += _of_solver(contest, metric, compared, errors, columns)
    return lines or [Finding(3, "all", "trained", "", NOT_TESTED, f"There are no rows of {', '.join(PAPER_SOLVERS)}")]


def _of_solver(contest: Contest, metric: str, rows: pd.DataFrame, errors: Tables, columns: dict[str, Any]) -> Drafts:
    """The lines on one solver, one for each other method, from the rows of the main distance of the methods compared."""
    good = rows[rows.status == "ok"]
    there = [m for m in contest.others if (good.method == m).any()]
    if not (good.method == contest.ours).any() or not there:
        lost = lost_seeds(rows, (contest.ours, *contest.others), metric)
        who = "No other method" if (good.method == contest.ours).any() else f"No seed of {in_prose(contest.ours)}"
        why = f"{who} has a value{f': {say_lost(lost)}' if lost else ''}"
        return [Finding(verdict=INCONCLUSIVE if lost else NOT_TESTED, why=why, **columns)]
    scale, least = None, good.nfe.min()
    columns |= {"statistic": "relative difference to the other method, mean over NFE", "unit": "of the mean of both methods"}
    if may_be_negative(metric, good.value):
        scale = float(good[good.nfe == least].value.abs().mean())
        columns |= {"statistic": "difference to the other method, mean over NFE", "unit": f"of the mean at NFE {least:g}"}
    tables = _by_seed_and_nfe(rows)
    lost = lost_seeds(rows, contest.others, metric)
    return [
        _against((contest.ours, other), tables, errors, scale, columns) if other in there else not_compared(other, lost, columns)
        for other in contest.others
    ]


def _by_seed_and_nfe(rows: pd.DataFrame) -> Tables:
    """Each method's values by seed (rows) and NFE (columns); NaN where the value is lost."""
    found: dict[str, dict[float, dict[int, float]]] = {}
    columns = (rows.method, rows.seed, rows.nfe, rows.value.to_numpy(float), rows.status == "ok")
    for method, seed, nfe, value, ok in zip(*columns, strict=True):
        by_nfe = found.setdefault(method, {})
        by_nfe.setdefault(float(nfe), {}).setdefault(int(seed), value if ok else math.nan)
    return {m: pd.DataFrame({nfe: table[nfe] for nfe in sorted(table)}, dtype=float) for m, table in found.items()}


def _against(
    methods: tuple[str, str], tables: Tables, errors: Tables, scale: float | None, columns: Mapping[str, Any]
) -> Finding | Evidence:
    """The line against one other method, from distances and from their standard errors, where these are known."""
    ours, other = methods
    columns = {**columns, "against": other}
    own, rival = tables[ours].align(tables[other], join="outer")
    a, b = own.to_numpy(), rival.to_numpy()
    differences = scaled_difference(a, b, scale)
    differences[np.isnan(a) | np.isnan(b)] = np.nan
    error_a, error_b = (errors.get(m, pd.DataFrame()).reindex_like(own).to_numpy(float) for m in methods)
    sampling = error_of_difference((a, b), (error_a, error_b), scale)
    tests: list[Test] = []
    unpaired: list[str] = []
    for nfe, column, error in zip(own.columns, differences.T, sampling.T, strict=True):
        name, failed = f"{nfe:g}", tables[ours].get(nfe, pd.Series(dtype=float)).isna()
        if np.isfinite(column).any():
            tests.append(mean_test(column, errors=error[np.isfinite(column)], name=name))
        elif rival[nfe].notna().any():
            # Our samples diverged for every seed at this NFE, or our method was not run with the other's seeds there.
            tests += [_all_lost(failed, tables[other][nfe].isna(), name)] if len(failed) and failed.all() else []
            unpaired += [] if len(failed) and failed.all() else [name]
        # An NFE at which the other method has no value does not count: it has no samples there that could be better.
    if not tests:
        why = f"{in_prose(ours)} and {in_prose(other)} have no values of the same seed at any NFE"
        return Finding(verdict=NOT_TESTED, why=why, **columns)
    lost = {m: _lost_at(tables[m]) for m in (ours, other)}
    notes = [f"Lost seeds: {'; '.join(f'{in_prose(m)} {at}' for m, at in lost.items() if at)}"] if any(lost.values()) else []
    notes += [f"No seed in common at NFE {', '.join(unpaired)}"] if unpaired else []
    kept = [(row[at], error[at]) for row, error in zip(differences, sampling, strict=True) if (at := np.isfinite(row)).any()]
    # The samples at all NFE come from the same noise, so their errors may not average out.
    columns |= numbers(mean_test([row.mean() for row, _ in kept], errors=[error.mean() for _, error in kept]))
    can_hold = not (lost[ours] or unpaired)
    return Evidence(columns, tuple(tests), tuple(notes), can_hold, rival=in_prose(other), over="NFE")


def _all_lost(ours: pd.Series, other: pd.Series, name: str) -> Counts:
    """The test at an NFE at which all our seeds diverged, from whether each seed of each method diverged."""
    counts = int(ours.sum()), len(ours), int(other.sum()), len(other)
    said = f"{counts[0]} of {counts[1]} seeds diverged, and {counts[2]} of {counts[3]} of the other method"
    return Counts(*counts, said=said, name=name)


def _lost_at(table: pd.DataFrame) -> str:
    """How many seeds a method lost at each NFE, in words; empty without lost seeds."""
    lost = table.isna().to_numpy().sum(0)
    return ", ".join(f"{n} of {len(table)} at NFE {nfe:g}" for nfe, n in zip(table.columns, lost, strict=True) if n)


CLAIM = Claim(
    number=3,
    title="FM-OT has the best samples at every NFE",
    statement="FM-OT's samples are already decent with few evaluations. With every fixed-step solver they are the best at "
    "every number of evaluations.",
    where="Fig. 7, right",
    how="The test compares FM-OT's distance to the data with that of each other method, at each NFE of each solver, paired by "
    f"seed. The solvers are the paper's: {', '.join(PAPER_SOLVERS)}, on the uniform grid, at the NFE that all of them spent. "
    "Differences are relative to the mean of both. A distance that may fall to 0 or below, such as the unbiased energy "
    "distance, needs one scale instead: its mean magnitude over the methods at the solver's smallest NFE. A line is on one "
    "solver and one other method. It shows the mean difference over NFE. It holds if FM-OT is significantly lower at every NFE, "
    "and fails if FM-OT is significantly higher at one. If all seeds of FM-OT diverged at an NFE, Fisher's exact test compares "
    "the counts. If FM-OT lost a seed, the claim cannot hold." + SAMPLING + PATH_ALONE,
    needs=("few_step",),
    evaluate=best_at_every_nfe,
)
