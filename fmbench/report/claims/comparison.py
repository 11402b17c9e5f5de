"""Lines of evidence from numbers of each seed, and the comparison of FM-OT with every other method."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmbench.report.claims.claim import Finding
from fmbench.report.claims.rows import Contest, Lost, any_diverged, in_prose, listed, say_lost
from fmbench.report.claims.verdicts import (
    FAILS,
    HOLDS,
    INCONCLUSIVE,
    NOT_TESTED,
    Judged,
    combine,
    combine_leaning,
    coverage,
    judge,
    not_holding,
)

OUTCOMES = {HOLDS: "Lower than", FAILS: "Higher than", INCONCLUSIVE: "Not significant against"}


def numbers(judged: Judged, scale: Callable[[float], float] = float) -> dict[str, Any]:
    """The columns of a line that a judgement over seeds fills.

    Args:
        scale: makes the numbers readable, for example ``math.exp`` for the logarithm of a ratio.
    """

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


def lower_than_each(
    differences: Mapping[str, Sequence[float]], contest: Contest, lost: Mapping[str, Lost], columns: Mapping[str, Any]
) -> Finding:
    """The line on "ours is lower than each of the others".

    It holds if ours is lower than each other method (an intersection-union test), and fails if any is lower than ours. It
    cannot hold if another method has no numbers. It cannot hold either if ours lost seeds, because the remaining seeds are only
    those that succeeded. In both cases it can still fail. The line shows the numbers against the closest other method, which
    has the largest mean difference.

    Args:
        differences: ours minus each other method, for each seed.
        columns: of the line: its claim, data set, part, statistic, unit and the paper's number.
    """
    columns = {"about": contest.about, **columns}
    judged = {m: j for m, v in differences.items() if (j := judge(v, 0.0)).verdict != NOT_TESTED}
    absent = [m for m in contest.others if m not in judged]
    reasons = {m: lost[m].reason if m in lost else "no rows of the same seeds" for m in absent}
    uncompared = _by_reason("Not compared with {} ({})", reasons)
    if not judged:
        why = f"No seed has values of {in_prose(contest.ours)} and of another method: {say_lost(lost)}"
        verdict = INCONCLUSIVE if any_diverged(lost) else NOT_TESTED
        return Finding(verdict=verdict, why=why if contest.ours in lost else uncompared, **columns)
    verdict = combine(j.verdict for j in judged.values())
    leans = combine_leaning((j.verdict, j.leans) for j in judged.values())
    why = _by_reason(OUTCOMES[verdict] + " {}: {}", {m: j.why for m, j in judged.items() if j.verdict == verdict})
    if partly := say_lost(lost, absent):
        why += f". Lost seeds are left out: {partly}"
    if absent:
        why += f". {uncompared}"
    if absent or contest.ours in lost:
        verdict, leans = not_holding(verdict, leans)
    closest = max(judged, key=lambda m: judged[m].value)
    return Finding(verdict=verdict, why=why, against=closest, **numbers(judged[closest]) | {"leans": leans}, **columns)


def _by_reason(sentence: str, reasons: Mapping[str, str]) -> str:
    """A sentence for each different reason; ``sentence`` has a place for the methods with this reason, and one for the reason."""
    methods: dict[str, list[str]] = {}
    for method, reason in reasons.items():
        methods.setdefault(reason, []).append(method)
    return ". ".join(sentence.format(listed(found), reason) for reason, found in methods.items())


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
