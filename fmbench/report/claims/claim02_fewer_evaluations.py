"""Claim 2: FM-OT needs about 60 % of the NFE for the same error (Fig. 7, left)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmbench.report.claims.claim import PATH_ALONE, Claim, Finding, Lines, Sources, sentence
from fmbench.report.claims.comparison import numbers
from fmbench.report.claims.rows import TRAINED, Contest, by_dataset, contests, in_prose, lost_seeds, no_contest, say_lost, select
from fmbench.report.claims.verdicts import INCONCLUSIVE, NOT_TESTED, judge, not_holding

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


def fewer_evaluations(sources: Sources) -> Lines:
    """Compares the NFE of the midpoint rule at equal error: FM-OT's over that of each diffusion method."""
    lines = []
    for dataset, here in by_dataset(sources["records"]):
        if select(here, metric="mse", solver="midpoint").empty:
            lines.append(Finding(2, dataset, "trained", "", NOT_TESTED, "The sweep has no rows with the midpoint rule"))
            continue
        found = contests(here)
        if TRAINED not in found:
            lines.append(no_contest(2, dataset))
        for contest in found:
            lines += [_equal_error(dataset, contest, m, here) for m in contest.others if m in set(here.method.unique())]
    return lines


def _equal_error(dataset: str, contest: Contest, other: str, here: pd.DataFrame) -> Finding:
    """The line on one pair of methods. ``here`` has all rows of the data set, so that the line can name seeds without a curve."""
    columns: dict[str, Any] = {
        "claim": 2,
        "dataset": dataset,
        "about": contest.about,
        "part": "midpoint rule",
        "against": other,
        "statistic": "geometric mean ratio of NFE at equal error",
        "unit": "ratio",
        "paper": 0.6 if contest == TRAINED else None,
    }
    methods = (contest.ours, other)
    curves = select(here, metric="mse", solver="midpoint", status="ok")
    with_curve = {m: set(curves[curves.method == m].seed) for m in methods}
    seeds = sorted(with_curve[contest.ours] & with_curve[other])
    if not seeds:
        lost = lost_seeds(select(here, metric="mse", solver="midpoint"), methods, "mse")
        why = f"No seed has a curve of both methods{f': {say_lost(lost)}' if lost else ''}"
        return Finding(verdict=INCONCLUSIVE if lost else NOT_TESTED, why=why, **columns)
    curves = curves[curves.method.isin(methods) & curves.seed.isin(seeds)]
    bottom, top = _common_range(curves, select(here, metric="reference_mse", status="ok"))
    if not top > LEAST_RANGE * bottom > 0:
        span = f"{bottom:.2g} to {top:.2g}, less than a factor of {LEAST_RANGE:g}"
        why = f"The range of errors that all curves cover is too small: {span}"
        return Finding(verdict=NOT_TESTED, why=why, **columns)
    # The bounds are end points of curves. Levels slightly inside them stay inside after rounding.
    levels = np.geomspace(bottom * (1 + 1e-9), top * (1 - 1e-9), LEVELS)
    logs = [_log_ratios(select(curves, seed=seed), methods, levels) for seed in seeds]
    ratios = dict(zip(seeds, (float(np.mean(v)) for v in logs), strict=True))
    judged = judge(ratios.values(), math.log(ABOUT_SIXTY), shown=f"{ABOUT_SIXTY:.2f}")
    by_level = np.exp(np.mean(logs, 0))
    why = f"{sentence(judged.why)}. The ratio ranges from {by_level.min():.2f} to {by_level.max():.2f} over errors from "
    why += f"{levels[0]:.1g} to {levels[-1]:.1g}"
    gaps, ours_complete = _gaps(here, methods, with_curve, ratios)
    verdict, leans = (judged.verdict, judged.leans) if ours_complete else not_holding(judged.verdict, judged.leans)
    return Finding(verdict=verdict, why=". ".join([why, *gaps]), **columns, **numbers(judged, math.exp) | {"leans": leans})


def _common_range(curves: pd.DataFrame, references: pd.DataFrame) -> tuple[float, float]:
    """The smallest and the largest error that every curve reaches, above the references' own errors."""
    floors = references.set_index(["method", "seed"]).value
    by_curve = curves.sort_values("nfe", kind="stable").groupby(["method", "seed"]).value
    bottoms = [max(low, FLOOR_MARGIN * floors.get(key, 0.0)) for key, low in by_curve.min().items()]
    # A curve falls from its error at the fewest evaluations. If it rises first, it never falls from the larger error.
    return max(bottoms), float(by_curve.first().min())


def _log_ratios(curves: pd.DataFrame, methods: tuple[str, str], levels: NDArray) -> NDArray:
    """The logarithm of one seed's ratio of NFE at each error level."""
    ours, other = (
        evaluations_at(curve.value.to_numpy(), curve.nfe.to_numpy(), levels)
        for curve in (select(curves, method=method) for method in methods)
    )
    return np.asarray(np.log(ours / other))


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
    f"logarithms. The ratio is FM-OT's NFE over the other method's. Errors below {FLOOR_MARGIN:g} times the reference's own "
    f"error are left out. A ratio counts as about 60 % or better if it is below {ABOUT_SIXTY:.2f}, which is nearer to 0.6 "
    "than to 1. An underfit network is easy to integrate, so read the ratio together with claim 1's NLL." + PATH_ALONE,
    needs=("records",),
    evaluate=fewer_evaluations,
    in_paper=lambda: "about 0.6",
)
