"""The four verdicts, the level of every test, and how the verdicts of several lines become one."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

HOLDS, FAILS, INCONCLUSIVE, NOT_TESTED = "holds", "fails", "inconclusive", "not tested here"
VERDICTS = (HOLDS, FAILS, INCONCLUSIVE, NOT_TESTED)
INFINITIVES = {HOLDS: "hold", FAILS: "fail"}

LEVEL = 0.95
"""The level of every interval."""
ALPHA = (1 - LEVEL) / 2
"""The level of every one-sided test, 2.5 %. It is also the error rate of a whole claim, for "holds" and for "fails" each."""
MOST_SEEDS = 100
"""The largest number of seeds that a line says would decide it."""


@dataclass(frozen=True)
class Needs:
    """How many seeds would decide an undecided line at the difference and the spread seen.

    Attributes:
        seeds: their number; infinite for more than :data:`MOST_SEEDS`.
        verdict: what they would show, :data:`HOLDS` or :data:`FAILS`.
    """

    seeds: float
    verdict: str

    def __str__(self) -> str:
        return f"{self.seeds:g}" if math.isfinite(self.seeds) else f">{MOST_SEEDS}"

    @property
    def words(self) -> str:
        """The number and the verdict as a clause: "about 9 seeds would make it hold"."""
        number = f"about {self.seeds:g}" if math.isfinite(self.seeds) else f"more than {MOST_SEEDS}"
        return f"{number} seeds would make it {INFINITIVES[self.verdict]}"


def tally(verdicts: Sequence[str]) -> str:
    """Return how many lines have each verdict, as text: "4 hold, 1 fails, 2 inconclusive"."""
    counts = [(verdicts.count(verdict), verdict) for verdict in VERDICTS]
    return ", ".join(f"{n} {INFINITIVES.get(verdict, verdict) if n > 1 else verdict}" for n, verdict in counts if n)


def combine(verdicts: Iterable[str]) -> str:
    """One verdict from several: it fails if one fails, and holds if all that were tested hold.

    "Holds" needs no correction for the number of tests, because all must hold (an intersection-union test). For "fails", the
    lines are corrected before (:func:`fmbench.report.claims.decision.decide`).
    """
    tested = [v for v in verdicts if v != NOT_TESTED]
    if not tested:
        return NOT_TESTED
    if FAILS in tested:
        return FAILS
    return HOLDS if all(v == HOLDS for v in tested) else INCONCLUSIVE


def combine_needs(lines: Iterable[tuple[str, Needs | None]]) -> Needs | None:
    """The number of seeds that would decide several (verdict, needs) pairs together; None if that is unknown.

    One failing line is enough, so the smallest number counts if any line is on the way to "fails". All must hold, so the largest
    counts otherwise. The result is None if the lines are decided, or if one of them cannot be decided by more seeds.
    """
    lines = list(lines)
    if combine(verdict for verdict, _ in lines) != INCONCLUSIVE:
        return None
    open_lines = [needs for verdict, needs in lines if verdict == INCONCLUSIVE]
    failing = [needs for needs in open_lines if needs is not None and needs.verdict == FAILS]
    if failing:
        return min(failing, key=lambda needs: needs.seeds)
    known = [needs for needs in open_lines if needs is not None]
    return max(known, key=lambda needs: needs.seeds) if len(known) == len(open_lines) else None


def not_holding(verdict: str, needs: Needs | None) -> tuple[str, Needs | None]:
    """The verdict and needs of something that may fail but cannot hold, for example because seeds were lost."""
    return (INCONCLUSIVE if verdict == HOLDS else verdict), (needs if needs is not None and needs.verdict == FAILS else None)
