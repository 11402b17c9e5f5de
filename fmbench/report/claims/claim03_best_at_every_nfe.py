"""Claim 3: FM-OT has the best samples at every NFE (Fig. 7, right)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fmbench.config.names import STEP_COSTS
from fmbench.report.claims.claim import PATH_ALONE, Claim, Finding, Lines, Sources
from fmbench.report.claims.comparison import may_be_negative, numbers, relative_difference
from fmbench.report.claims.rows import (
    TRAINED,
    Contest,
    by_dataset,
    by_seed,
    contests,
    in_prose,
    listed,
    lost_seeds,
    main_distance,
    metric_name,
    no_contest,
    no_distance,
    pairs,
    say_lost,
    select,
)
from fmbench.report.claims.verdicts import FAILS, INCONCLUSIVE, NOT_TESTED, judge, not_holding

EVERY = 0.9
"""The share of NFE that counts as "at every NFE". A solver has about ten NFE, and one of them may go the other way by chance. The
claim fails if FM-OT is significantly worse, or has no value at all, at more than a tenth of them."""

BEST, BEHIND, WORSE, FAILED, UNPAIRED = "best", "behind", "significantly worse", "failed", "no seed in common"


@dataclass(frozen=True)
class AtNFE:
    """The comparison of the methods at one NFE.

    Attributes:
        outcome: the result of our method. BEST: it has the lowest mean. BEHIND: another mean is lower, but not significantly.
            WORSE: another mean is significantly lower. FAILED: no seed of our method has a value. UNPAIRED: our method and the
            others have no seed in common.
        difference: to the best other method, by seed; None if no pair is compared.
    """

    nfe: float
    outcome: str
    difference: pd.Series | None = None


def best_at_every_nfe(sources: Sources) -> Lines:
    """Compares FM-OT's distance to the data with the best other method's, at every NFE of every fixed-step solver."""
    rows, lines = sources["few_step"], []
    fixed = rows[[str(s).partition("/")[0] in STEP_COSTS for s in rows.solver]]
    for dataset, here in by_dataset(fixed):
        metric = main_distance(here)
        if metric is None:
            lines.append(no_distance(3, dataset))
            continue
        found = contests(here)
        if TRAINED not in found:
            lines.append(no_contest(3, dataset))
        for contest in found:
            for solver in here.solver.unique():
                of_solver = select(here, solver=solver, metric=metric)
                name = f"{solver}, {metric_name(of_solver, metric)}" if len(of_solver) else solver
                columns = {"claim": 3, "dataset": dataset, "about": contest.about, "part": name}
                compared = of_solver[of_solver.method.isin([contest.ours, *contest.others])]
                lines.append(_of_solver(contest, metric, compared, columns))
    return lines or [Finding(3, "all", "trained", "", NOT_TESTED, "There are no rows of fixed-step solvers")]


def _of_solver(contest: Contest, metric: str, rows: pd.DataFrame, columns: dict[str, Any]) -> Finding:
    """The line on one solver, from the rows of the main distance of the methods compared."""
    good = rows[rows.status == "ok"]
    there = [m for m in contest.others if (good.method == m).any()]
    if not (good.method == contest.ours).any() or not there:
        lost = lost_seeds(rows, (contest.ours, *contest.others), metric)
        who = "No other method" if (good.method == contest.ours).any() else f"No seed of {in_prose(contest.ours)}"
        why = f"{who} has a value{f': {say_lost(lost)}' if lost else ''}"
        return Finding(verdict=INCONCLUSIVE if lost else NOT_TESTED, why=why, **columns)
    scale, least = None, good.nfe.min()
    columns |= {"statistic": "relative difference to the best other method, mean over NFE", "unit": "of the mean of both methods"}
    if may_be_negative(metric, good.value):
        scale = float(good[good.nfe == least].value.abs().mean())
        columns |= {"statistic": "difference to the best other method, mean over NFE", "unit": f"of the mean at NFE {least:g}"}
    found = [_at_nfe(nfe, rows[rows.nfe == nfe], contest.ours, there, scale) for nfe in sorted(good.nfe.unique())]
    differences = [at.difference for at in found if at.difference is not None]
    if not differences:
        return Finding(
            verdict=NOT_TESTED,
            why=f"{in_prose(contest.ours)} and the other methods have no values of the same seed at any NFE",
            **columns,
        )
    judged = judge(pd.concat(differences, axis=1).mean(axis=1).tolist(), 0.0)
    compared = [at for at in found if at.outcome != UNPAIRED]
    best = sum(at.outcome == BEST for at in compared)
    beaten = sum(at.outcome in (WORSE, FAILED) for at in compared)
    ours_best = f"{in_prose(contest.ours)} has the lowest mean at {best} of {len(compared)} NFE"
    texts = [ours_best, f"Averaged over all NFE, {judged.why}"]
    verdict, leans = judged.verdict, judged.leans
    if 1 - beaten / len(compared) < EVERY:
        verdict, leans = FAILS, ""
        texts += _at(found, WORSE, "Significantly worse than another method")
        texts += _at(found, FAILED, f"No seed of {in_prose(contest.ours)} has a value")
    elif best / len(compared) < EVERY:
        texts[0] += f", fewer than the required {EVERY:.0%}"
        verdict, leans = not_holding(verdict, leans)
    gaps, complete = _gaps(rows, found, contest, there)
    if not complete:
        verdict, leans = not_holding(verdict, leans)
    return Finding(verdict=verdict, why=". ".join(texts + gaps), **columns, **numbers(judged) | {"leans": leans})


def _at_nfe(nfe: float, rows: pd.DataFrame, ours: str, others: Sequence[str], scale: float | None) -> AtNFE:
    """The comparison at one NFE; differences are over ``scale``, or relative without one."""
    metric = str(rows.metric.iloc[0])
    own = by_seed(rows, ours, metric)
    if own.empty and (rows[rows.method == ours].status != "ok").any():
        # Our method fails at this NFE if all its seeds failed. Another method that failed does not count.
        return AtNFE(nfe, FAILED)
    found = {m: pair for m in others if len(pair := pairs(own, by_seed(rows, m, metric)))}
    if not found:
        unpaired = own.empty or (rows[rows.method != ours].status == "ok").any()
        return AtNFE(nfe, UNPAIRED if unpaired else BEST)
    gaps = {m: pair.ours - pair.other for m, pair in found.items()}
    rival = max(gaps, key=lambda m: float(gaps[m].mean()))
    pair = found[rival]
    relative = gaps[rival] / scale if scale is not None else relative_difference(pair.ours.to_numpy(), pair.other.to_numpy())
    difference = pd.Series(relative, pair.index)
    if any(judge(gap.tolist(), 0.0).verdict == FAILS for gap in gaps.values()):
        return AtNFE(nfe, WORSE, difference)
    return AtNFE(nfe, BEST if gaps[rival].mean() < 0 else BEHIND, difference)


def _at(found: Sequence[AtNFE], outcome: str, text: str) -> list[str]:
    """The text with the NFE of an outcome; nothing without any."""
    at = [f"{at.nfe:g}" for at in found if at.outcome == outcome]
    return [f"{text} at NFE {', '.join(at)}"] if at else []


def _gaps(rows: pd.DataFrame, found: Sequence[AtNFE], contest: Contest, there: Sequence[str]) -> tuple[list[str], bool]:
    """Sentences on what could not be compared, and whether the comparison is complete enough for the line to hold."""
    where: dict[str, list[str]] = {}
    for at in found:
        cell = rows[rows.nfe == at.nfe]
        for method, lost in lost_seeds(cell, (contest.ours, *there), str(cell.metric.iloc[0])).items():
            where.setdefault(method, []).append(f"{len(lost.seeds)} of {lost.of} at NFE {at.nfe:g}")
    unpaired = _at(found, UNPAIRED, "No seed in common")
    absent = [m for m in contest.others if m not in there]
    lost_at = "; ".join(f"{in_prose(method)} {', '.join(at)}" for method, at in where.items())
    texts = [f"Lost seeds: {lost_at}"] if where else []
    texts += unpaired
    texts += [f"Not compared with {listed(absent)}"] if absent else []
    return texts, not (absent or unpaired or contest.ours in where)


CLAIM = Claim(
    number=3,
    title="FM-OT has the best samples at every NFE",
    statement="FM-OT's samples are already decent with few evaluations. With every fixed-step solver they are the best at "
    "every number of evaluations.",
    where="Fig. 7, right",
    how="The test compares FM-OT's distance to the data with that of the best other method, at each NFE of each solver, "
    "paired by seed. Differences are relative to the mean of both. A distance that may fall to 0 or below, such as the "
    "unbiased energy distance, needs one scale instead: its mean magnitude over the methods at the solver's smallest NFE. "
    "That NFE then has the largest weight. The claim holds if the mean difference over NFE is below 0 and FM-OT has the "
    f"lowest mean at {EVERY:.0%} of the NFE. It fails if the mean difference is above 0, or if FM-OT is beaten at more than "
    f"{1 - EVERY:.0%} of the NFE. FM-OT is beaten if it is significantly worse than another method, or if all its seeds "
    "diverged. If FM-OT lost a seed, the claim cannot hold." + PATH_ALONE,
    needs=("few_step",),
    evaluate=best_at_every_nfe,
)
