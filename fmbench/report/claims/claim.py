"""A claim of the paper, and a line of evidence on it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from fmbench.report.claims.verdicts import VERDICTS

Sources = Mapping[str, pd.DataFrame]
"""The parquet files that a results folder has, by their names in :data:`fmbench.report.claims.sources.FILES`."""

PATH_ALONE = " The lines on oracles show what the path alone does."
"""The end of ``how`` where a claim also compares the oracles."""


@dataclass(frozen=True)
class Finding:
    """One line of evidence, a row of ``claims.csv``.

    Attributes:
        claim: the claim's number.
        dataset: the data set, "all" for the claim as a whole, "" for a line on definitions.
        about: "trained", "oracle" (the path alone), "definition" or "overall".
        part: the part of the claim that this line is on; ``against``: the other method.
        statistic, unit, value, low, high: the number and its interval, over ``interval`` ("seeds", "samples", or "").
        coverage: the largest probability with which such an interval contains the truth
            (:func:`fmbench.report.claims.verdicts.coverage`).
        paper: the paper's value of the same number, where it prints one.
        verdict, why: one of :data:`VERDICTS`, and the reason.
        leans: for an inconclusive line, the verdict that its interval would give with enough seeds.

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
    interval: str = ""
    seeds: int = 0
    coverage: float | None = None
    paper: float | None = None
    leans: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"a verdict is one of {', '.join(VERDICTS)}, not {self.verdict!r}")
        if not self.why:
            raise ValueError(f"the verdict {self.verdict!r} needs a reason; give it as why")


Lines = list[Finding]


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
        number: 1 to 10.
        title, statement: the claim in a few words, and in a sentence.
        where: the table, figure or appendix of the paper that makes it.
        how: how it is tested.
        needs: the sources that the test reads, by their names in :data:`fmbench.report.claims.sources.FILES`.
        evaluate: the test: from the sources to lines of evidence.
        in_paper: writes the paper's own numbers for the claim, where it prints some.
    """

    number: int
    title: str
    statement: str
    where: str
    how: str
    needs: tuple[str, ...]
    evaluate: Callable[[Sources], Lines]
    in_paper: Callable[[], str] | None = None


def sentence(clause: str) -> str:
    """A clause with a capital first letter."""
    return clause[:1].upper() + clause[1:]


def short(value: float | None) -> str:
    """A number with three significant digits; empty without one."""
    return "" if value is None or pd.isna(value) else f"{value:.3g}"
