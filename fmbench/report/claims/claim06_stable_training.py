"""Claim 6: FM trains more stably than score matching on the same path (Fig. 4).

A difference (FM minus score matching) is compared with 0, and a ratio with 1. Every test has the level
:data:`~fmbench.report.claims.verdicts.LEVEL`, 95 %.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
from scipy import stats

from fmbench.report.claims.claim import Claim, Finding, Lines, Sources, sentence
from fmbench.report.claims.comparison import numbers
from fmbench.report.claims.learning_curves import OF_FIRST, curves, on_common_steps, scale_at_first
from fmbench.report.claims.rows import by_dataset, by_seed, in_prose, main_distance, metric_name, select
from fmbench.report.claims.sources import missing_source
from fmbench.report.claims.verdicts import FAILS, HOLDS, INCONCLUSIVE, LEVEL, NOT_TESTED, judge

FM, SCORE = "fm_diffusion", "score_matching"


def stable_training(sources: Sources) -> Lines:
    """Compares FM with score matching on the diffusion path: lost trainings, steps back during training, spread over seeds."""
    lines: Lines = []
    snapshots = sources.get("learning_curve")
    for dataset, here in by_dataset(sources["records"]):
        ends = here[here.metric == "final_loss"]
        if not {FM, SCORE} <= set(ends.method.unique()):
            why = f"This claim needs trainings of both {in_prose(FM)} and {in_prose(SCORE)}"
            lines.append(Finding(6, dataset, "trained", "", NOT_TESTED, why))
            continue
        columns: dict[str, Any] = {"claim": 6, "dataset": dataset, "about": "trained", "against": SCORE}
        lines += _lost_trainings(ends, columns)
        lines.append(_steps_back(snapshots, dataset, columns))
        lines.append(_spread_over_seeds(here, columns))
    return lines


def _lost_trainings(ends: pd.DataFrame, columns: Mapping[str, Any]) -> Lines:
    """The line on trainings that diverged, if their numbers differ. A verdict needs p of at most 1 - LEVEL, 0.05."""
    lost = {m: int((ends[ends.method == m].status != "ok").sum()) for m in (FM, SCORE)}
    if lost[FM] == lost[SCORE]:
        return []
    trainings = {m: int((ends.method == m).sum()) for m in lost}
    # Fisher's exact test: whether a split this uneven is chance.
    chance = float(stats.fisher_exact([[lost[m], trainings[m] - lost[m]] for m in lost]).pvalue)
    verdict = INCONCLUSIVE if chance > 1 - LEVEL else (HOLDS if lost[FM] < lost[SCORE] else FAILS)
    why = f"{lost[FM]} of {trainings[FM]} trainings of {in_prose(FM)} diverged, and {lost[SCORE]} of {trainings[SCORE]} of "
    why += f"{in_prose(SCORE)} (Fisher's exact test: p = {chance:.2g})"
    columns = {**columns, "statistic": "difference in diverged trainings", "unit": "trainings", "seeds": min(trainings.values())}
    return [Finding(part="lost trainings", verdict=verdict, why=why, value=lost[FM] - lost[SCORE], **columns)]


def _steps_back(snapshots: pd.DataFrame | None, dataset: str, columns: Mapping[str, Any]) -> Finding:
    """The line on how much the distance to the data rises again between snapshots."""
    columns = {**columns, "part": "steps back during training"}
    columns |= {"statistic": "difference in the sum of the distance's rises between snapshots", "unit": OF_FIRST}
    if snapshots is None:
        return Finding(verdict=NOT_TESTED, why=missing_source("learning_curve"), **columns)
    here = select(snapshots, dataset=dataset)
    metric = main_distance(here)
    ours, other = (curves(here, method, metric) if metric else {} for method in (FM, SCORE))
    found = on_common_steps(ours, other, 3)
    scale = scale_at_first(found)
    # A true distance is never below 0. An estimate below 0 is noise, which only a method with a distance near 0 has.
    rises = {seed: pair.clip(lower=0).diff().clip(lower=0).sum() / scale for seed, pair in found.items()}
    both = pd.DataFrame(rises, index=["ours", "other"], dtype=float).T
    judged = judge((both.ours - both.other).tolist(), threshold=0.0)
    if judged.seeds and not both.to_numpy().any():
        judged = replace(judged, verdict=INCONCLUSIVE, leans="", why="the distance of neither method ever rises")
    why = sentence(judged.why) if judged.seeds else "No seed has three or more snapshots of both methods"
    return Finding(verdict=judged.verdict, why=why, **columns, **numbers(judged))


def _spread_over_seeds(here: pd.DataFrame, columns: Mapping[str, Any]) -> Finding:
    """The line on the ratio of two standard deviations over seeds. FM is more stable where the interval is below 1.

    It uses the F interval, because a bootstrap of a spread needs many more values.
    """
    metric = main_distance(here) or "nll"
    columns = {**columns, "part": f"spread over seeds, {metric_name(here, metric)}"}
    columns |= {"statistic": "ratio of standard deviations over seeds", "unit": "ratio"}
    a, b = (by_seed(here, m, metric) for m in (FM, SCORE))
    if len(a) < 2 or len(b) < 2 or not a.std() > 0 or not b.std() > 0:
        return Finding(verdict=NOT_TESTED, why="A spread needs two or more seeds with different values", **columns)
    ratio = float(a.std() / b.std())
    low, high = (ratio / math.sqrt(stats.f.ppf(q, len(a) - 1, len(b) - 1)) for q in ((1 + LEVEL) / 2, (1 - LEVEL) / 2))
    verdict, where = (HOLDS, "is below") if high < 1 else (FAILS, "is above") if low > 1 else (INCONCLUSIVE, "includes")
    why = f"The F interval, which assumes normal values, {where} 1"
    columns |= {"value": ratio, "low": low, "high": high, "interval": "seeds", "seeds": min(len(a), len(b)), "coverage": LEVEL}
    return Finding(verdict=verdict, why=why, **columns)


CLAIM = Claim(
    number=6,
    title="FM trains more stably than score matching on the same path",
    statement="With the same diffusion path, the flow-matching loss trains more stably than score matching.",
    where="Fig. 4",
    how="The test uses three measures of stability. The first is the number of diverged trainings. It counts only if it differs "
    "between the two methods. The second is how much the distance to the data rises again between snapshots. It is the sum of "
    "all rises, with estimates below 0 counted as 0. It is divided by one scale for both methods, their mean magnitude at the "
    "first snapshot. The third is the spread of the distance over seeds, with an interval for normal values. This interval needs "
    "many seeds for a verdict.",
    needs=("records",),
    evaluate=stable_training,
)
