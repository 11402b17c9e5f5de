"""Claim 2: FM-OT needs about 60 % of the NFE for the same error (Fig. 7, left)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmbench.report.claims.claim import PATH_ALONE, Claim, Drafts, Evidence, Finding, Sources
from fmbench.report.claims.comparison import numbers
from fmbench.report.claims.rows import (
    PAPER_SOLVERS,
    TRAINED,
    Contest,
    by_dataset,
    contests,
    in_prose,
    lost_seeds,
    no_contest,
    paper_solves,
    say_lost,
    select,
)
from fmbench.report.claims.student import mean_test
from fmbench.report.claims.verdicts import INCONCLUSIVE, NOT_TESTED

ABOUT_SIXTY = math.sqrt(0.6 * 1.0)
"""A ratio of NFE below this (0.77) is nearer to the paper's 0.6 than to 1 (no saving), on a logarithmic scale."""
FLOOR_MARGIN = 100.0
"""Errors are compared above this many times the reference's own mean squared error. The reference then shifts the root of an
error by a tenth at most, and the NFE of a second-order solver by 5 %."""
LEVELS = 9
"""The number of errors compared, evenly spaced in the logarithm over the range that both curves cover."""
LEAST_RANGE = 4.0
"""The common errors must span this factor (doubling the NFE of a second-order solver divides the mean squared error by 16).
With less, one interpolated point would stand for a curve."""

Curves = dict[tuple[str, int], tuple[NDArray, NDArray]]
"""NFE, in ascending order, and the error at each, by method and seed."""


def fewer_evaluations(sources: Sources) -> Drafts:
    """Compares the NFE of the midpoint rule at equal error: FM-OT's over that of each diffusion method."""
    lines: Drafts = []
    for dataset, here in by_dataset(sources["records"]):
        if select(here, metric="mse", solver="midpoint").empty:
            lines.append(Finding(2, dataset, "trained", "", NOT_TESTED, "The sweep has no rows with the midpoint rule"))
            continue
        found, curves = contests(here), _curves(here)
        if TRAINED not in found:
            lines.append(no_contest(2, dataset))
        for contest in found:
            lines += [_equal_error(contest, m, here, curves) for m in contest.others if m in set(here.method.unique())]
    return lines


def _equal_error(contest: Contest, other: str, here: pd.DataFrame, curves: Curves) -> Finding | Evidence:
    """The line on one pair of methods. ``here`` has all rows of the data set, so that the line can name seeds without a curve."""
    columns: dict[str, Any] = {
        "claim": 2,
        "dataset": here.dataset.iloc[0],
        "about": contest.about,
        "part": "midpoint rule",
        "against": other,
        "statistic": "geometric mean ratio of NFE at equal error",
        "unit": "ratio",
        "paper": 0.6 if contest == TRAINED else None,
    }
    methods = (contest.ours, other)
    with_curve = {m: {seed for method, seed in curves if method == m} for m in methods}
    seeds = sorted(with_curve[contest.ours] & with_curve[other])
    if not seeds:
        lost = lost_seeds(select(here, metric="mse", solver="midpoint"), methods, "mse")
        why = f"No seed has a curve of both methods{f': {say_lost(lost)}' if lost else ''}"
        return Finding(verdict=INCONCLUSIVE if lost else NOT_TESTED, why=why, **columns)
    compared = {(m, seed): curves[m, seed] for m in methods for seed in seeds}
    bottom, top = _common_range(compared, _floors(here))
    if not top > LEAST_RANGE * bottom > 0:
        why = "No error is in the range of all curves"
        if top > bottom:
            span = f"{bottom:.2g} to {top:.2g}, less than a factor of {LEAST_RANGE:g}"
            why = f"The range of errors that all curves cover is too small: {span}"
        return Finding(verdict=NOT_TESTED, why=why, **columns)
    # The bounds are end points of curves. Levels slightly inside them stay inside after rounding.
    levels = np.geomspace(bottom * (1 + 1e-9), top * (1 - 1e-9), LEVELS)
    at = {key: evaluations_at(errors, nfe, levels) for key, (nfe, errors) in compared.items()}
    logs = [np.log(at[contest.ours, seed] / at[other, seed]) for seed in seeds]
    ratios = dict(zip(seeds, (float(np.mean(v)) for v in logs), strict=True))
    test = mean_test(ratios.values(), math.log(ABOUT_SIXTY), shown=f"{ABOUT_SIXTY:.2f}")
    by_level = np.exp(np.mean(logs, 0))
    note = f"The ratio ranges from {by_level.min():.2f} to {by_level.max():.2f} over errors from "
    note += f"{levels[0]:.1g} to {levels[-1]:.1g}"
    gaps, ours_complete = _gaps(here, methods, with_curve, ratios)
    if not test.seeds:
        return Finding(verdict=NOT_TESTED, why=". ".join(["No seed has a ratio", *gaps]), **columns)
    return Evidence({**columns, **numbers(test, math.exp)}, (test,), (note, *gaps), can_hold=ours_complete)


def _curves(here: pd.DataFrame) -> Curves:
    """The curves of the midpoint rule, at the NFE of the paper's solvers."""
    rows = select(paper_solves(select(here, metric="mse")), solver="midpoint", status="ok")
    points: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for method, seed, nfe, error in zip(rows.method, rows.seed, rows.nfe, rows.value, strict=True):
        points.setdefault((str(method), int(seed)), []).append((float(nfe), float(error)))
    sorted_points = {key: np.array(sorted(found, key=lambda point: point[0])).T for key, found in points.items()}
    return {key: (nfe, errors) for key, (nfe, errors) in sorted_points.items()}


def _floors(here: pd.DataFrame) -> dict[tuple[str, int], float]:
    """The references' own errors by method and seed."""
    rows = select(here, metric="reference_mse", status="ok")
    return {(str(m), int(s)): float(v) for m, s, v in zip(rows.method, rows.seed, rows.value, strict=True)}


def _common_range(curves: Curves, floors: Mapping[tuple[str, int], float]) -> tuple[float, float]:
    """The smallest and the largest error that every curve reaches, above the references' own errors."""
    bottoms = [max(float(errors.min()), FLOOR_MARGIN * floors.get(key, 0.0)) for key, (_, errors) in curves.items()]
    # A curve falls from its error at the fewest evaluations. If it rises first, it never falls from the larger error.
    return max(bottoms), min(float(errors[0]) for _, errors in curves.values())


def _gaps(
    here: pd.DataFrame, methods: Sequence[str], with_curve: Mapping[str, set[int]], ratios: Mapping[int, float]
) -> tuple[list[str], bool]:
    """Sentences on the seeds left out, and whether all seeds of ours, the first method, were compared."""
    texts, complete = [], True
    for method in methods:
        if without := sorted(set(here[here.method == method].seed) - with_curve[method]):
            texts.append(f"{in_prose(method)} has no curve for seed {', '.join(map(str, without))}")
            complete &= method != methods[0]
    if broken := [str(seed) for seed, ratio in ratios.items() if not math.isfinite(ratio)]:
        texts.append(f"There is no ratio for seed {', '.join(broken)}, because an error is 0")
        complete = False
    return texts, complete


def evaluations_at(errors: NDArray, nfe: NDArray, levels: NDArray) -> NDArray:
    """The NFE at which a curve of error over NFE first comes down to each level, interpolated in both logarithms.

    Points with a larger error than a cheaper point are skipped. The result is NaN for levels that the curve does not reach, and
    for levels above its first error.
    """
    order = np.argsort(nfe)
    errors, nfe = np.asarray(errors, np.float64)[order], np.asarray(nfe, np.float64)[order]
    before = np.concatenate([[np.inf], np.minimum.accumulate(errors)[:-1]])
    falling = errors < before
    x, y = np.log(errors[falling][::-1]), np.log(nfe[falling][::-1])
    return np.exp(np.interp(np.log(levels), x, y, left=np.nan, right=np.nan))


CLAIM = Claim(
    number=2,
    title="FM-OT needs about 60 % of the NFE for the same error",
    statement="For the same numerical error as models of a diffusion path, FM-OT needs only about 60 % of their evaluations.",
    where="Fig. 7, left",
    how=f"The test compares the NFE of the midpoint rule at {LEVELS} errors that both curves reach, interpolated in "
    "logarithms. The curves have the NFE that all of the paper's solvers spent "
    f"({', '.join(PAPER_SOLVERS)}). The ratio is FM-OT's NFE over the other method's. Errors below {FLOOR_MARGIN:g} times the "
    f"reference's own error are left out. A ratio counts as about 60 % or better if it is below {ABOUT_SIXTY:.2f}, which is "
    "nearer to 0.6 than to 1. An underfit network is easy to integrate, so read the ratio together with claim 1's NLL."
    + PATH_ALONE,
    needs=("records",),
    evaluate=fewer_evaluations,
    in_paper=lambda: "about 0.6",
)
