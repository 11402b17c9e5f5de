"""The cells of Table 1 as text, the same for Markdown and LaTeX."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from fmbench.report.frames import first_known
from fmbench.report.layout import NONE, Style, beside, spread
from fmbench.report.style import is_inception, label
from fmbench.report.table1.numbers import PUBLISHED

ENERGY_SCALE = 1e4
"""Energy distances are printed in units of 1e-4."""
ENERGY_NOTE = "No energy distance is bold: the estimate is unbiased and scatters around 0, so the lowest is not the best."


class Shown(NamedTuple):
    """How a column is printed: its name (without ``_mean``), its factor, its digits, and whether the lowest is bold."""

    column: str
    scale: float
    digits: int
    bold: bool = True


SHOWN = {
    "nll": Shown("nll", 1, 3),
    "fid": Shown("fid", 1, 2),
    "energy_distance": Shown("energy_distance", ENERGY_SCALE, 2, bold=False),
    "off_support": Shown("off_support", 1, 3),
    "nfe": Shown("nfe", 1, 1),
}


def method_name(method: str) -> str:
    """Return the name of a method in print, published ones included."""
    return PUBLISHED.get(method, label(method))


def is_points(part: pd.DataFrame) -> bool:
    """Whether a data set's rows are of points, whose distance is the energy distance."""
    all_failed = part.fid_features.isna().all() and first_known(part.nll_unit) == "nats"
    return bool(part.energy_distance_mean.notna().any() or all_failed)


def distance_name(part: pd.DataFrame) -> str:
    """Return ``FID`` where a data set's distances are of Inception's features, else ``Frechet``."""
    return "FID" if is_inception(first_known(part.fid_features)) else "Frechet"


def cells(part: pd.DataFrame, oracles: Sequence[str], style: Style, columns: Sequence[str]) -> list[list[str]]:
    """Return one row of text per method: its name, ``columns``, the sample std and the status.

    The standard error over samples stands in square brackets, and the paper's number in round ones. Oracles learn nothing, so
    they do not compete for the lowest mean.

    Args:
        part: the rows of one data set.
        columns: keys of :data:`SHOWN`.
    """
    trained, features = part[~part.method.isin(oracles)], first_known(part.fid_features)
    rows = []
    for _, row in part.iterrows():
        line = [method_name(row.method)]
        for column, scale, digits, bold in (SHOWN[c] for c in columns):
            mean = row[f"{column}_mean"]
            best = bold and row.method not in oracles and bool(pd.notna(mean) and mean == trained[f"{column}_mean"].min())
            text = spread(scale * mean, scale * row[f"{column}_std"], digits, style, best, scale * row[f"{column}_stderr"])
            # The paper's number is an FID; it is named where ours is another distance.
            measure = "FID" if column == "fid" and features and not is_inception(features) else ""
            line.append(beside(text, row.get(f"paper_{column}"), 2 if column == "nll" else None, measure))
        line.append(NONE if pd.isna(row.sample_std) else f"{row.sample_std:.3f}")
        line.append(row.status)
        rows.append(line)
    return rows
