"""Intervals over seeds, and the verdict that an interval gives.

The unit of replication is the seed: it changes the initialisation, the order of the data and the noise that samples start
from. Methods are compared in pairs with the same seed, which removes the variation that both share.

Few seeds make weak intervals. A percentile bootstrap of n values never leaves their range. The range of n values contains the
median of their distribution with probability 1 - 2^(1-n), whatever the distribution: 50 % for two seeds, 75 % for three, 97 %
for six. Below :data:`ENOUGH_SEEDS` the bootstrap interval is therefore never a 95 % interval, and a verdict from two seeds
alone would be right by luck half of the time. With so few seeds, Student's interval must agree. It assumes normal values and is
wide for few of them (12.7 standard errors to each side for two). It therefore excludes a threshold only if the difference is
large compared with the spread. One seed has no interval, and its verdict is at most inconclusive.
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
"""The level of every interval. A verdict uses only one end of it, so it is wrong with probability (1 - LEVEL) / 2 at most."""
ENOUGH_SEEDS = 6
"""With this many seeds or more, their range contains the median with more than 95 %, and the bootstrap interval alone decides."""
EXACT_UP_TO = 6
"""Up to this many values the bootstrap takes all n^n resamples (46,656 for six), so nothing is left to chance."""
RESAMPLES = 10_000
"""With more values, it takes this many seeded resamples. The bounds then vary by less than the width of a line in a figure."""


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """The percentile interval of the mean over resamples of ``values``; NaN for fewer than two.

    Bounds are means of actual resamples (no interpolation), so for two values they are the values themselves.
    """
    x = np.asarray(values, dtype=np.float64)
    n = len(x)
    if n < 2:
        return math.nan, math.nan
    if n <= EXACT_UP_TO:
        # Resamples that differ only in order are equal. Each multiset is taken once, weighted by its multinomial count.
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
    """The largest probability with which an interval over n seeds contains the median; None for one seed.

    It is LEVEL, or less for few seeds.
    """
    return None if n < 2 else min(LEVEL, 1 - 2.0 ** (1 - n))


@dataclass(frozen=True)
class Judged:
    """The mean of one number per seed, its interval, and the verdict against a threshold.

    Attributes:
        value, low, high: the mean and its bootstrap interval; NaN where there is none.
        seeds: the number of seeds with a finite value.
        verdict, why: one of :data:`VERDICTS`, and its reason, a clause without capital and full stop.
        leans: the verdict that the bootstrap interval alone would give, if only Student's interval keeps it inconclusive.
    """

    value: float
    low: float
    high: float
    seeds: int
    verdict: str
    why: str
    leans: str = ""


def judge(values: Iterable[float], threshold: float, below: bool = True, shown: str = "") -> Judged:
    """The verdict on "the mean is below (or above) the threshold".

    It holds if the whole interval lies on the claimed side, fails if it lies on the other side, and is inconclusive otherwise.

    Args:
        values: one for each seed; those that are not finite are left out.
        shown: how the reason writes the threshold, for values on another scale (logarithms of ratios).
    """
    x = np.array([v for v in values if np.isfinite(v)])
    n, limit = len(x), shown or f"{threshold:g}"
    if not n:
        return Judged(math.nan, math.nan, math.nan, 0, NOT_TESTED, "no seed has a value")
    mean = float(x.mean())
    where = f"{'below' if mean < threshold else 'above' if mean > threshold else 'at'} {limit}"
    if n == 1:
        return Judged(mean, math.nan, math.nan, 1, INCONCLUSIVE, f"the value is {where}, but one seed gives no interval")
    low, high = bootstrap(x.tolist())
    verdict, leans = _side(low, high, threshold, below), ""
    if verdict == INCONCLUSIVE:
        why = f"the mean is {where}, but the bootstrap interval includes {limit}"
    elif n >= ENOUGH_SEEDS:
        why = f"the bootstrap interval is {where}"
    elif _side(*student(x.tolist()), threshold, below) == verdict:
        why = f"the bootstrap interval and Student's interval ({n} seeds) are {where}"
    else:
        why = f"the bootstrap interval is {where}, but Student's interval ({n} seeds) includes {limit}"
        leans, verdict = verdict, INCONCLUSIVE
    return Judged(mean, low, high, n, verdict, why, leans)


def _side(low: float, high: float, threshold: float, below: bool) -> str:
    holds, fails = (high < threshold, low > threshold) if below else (low > threshold, high < threshold)
    return HOLDS if holds else FAILS if fails else INCONCLUSIVE


def combine(verdicts: Iterable[str]) -> str:
    """One verdict from several: it fails if one fails, and holds if all that were tested hold.

    "Holds" needs no correction for the number of tests, because all must hold (an intersection-union test). "Fails" has no
    correction either, so one of many tests may fail by chance (2.5 % each).
    """
    tested = [v for v in verdicts if v != NOT_TESTED]
    if not tested:
        return NOT_TESTED
    if FAILS in tested:
        return FAILS
    return HOLDS if all(v == HOLDS for v in tested) else INCONCLUSIVE


def combine_leaning(lines: Iterable[tuple[str, str]]) -> str:
    """The leaning of several (verdict, leaning) pairs together, or nothing.

    It is the verdict they would combine to if each line that leans were decided that way.
    """
    lines = list(lines)
    verdict = combine(v for v, _ in lines)
    leaning = combine(leans or v for v, leans in lines)
    return leaning if verdict == INCONCLUSIVE and leaning in (HOLDS, FAILS) else ""


def not_holding(verdict: str, leans: str) -> tuple[str, str]:
    """The verdict and leaning of a line that may fail but cannot hold, for example because seeds were lost."""
    return (INCONCLUSIVE if verdict == HOLDS else verdict), ("" if leans == HOLDS else leans)
