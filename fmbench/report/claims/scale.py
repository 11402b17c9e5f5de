"""Where lines of evidence lie on a forest plot: the threshold at 0, the claimed side to the right, one scale for each part."""

import numpy as np
import pandas as pd

from fmbench.report.claims.verdicts import FAILS, HOLDS, INCONCLUSIVE, NOT_TESTED

PART = ["claim", "dataset", "about", "part"]
"""Lines that agree in these columns have one unit and share a scale."""
COLOURS = {HOLDS: "#00695c", FAILS: "#a83e00", INCONCLUSIVE: "#565b63", NOT_TESTED: "#6b6b6b"}
"""The colour of each verdict: safe for the colour-blind, and dark enough for text on white (contrast 4.5 or more)."""


def on_scale(lines: pd.DataFrame) -> pd.DataFrame:
    """Return the lines that can be drawn, with their places ``at``, ``left`` and ``right`` in [-1, 1].

    A line can be drawn if it has a value, a threshold and a claimed side. The furthest value or bound of a part lies at 1 or -1,
    so lengths compare within a part only. Ratios are on a logarithmic scale. A line without an interval has NaN bounds.

    Args:
        lines: rows of ``claims.csv``; rows of several runs share the scale of their part.
    """
    drawn = lines[lines.claimed.isin(["below", "above"])].copy()
    numbers = drawn[["value", "low", "high", "threshold"]].apply(pd.to_numeric, errors="coerce").astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        numbers = numbers.where(drawn.unit != "ratio", np.log(numbers))
    side = np.where(drawn.claimed == "above", 1.0, -1.0)
    places = numbers[["value", "low", "high"]].sub(numbers.threshold, axis=0).mul(side, axis=0)
    places = places.where(np.isfinite(places))
    furthest = places.abs().max(axis=1).groupby([drawn[name] for name in PART]).transform("max")
    places = places.div(furthest.where(furthest > 0, 1.0), axis=0)
    bounds = places[["low", "high"]]
    drawn = drawn.assign(at=places.value, left=bounds.min(axis=1, skipna=False), right=bounds.max(axis=1, skipna=False))
    return drawn[drawn["at"].notna()]
