"""A claim of the paper, and a line of evidence on it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import pandas as pd

from fmbench.report.claims.verdicts import VERDICTS, Needs

Sources = Mapping[str, pd.DataFrame]
"""The parquet files that a results folder has, by their names in :data:`fmbench.report.claims.sources.FILES`."""

GENERATION, SUPER_RESOLUTION = "generation", "super-resolution"

PATH_ALONE = " The lines on oracles show what the path alone does."
"""The end of ``how`` where a claim also compares the oracles."""

SAMPLING = (
    " Every seed draws its own samples, so the spread over seeds counts as at least the sampling error of one seed's difference."
)
"""A sentence of ``how`` where sampling errors count."""


@dataclass(frozen=True)
class Finding:
    """One line of evidence, a row of ``claims.csv``.

    Attributes:
        claim: the claim's number.
        dataset: the data set, "all" for the claim as a whole, "" for a line on definitions.
        about: "trained", "oracle" (the path alone), "definition" or "overall".
        part: the part of the claim that this line is on; ``against``: the other method.
        statistic, unit, value, low, high: the number and its interval, over ``interval`` ("seeds", "samples", or "").
        threshold: what the interval is compared with.
        claimed: the side of the threshold on which the claim puts the value, "below" or "above".
        coverage: the probability with which such an interval contains the truth, for normal values
            (:func:`fmbench.report.claims.student.coverage`).
        paper: the paper's value of the same number, where it prints one.
        verdict, why: one of :data:`VERDICTS`, and the reason.
        needs: for an inconclusive line, the number of seeds that would decide it at the difference and the spread seen.

    Raises:
        ValueError: the verdict is unknown, or has no reason.
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
    threshold: float | None = None
    claimed: str = ""
    interval: str = ""
    seeds: int = 0
    coverage: float | None = None
    paper: float | None = None
    needs: Needs | None = None

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"a verdict is one of {', '.join(VERDICTS)}, not {self.verdict!r}")
        if not self.why:
            raise ValueError(f"the verdict {self.verdict!r} needs a reason; give it as why")


class Test(Protocol):
    """One test of a line: whether the numbers are on the claimed side, and whether they are on the other."""

    @property
    def name(self) -> str: ...
    @property
    def seeds(self) -> int: ...
    @property
    def p_holds(self) -> float: ...
    @property
    def p_fails(self) -> float: ...
    @property
    def towards(self) -> str: ...
    def seeds_for(self, level: float) -> float: ...
    def reason(self, outcome: str, correction: str) -> str: ...


@dataclass(frozen=True)
class Evidence:
    """A line without its verdict yet, which depends on all tests of the claim (:mod:`fmbench.report.claims.decision`).

    Attributes:
        columns: the columns of the :class:`Finding`, other than verdict, why and needs.
        tests: one or more. The line holds if each is significant, and fails if one is significant on the other side.
        notes: sentences after the reason.
        can_hold: False if the line may only fail, for example because seeds were lost.
        rival: the other method in prose, where the tests are on "lower (or higher) than the other method"; always given with
            ``over``.
        over: what the names of the tests are, for example "NFE". Without it a line has one test.
    """

    columns: Mapping[str, Any]
    tests: tuple[Test, ...]
    notes: tuple[str, ...] = field(default=())
    can_hold: bool = True
    rival: str = ""
    over: str = ""

    @property
    def about(self) -> str:
        """What the line is about, as :attr:`Finding.about`."""
        return str(self.columns["about"])


Lines = list[Finding]
Drafts = list[Finding | Evidence]


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
        number: 1 to 11.
        title, statement: the claim in a few words, and in a sentence.
        where: the table, figure or appendix of the paper that makes it.
        how: how it is tested.
        needs: the sources that the test reads, by their names in :data:`fmbench.report.claims.sources.FILES`.
        evaluate: the test: from the sources to lines of evidence, with their tests instead of verdicts.
        in_paper: writes the paper's own numbers for the claim, where it prints some.
        about: the data sets that it is on: :data:`GENERATION`, or :data:`SUPER_RESOLUTION`.
    """

    number: int
    title: str
    statement: str
    where: str
    how: str
    needs: tuple[str, ...]
    evaluate: Callable[[Sources], Drafts]
    in_paper: Callable[[], str] | None = None
    about: str = GENERATION


def sentence(clause: str) -> str:
    """A clause with a capital first letter."""
    return clause[:1].upper() + clause[1:]


def short(value: float | None) -> str:
    """A number with three significant digits; empty without one."""
    return "" if value is None or pd.isna(value) else f"{value:.3g}"
