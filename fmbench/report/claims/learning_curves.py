"""Curves over training iterations, one for each seed, and two methods' curves at the same iterations."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from fmbench.report.claims.rows import Lost, good, pairs

OF_FIRST = "of the mean at the first snapshot"
"""The unit of a difference over :func:`scale_at_first`."""


def curves(rows: pd.DataFrame, method: str, metric: str, lost: Mapping[str, Lost] | None = None) -> dict[int, pd.Series]:
    """The good values over training iterations for each seed, without the seeds that the method lost."""
    kept = good(rows, method, metric)
    gone = lost[method].seeds if lost and method in lost else ()
    found: dict[int, dict[int, float]] = {}
    columns = (rows.seed.to_numpy()[kept], rows.step.to_numpy()[kept], rows.value.to_numpy(float)[kept])
    for seed, step, value in zip(*columns, strict=True):
        if seed not in gone:
            found.setdefault(int(seed), {}).setdefault(int(step), float(value))
    return {seed: pd.Series(found[seed], dtype=float).sort_index() for seed in sorted(found)}


def on_common_steps(ours: Mapping[int, pd.Series], other: Mapping[int, pd.Series], least: int) -> dict[int, pd.DataFrame]:
    """The pairs of values at the iterations of both methods, for each seed of both with ``least`` or more such iterations."""
    found = {seed: pairs(ours[seed], other[seed]) for seed in sorted(set(ours) & set(other))}
    return {seed: pair for seed, pair in found.items() if len(pair) >= least}


def scale_at_first(found: Mapping[int, pd.DataFrame]) -> float:
    """The mean magnitude at the first common snapshot, over both methods and all seeds; NaN without seeds.

    Both methods share this scale. A distance near its floor is noise around 0, and a separate scale would magnify it.
    """
    return float(np.mean([pair.iloc[0].abs().mean() for pair in found.values()])) if found else math.nan
