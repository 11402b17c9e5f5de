"""Statistics behind the claims: intervals over seeds, a verdict from them, and curves compared at equal error.

The unit of replication is the seed: another initialisation, another order of the data, another noise to sample from. Methods
are compared pairwise within a seed, which takes out what both share.

How much an interval over few seeds is worth. A percentile bootstrap of n values never leaves their range, and the range of n
values holds the median of what they were drawn from with probability 1 - 2^(1-n), whatever the distribution: 50 % for two
seeds, 75 % for three, 97 % for six. So below :data:`ENOUGH_SEEDS` it can never be the 95 % interval it is called, and a verdict
from it alone would be right half of the time by luck. There Student's interval, which pays for few values by its width
(12.7 standard errors for two), must agree: it asks for normal values, and with two of them it clears a threshold only where the
difference is large against the spread. One seed has no interval, and its verdict is never more than inconclusive.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

HOLDS, FAILS, INCONCLUSIVE, NOT_TESTED = "holds", "fails", "inconclusive", "not tested here"
VERDICTS = (HOLDS, FAILS, INCONCLUSIVE, NOT_TESTED)

LEVEL = 0.95
"""Of every interval; a verdict is on one side of it, so each is wrong with at most half the rest."""
ENOUGH_SEEDS = 6
"""From here on the range of the seeds holds the median with more than 95 %, and the bootstrap may stand alone."""
EXACT_UP_TO = 6
"""Up to so many values all n^n resamples are taken (46,656 for six), so that nothing is left to chance."""
RESAMPLES = 10_000
"""Above, so many seeded ones: the bounds then vary by less than the width of a line in a figure."""


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """The percentile interval of the mean over resamples of ``values``; NaN for fewer than two.

    Bounds are means of actual resamples (no interpolation), so for two values they are the values themselves.
    """
    x = np.asarray(values, dtype=np.float64)
    n = len(x)
    if n < 2:
        return math.nan, math.nan
    if n <= EXACT_UP_TO:
        # Resamples that differ in order are equal: one for each multiset, with its multinomial count.
        picks = list(itertools.combinations_with_replacement(range(n), n))
        counts = np.array([np.bincount(pick, minlength=n) for pick in picks])
        weights = np.array([math.factorial(n) / math.prod(math.factorial(int(k)) for k in row) for row in counts])
        means = counts @ x / n
    else:
        means = np.random.default_rng(0).choice(x, (RESAMPLES, n)).mean(1)
        weights = np.ones(RESAMPLES)
    return _percentiles(means, weights)


def _percentiles(means: NDArray, weights: NDArray) -> tuple[float, float]:
    order = np.argsort(means, kind="stable")
    cumulated = np.cumsum(weights[order]) / weights.sum()
    tail = (1 - LEVEL) / 2
    low = int(np.searchsorted(cumulated, tail, side="right"))
    high = min(int(np.searchsorted(cumulated, 1 - tail, side="left")), len(means) - 1)
    return float(means[order[low]]), float(means[order[high]])


def student(values: Sequence[float]) -> tuple[float, float]:
    """Student's interval of the mean; NaN for fewer than two values."""
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2:
        return math.nan, math.nan
    half = stats.t.ppf((1 + LEVEL) / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x))
    return float(x.mean() - half), float(x.mean() + half)


def coverage(n: int) -> float | None:
    """How often an interval over n seeds holds the median at most: LEVEL, or less where the seeds are few; None for one."""
    return None if n < 2 else min(LEVEL, 1 - 2.0 ** (1 - n))


@dataclass(frozen=True)
class Judged:
    """The mean of one number for each seed, its interval, and what that says of a threshold."""

    value: float
    low: float
    high: float
    seeds: int
    verdict: str
    why: str
    leans: str = ""


def judge(values: Iterable[float], threshold: float, below: bool = True) -> Judged:
    """Whether a statistic lies below (or above) a threshold, by its values for each seed.

    It holds where the whole interval lies on the claim's side, fails where it lies on the other, and is inconclusive between.
    Where it is inconclusive only because the seeds are few, ``leans`` says what the interval alone would have said.
    """
    x = np.array([v for v in values if np.isfinite(v)])
    n = len(x)
    if not n:
        return Judged(math.nan, math.nan, math.nan, 0, NOT_TESTED, "no seed has a value")
    mean = float(x.mean())
    side = "on the claimed side" if (mean < threshold) == below else "on the other side"
    if n == 1:
        return Judged(mean, math.nan, math.nan, 1, INCONCLUSIVE, f"{side}, but one seed has no interval")
    low, high = bootstrap(x.tolist())
    verdict, leans = _side(low, high, threshold, below), ""
    why = f"the interval is {side}" if verdict != INCONCLUSIVE else f"the mean is {side}, the interval on both sides"
    if n < ENOUGH_SEEDS and verdict != INCONCLUSIVE:
        if _side(*student(x.tolist()), threshold, below) == verdict:
            why = f"the interval is {side}, and so is Student's"
        else:
            why, leans, verdict = f"the interval is {side}, but with {n} seeds Student's is on both sides", verdict, INCONCLUSIVE
    return Judged(mean, low, high, n, verdict, why, leans)


def _side(low: float, high: float, threshold: float, below: bool) -> str:
    holds, fails = (high < threshold, low > threshold) if below else (low > threshold, high < threshold)
    return HOLDS if holds else FAILS if fails else INCONCLUSIVE


def combine(verdicts: Iterable[str]) -> str:
    """The verdict on all: it fails where one does, and holds where all that were tested do.

    For "holds" no correction for the number of tests is due: all must hold (an intersection-union test). For "fails" there is
    none either, so among many tests one may fail by chance (2.5 % each).
    """
    tested = [v for v in verdicts if v != NOT_TESTED]
    if not tested:
        return NOT_TESTED
    if FAILS in tested:
        return FAILS
    return HOLDS if all(v == HOLDS for v in tested) else INCONCLUSIVE


def combine_leaning(lines: Iterable[tuple[str, str]]) -> str:
    """What (verdict, leaning) of several lines lean to together: the verdict if those that lean were decided, or nothing."""
    lines = list(lines)
    verdict = combine(v for v, _ in lines)
    leaning = combine(leans or v for v, leans in lines)
    return leaning if verdict == INCONCLUSIVE and leaning in (HOLDS, FAILS) else ""


@dataclass(frozen=True)
class Finding:
    """One line of evidence.

    Attributes:
        claim: its number; ``dataset``: the data set, "all" for the claim as a whole, "" where there is none.
        about: "trained", "oracle" (the path alone), "definition" or "overall".
        part: what of the claim this line is on; ``against``: the other method.
        statistic, unit, value, low, high: the number and its interval, over ``interval`` ("seeds", "samples", or "").
        coverage: how often such an interval can hold the truth at most (:func:`coverage`).
        paper: the paper's value of the same number, where it has one.
        verdict, why: one of :data:`VERDICTS`, and the reason.
        leans: of an inconclusive line, the verdict that its interval would give if the seeds were not so few.
    """

    claim: int
    dataset: str
    about: str
    part: str
    verdict: str
    why: str
    against: str = ""
    statistic: str = ""
    unit: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    interval: str = ""
    seeds: int = 0
    coverage: float | None = None
    paper: float | None = None
    leans: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"a verdict is one of {', '.join(VERDICTS)}, not {self.verdict!r}")
        if not self.why:
            raise ValueError("a verdict needs a reason")


def relative_difference(ours: NDArray, other: NDArray) -> NDArray:
    """(ours - other) over the mean of their magnitudes: 0 where equal, -2/3 for half as much, within ±2 always.

    For numbers well above zero. Of numbers about zero or below it, such as an unbiased distance at its floor, it is mostly
    noise, and ±2 where the signs differ: those need a scale from elsewhere.
    """
    size = (np.abs(ours) + np.abs(other)) / 2
    return np.divide(ours - other, size, out=np.zeros_like(size), where=size > 0)


def evaluations_at(errors: NDArray, nfe: NDArray, levels: NDArray) -> NDArray:
    """The NFE at which a curve of error over NFE first comes down to each level, by interpolation in both logarithms.

    Points that are worse than a cheaper one are passed over. NaN for levels that the curve does not reach or starts below.
    """
    order = np.argsort(nfe)
    errors, nfe = np.asarray(errors, np.float64)[order], np.asarray(nfe, np.float64)[order]
    before = np.concatenate([[np.inf], np.minimum.accumulate(errors)[:-1]])
    falling = errors < before
    x, y = np.log(errors[falling][::-1]), np.log(nfe[falling][::-1])
    return np.exp(np.interp(np.log(levels), x, y, left=np.nan, right=np.nan))


def half_time(times: NDArray, explained: NDArray) -> NDArray:
    """The first time at which ``explained`` (..., times) comes up to one half, by linear interpolation; NaN if it never does."""
    explained = np.atleast_2d(explained)
    reached = explained >= 0.5
    first = reached.argmax(-1)
    rows = np.arange(len(explained))
    earlier = np.maximum(first - 1, 0)
    low, high = explained[rows, earlier], explained[rows, first]
    step = np.divide(0.5 - low, high - low, out=np.zeros(len(rows)), where=high != low)
    found = times[earlier] + np.clip(step, 0, 1) * (times[first] - times[earlier])
    found = np.where(first == 0, times[0], found)
    return np.where(reached.any(-1), found, np.nan)
