"""Student's t over seeds: the interval of a mean, and the test of a mean against a threshold.

The unit of replication is the seed: it changes the initialisation, the order of the data and the noise that samples start from.
Methods are compared in pairs with the same seed, which removes the variation that both share. Every interval is Student's, at
every number of seeds. It contains the mean with probability :data:`~fmbench.report.claims.verdicts.LEVEL` exactly if the values
of the seeds are normal. Ratios are therefore judged on a logarithmic scale. ``docs/claims.md`` gives its coverage for other
distributions, by simulation. A percentile bootstrap is not used: its coverage is 0.86 at six seeds.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from fmbench.report.claims.verdicts import ALPHA, FAILS, HOLDS, INCONCLUSIVE, LEVEL, MOST_SEEDS

ROUNDING = 1e-12
"""A spread below this share of the largest value is rounding: the seeds then have the same value."""


def student(values: Sequence[float]) -> tuple[float, float]:
    """Student's interval of the mean; NaN for fewer than two values."""
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2:
        return math.nan, math.nan
    half = _quantile(ALPHA, len(x)) * x.std(ddof=1) / math.sqrt(len(x))
    return float(x.mean() - half), float(x.mean() + half)


def coverage(n: int) -> float | None:
    """The probability with which the interval over n seeds contains the mean of normal values; None for one seed."""
    return None if n < 2 else LEVEL


@functools.cache
def _quantile(level: float, n: int) -> float:
    """The t value of n seeds that is exceeded with probability ``level``."""
    return float(-special.stdtrit(n - 1, level))


@dataclass(frozen=True)
class Mean:
    """The test of "the mean over seeds is below (or above) a threshold".

    Attributes:
        mean, deviation, seeds: the mean and the standard deviation of the seeds' values, and their number. The deviation is at
            least the sampling error. It is NaN for one seed, and 0 if all seeds have the same value without sampling errors.
        threshold: the mean must be on the claimed side of it for the claim to hold.
        below: whether the claimed side is below.
        other_side: the claim fails if the mean is beyond this; the threshold if None.
        shown: how sentences write the threshold, for values on another scale (logarithms of ratios).
        name: what the test is on, where a line has several.
        sampling: the standard error of one seed's value over its samples; 0 if it is not known, or does not count.
    """

    mean: float
    deviation: float
    seeds: int
    threshold: float
    below: bool = True
    other_side: float | None = None
    shown: str = ""
    name: str = ""
    sampling: float = 0.0

    @property
    def limit(self) -> str:
        """The threshold in a sentence."""
        return self.shown or f"{self.threshold:g}"

    @property
    def p_holds(self) -> float:
        """The p-value of "the mean is on the claimed side of the threshold", one-sided."""
        return self._p(self.threshold - self.mean if self.below else self.mean - self.threshold)

    @property
    def p_fails(self) -> float:
        """The p-value of "the mean is on the other side", one-sided."""
        return self._p(self._beyond)

    @property
    def _beyond(self) -> float:
        """How far the mean is on the side on which the claim fails."""
        limit = self.threshold if self.other_side is None else self.other_side
        return self.mean - limit if self.below else limit - self.mean

    def _p(self, gap: float) -> float:
        if self.seeds < 2:
            return 1.0
        if self.deviation == 0:
            # Without a spread there is no t. The sign test needs none.
            return 0.5**self.seeds if gap > 0 else 1.0
        return float(special.stdtr(self.seeds - 1, -gap * math.sqrt(self.seeds) / self.deviation))

    @property
    def bounds(self) -> tuple[float, float]:
        """The interval of the mean; NaN for one seed, and for seeds without a spread."""
        if self.seeds < 2 or self.deviation == 0:
            return math.nan, math.nan
        half = _quantile(ALPHA, self.seeds) * self.deviation / math.sqrt(self.seeds)
        return self.mean - half, self.mean + half

    @property
    def towards(self) -> str:
        """The verdict on whose side the mean is; INCONCLUSIVE between the two thresholds or on the threshold."""
        holds = self.mean < self.threshold if self.below else self.mean > self.threshold
        return HOLDS if holds else FAILS if self._beyond > 0 else INCONCLUSIVE

    def seeds_for(self, level: float) -> float:
        """The smallest number of seeds at which the test would be significant, at the difference and the spread seen.

        Infinite for more than :data:`MOST_SEEDS`. NaN for one seed, which has no spread.
        """
        if self.seeds < 2:
            return math.nan
        gap = abs(self.mean - self.threshold) if self.towards == HOLDS else self._beyond
        for n in range(self.seeds + 1, MOST_SEEDS + 1):
            if gap <= 0:
                break
            if 0.5**n <= level if self.deviation == 0 else gap * math.sqrt(n) >= self.deviation * _quantile(level, n):
                return n
        return math.inf

    def reason(self, outcome: str, correction: str) -> str:
        """The clause that gives the reason of an outcome.

        Args:
            correction: how the clause names the correction of "fails".
        """
        where = "below" if self.mean < self.threshold else "above" if self.mean > self.threshold else "at"
        if self.seeds == 1:
            return f"the value is {where} {self.limit}, but one seed gives no interval"
        if self.deviation == 0:
            said = f"all {self.seeds} seeds have the same value, {where} {self.limit}"
            return f"{said}, and the sign test is {'not ' if outcome == INCONCLUSIVE else ''}significant"
        spread = " and the sampling error as their spread" if 0 < self.sampling == self.deviation else ""
        interval = f"with {self.seeds} seeds{spread} the {LEVEL * 100:g} % t interval"
        if outcome != INCONCLUSIVE:
            return f"{interval} is {where} {self.limit}{correction if outcome == FAILS else ''}"
        low, high = self.bounds
        if low <= self.threshold <= high:
            return f"{interval} includes {self.limit}"
        if self.p_fails > ALPHA and self.other_side is not None:
            return f"{interval} is {where} {self.limit}, but not {where} {self.other_side:g}"
        return f"{interval} is {where} {self.limit}, but this is not significant{correction}"


def mean_test(
    values: Iterable[float], threshold: float = 0.0, below: bool = True, errors: Iterable[float] = (), **columns: Any
) -> Mean:
    """The test of the mean of ``values``, one for each seed; those that are not finite are left out.

    Every seed draws its own samples, so the true spread over seeds contains the sampling error. The spread of few seeds may be
    smaller by chance. The root mean square of the errors then takes its place.

    Args:
        errors: the standard error of each value over its samples; those that are not finite are left out.
        columns: further attributes of :class:`Mean`.
    """
    x = np.array([v for v in values if np.isfinite(v)], dtype=np.float64)
    mean = float(x.mean()) if len(x) else math.nan
    deviation = float(x.std(ddof=1)) if len(x) > 1 else math.nan
    if deviation <= ROUNDING * float(np.abs(x).max(initial=0.0)):
        deviation = 0.0
    known = np.array([e for e in errors if np.isfinite(e)], dtype=np.float64)
    sampling = float(np.sqrt(np.mean(known**2))) if len(known) and len(x) > 1 else 0.0
    return Mean(mean, max(deviation, sampling), len(x), threshold, below, sampling=sampling, **columns)
