"""Lines of evidence from numbers of each seed, and the comparison of FM-OT with every other method."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmbench.report.claims.claim import Drafts, Evidence, Finding
from fmbench.report.claims.rows import Contest, Lost, any_diverged, by_seed, in_prose, lost_seeds, pairs, say_lost
from fmbench.report.claims.student import Mean, coverage, mean_test
from fmbench.report.claims.verdicts import INCONCLUSIVE, NOT_TESTED


def numbers(test: Mean, scale: Callable[[float], float] = float) -> dict[str, Any]:
    """The columns of a line that a test over seeds fills.

    Args:
        scale: makes the numbers readable, for example ``math.exp`` for the logarithm of a ratio.
    """

    def shown(value: float) -> float | None:
        return scale(value) if math.isfinite(value) else None

    low, high = test.bounds
    return {
        "value": shown(test.mean),
        "low": shown(low),
        "high": shown(high),
        "threshold": shown(test.threshold),
        "claimed": "below" if test.below else "above",
        "interval": "seeds" if math.isfinite(low) else "",
        "seeds": test.seeds,
        "coverage": coverage(test.seeds) if math.isfinite(low) else None,
    }


def compared_by_seed(
    here: pd.DataFrame,
    metric: str,
    contest: Contest,
    columns: Mapping[str, Any],
    printed: Mapping[str, float | None],
    sampled: bool,
    below: bool = True,
) -> Drafts:
    """The lines of :func:`compared_with_each` on a metric of a data set's rows: ours minus the other's, in pairs of one seed.

    Args:
        sampled: whether the standard errors of the metric over samples count.
    """
    methods = (contest.ours, *contest.others)
    values = {m: by_seed(here, m, metric) for m in methods}
    differences: dict[str, Sequence[float]] = {}
    errors: dict[str, Sequence[float]] = {}
    for other in contest.others:
        pair = pairs(values[contest.ours], values[other])
        differences[other] = (pair.ours - pair.other).tolist()
        if sampled:
            own, rival = (by_seed(here, m, f"{metric}_stderr").reindex(pair.index).to_numpy() for m in (contest.ours, other))
            errors[other] = error_of_difference((pair.ours.to_numpy(), pair.other.to_numpy()), (own, rival), 1.0).tolist()
    return compared_with_each(differences, contest, lost_seeds(here, methods, metric), columns, printed, errors, below)


def compared_with_each(
    differences: Mapping[str, Sequence[float]],
    contest: Contest,
    lost: Mapping[str, Lost],
    columns: Mapping[str, Any],
    printed: Mapping[str, float | None] | None = None,
    errors: Mapping[str, Sequence[float]] | None = None,
    below: bool = True,
) -> Drafts:
    """The lines on "ours is lower than each of the others", or higher, one for each other method.

    A line cannot hold if ours lost seeds, because the remaining seeds are only those that succeeded. It can still fail.

    Args:
        differences: ours minus each other method, for each seed.
        columns: of the lines: claim, data set, part, statistic and unit.
        printed: the paper's value of each difference.
        errors: the standard errors of the differences over samples, where they are known and count.
        below: whether the claim says lower.
    """
    columns = {"about": contest.about, **columns}
    known = errors or {}
    found = {m: mean_test(values, below=below, errors=known.get(m, ())) for m, values in differences.items()}
    tests = {m: test for m, test in found.items() if test.seeds}
    if not tests:
        return [_none(contest, lost, columns)]
    lines: Drafts = []
    for other in contest.others:
        if other not in tests:
            lines.append(not_compared(other, lost, columns))
            continue
        gone = say_lost({m: lost[m] for m in (contest.ours, other) if m in lost})
        lines.append(
            Evidence(
                {**columns, "against": other, "paper": (printed or {}).get(other), **numbers(tests[other])},
                (tests[other],),
                (f"Lost seeds are left out: {gone}",) if gone else (),
                can_hold=contest.ours not in lost,
                rival=in_prose(other),
            )
        )
    return lines


def _none(contest: Contest, lost: Mapping[str, Lost], columns: Mapping[str, Any]) -> Finding:
    """The line where no method can be compared."""
    if contest.ours in lost:
        why = f"No seed has values of {in_prose(contest.ours)} and of another method: {say_lost(lost)}"
    else:
        why = ". ".join(_absence(m, lost) for m in contest.others)
    return Finding(verdict=INCONCLUSIVE if any_diverged(lost) else NOT_TESTED, why=why, **columns)


def not_compared(other: str, lost: Mapping[str, Lost], columns: Mapping[str, Any]) -> Finding:
    """The line on another method without numbers of the same seeds: the claim cannot hold against it, and does not fail."""
    verdict = INCONCLUSIVE if other in lost and any_diverged({other: lost[other]}) else NOT_TESTED
    return Finding(verdict=verdict, why=_absence(other, lost), **{**columns, "against": other})


def _absence(other: str, lost: Mapping[str, Lost]) -> str:
    return f"Not compared with {in_prose(other)} ({lost[other].reason if other in lost else 'no rows of the same seeds'})"


def may_be_negative(metric: str, values: pd.Series) -> bool:
    """Whether a distance may lie near 0 or below, so that a relative difference of two values means nothing."""
    return metric == "energy_distance" or bool((values <= 0).any())


def relative_difference(ours: NDArray, other: NDArray) -> NDArray:
    """(ours - other) over the mean of their magnitudes: 0 where equal, -2/3 for half as much, within ±2 always.

    It is for numbers well above 0. For numbers near 0 or below, such as an unbiased distance at its floor, it is mostly noise,
    and ±2 if the signs differ. Such numbers need another scale.
    """
    size = (np.abs(ours) + np.abs(other)) / 2
    return np.divide(ours - other, size, out=np.zeros_like(size), where=size > 0)


def scaled_difference(ours: NDArray, other: NDArray, scale: float | None) -> NDArray:
    """(ours - other) / scale, or without a scale the :func:`relative_difference`."""
    return relative_difference(ours, other) if scale is None else np.asarray((ours - other) / scale)


def error_of_difference(values: tuple[NDArray, NDArray], errors: tuple[NDArray, NDArray], scale: float | None) -> NDArray:
    """The standard error of :func:`scaled_difference`, from those of ours and of the other; to first order if it is relative.

    Both start from the same noise, and this makes the true error smaller: errors that are independent are the safe assumption.
    """
    (a, b), (error_a, error_b) = values, errors
    if scale is not None:
        return np.asarray(np.hypot(error_a, error_b) / scale)
    size = (np.abs(a) + np.abs(b)) ** 2 / 4
    return np.divide(np.hypot(b * error_a, a * error_b), size, out=np.zeros_like(size), where=size > 0)
