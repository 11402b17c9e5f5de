"""Fisher's exact test of two counts of lost seeds."""

import math
from dataclasses import dataclass

from scipy import stats

from fmbench.report.claims.verdicts import FAILS, HOLDS, INCONCLUSIVE, MOST_SEEDS


@dataclass(frozen=True)
class Counts:
    """The test of "ours loses fewer seeds than the other method", by the exact distribution of the counts (one-sided).

    Attributes:
        ours, of_ours: the lost seeds of our method, and all its seeds; ``other``, ``of_other``: the same of the other method.
        said: the counts in a clause.
        name: what the test is on, where a line has several.
    """

    ours: int
    of_ours: int
    other: int
    of_other: int
    said: str
    name: str = ""

    @property
    def seeds(self) -> int:
        """The number of seeds of the method with fewer."""
        return min(self.of_ours, self.of_other)

    @property
    def p_holds(self) -> float:
        """The p-value of "ours loses fewer"."""
        return _p(self.ours, self.of_ours, self.other, self.of_other, "less")

    @property
    def p_fails(self) -> float:
        """The p-value of "ours loses more"."""
        return _p(self.ours, self.of_ours, self.other, self.of_other, "greater")

    @property
    def towards(self) -> str:
        """The verdict on whose side the shares are."""
        ours, other = self.ours / self.of_ours, self.other / self.of_other
        return HOLDS if ours < other else FAILS if ours > other else INCONCLUSIVE

    def seeds_for(self, level: float) -> float:
        """The smallest number of seeds of each method that would be significant with the shares seen; infinite for too many."""
        side = "less" if self.towards == HOLDS else "greater"
        for n in range(self.seeds + 1, MOST_SEEDS + 1):
            counts = (round(n * self.ours / self.of_ours), n, round(n * self.other / self.of_other), n)
            if _p(*counts, side) <= level:
                return n
        return math.inf

    def reason(self, outcome: str, correction: str) -> str:
        """The clause that gives the reason of an outcome."""
        p = min(self.p_holds, self.p_fails)
        significant = "is not significant" if outcome == INCONCLUSIVE else "is significant"
        return f"{self.said}, which {significant}{correction if outcome == FAILS else ''} (Fisher's exact test: p = {p:.2g})"


def _p(ours: int, of_ours: int, other: int, of_other: int, side: str) -> float:
    return float(stats.fisher_exact([[ours, of_ours - ours], [other, of_other - other]], alternative=side).pvalue)
