"""Claim 6: FM trains more stably than score matching on the same path (Fig. 4).

A difference (FM minus score matching) is compared with 0, and a ratio with 1.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmbench.report.claims.claim import Claim, Drafts, Evidence, Finding, Sources
from fmbench.report.claims.comparison import numbers
from fmbench.report.claims.fisher import Counts
from fmbench.report.claims.learning_curves import OF_FIRST, curves, on_common_steps, scale_at_first
from fmbench.report.claims.rows import by_dataset, by_seed, in_prose, main_distance, metric_name, pairs, select
from fmbench.report.claims.sources import missing_source
from fmbench.report.claims.student import mean_test
from fmbench.report.claims.verdicts import INCONCLUSIVE, NOT_TESTED

FM, SCORE = "fm_diffusion", "score_matching"

LEAST_SEEDS = 3
"""The smallest number of seeds with a test of their spread: without one of them, two must remain."""


def stable_training(sources: Sources) -> Drafts:
    """Compares FM with score matching on the diffusion path: lost trainings, steps back during training, spread over seeds."""
    lines: Drafts = []
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


def _lost_trainings(ends: pd.DataFrame, columns: Mapping[str, Any]) -> Drafts:
    """The line on trainings that diverged, if their numbers differ."""
    lost = {m: int((ends[ends.method == m].status != "ok").sum()) for m in (FM, SCORE)}
    if lost[FM] == lost[SCORE]:
        return []
    of = {m: int((ends.method == m).sum()) for m in lost}
    said = f"{lost[FM]} of {of[FM]} trainings of {in_prose(FM)} diverged and {lost[SCORE]} of {of[SCORE]} of {in_prose(SCORE)}"
    test = Counts(lost[FM], of[FM], lost[SCORE], of[SCORE], said)
    columns = {**columns, "part": "lost trainings", "statistic": "difference in diverged trainings", "unit": "trainings"}
    return [
        Evidence({**columns, "seeds": test.seeds, "value": lost[FM] - lost[SCORE], "threshold": 0.0, "claimed": "below"}, (test,))
    ]


def _steps_back(snapshots: pd.DataFrame | None, dataset: str, columns: Mapping[str, Any]) -> Finding | Evidence:
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
    test = mean_test(both.ours - both.other)
    columns |= numbers(test)
    if not test.seeds:
        return Finding(verdict=NOT_TESTED, why="No seed has three or more snapshots of both methods", **columns)
    if not both.to_numpy().any():
        return Finding(verdict=INCONCLUSIVE, why="The distance of neither method ever rises", **columns)
    return Evidence(columns, (test,))


def _spread_over_seeds(here: pd.DataFrame, columns: Mapping[str, Any]) -> Finding | Evidence:
    """The line on the ratio of two standard deviations over seeds. FM is more stable where the interval is below 1."""
    metric = main_distance(here) or "nll"
    columns = {**columns, "part": f"spread over seeds, {metric_name(here, metric)}"}
    columns |= {"statistic": "ratio of standard deviations over seeds", "unit": "ratio"}
    both = pairs(by_seed(here, FM, metric), by_seed(here, SCORE, metric))
    if len(both) < 2 or not both.ours.std() > 0 or not both.other.std() > 0:
        return Finding(verdict=NOT_TESTED, why="A spread needs two or more seeds with different values", **columns)
    ours, other = log_spreads(both.ours.to_numpy()), log_spreads(both.other.to_numpy())
    if not np.isfinite([ours, other]).all():
        columns |= {"value": float(both.ours.std() / both.other.std()), "threshold": 1.0, "claimed": "below", "seeds": len(both)}
        return Finding(verdict=INCONCLUSIVE, why=f"The test of a spread needs {LEAST_SEEDS} or more different values", **columns)
    test = mean_test(ours - other, shown="1")
    return Evidence({**columns, **numbers(test, math.exp)}, (test,))


def log_spreads(values: NDArray) -> NDArray:
    """The jackknife's value of each seed for the logarithm of the standard deviation; their mean estimates it.

    With n seeds, the value of seed i is n log s - (n - 1) log s_i, where s_i is the standard deviation without seed i. Student's
    interval of such values assumes normal values much less than the F interval of two variances does (Miller 1968), and it
    compares methods in pairs with the same seed. The result has shape (n,), and is infinite where a spread is 0.
    """
    n = len(values)
    without = np.array([np.delete(values, i).std(ddof=1) for i in range(n)]) if n > 2 else np.zeros(n)
    with np.errstate(divide="ignore"):
        return np.asarray(n * np.log(values.std(ddof=1)) - (n - 1) * np.log(without))


CLAIM = Claim(
    number=6,
    title="FM trains more stably than score matching on the same path",
    statement="With the same diffusion path, the flow-matching loss trains more stably than score matching.",
    where="Fig. 4",
    how="The test uses three measures of stability. The first is the number of diverged trainings, with Fisher's exact test. It "
    "counts only if it differs between the two methods. The second is how much the distance to the data rises again between "
    "snapshots. It is the sum of all rises, with estimates below 0 counted as 0. It is divided by one scale for both methods, "
    "their mean magnitude at the first snapshot. The third is the ratio of the spreads of the distance over seeds. Its interval "
    "is Student's on the jackknife's values of the logarithm, and needs many seeds for a verdict.",
    needs=("records",),
    evaluate=stable_training,
)
