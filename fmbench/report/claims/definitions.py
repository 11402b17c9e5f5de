"""Lines on numbers that follow from definitions alone. They are 0 up to rounding, or the claim fails."""

import math
from collections.abc import Sequence
from typing import Any

from fmbench.report.claims.claim import Finding
from fmbench.report.claims.verdicts import FAILS, HOLDS, NOT_TESTED

ROUNDING = 1e-9
"""Relative differences below this are float64 rounding (the stage ``theory`` uses the same limit)."""


def exact(claim: int, part: str, statistic: str, unit: str, found: Sequence[float], note: str = "") -> Finding:
    """The line on numbers that are 0 up to rounding if the claim is true. It shows the largest.

    Args:
        note: added to the reason.
    """
    columns: dict[str, Any] = {"claim": claim, "dataset": "", "about": "definition", "part": part}
    columns |= {"statistic": statistic, "unit": unit}
    if not found or not all(map(math.isfinite, found)):
        return Finding(verdict=NOT_TESTED, why="The theory files have no finite value of this statistic", **columns)
    value = max(found)
    verdict, where = (HOLDS, "below") if value < ROUNDING else (FAILS, "not below")
    return Finding(
        verdict=verdict, why=f"The largest value is {where} the limit of rounding ({ROUNDING:g}){note}", value=value, **columns
    )
