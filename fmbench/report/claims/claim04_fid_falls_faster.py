"""Claim 4: FM-OT lowers FID faster and further during training (Fig. 5)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from fmbench.report.claims.claim import SAMPLING, Claim, Drafts, Sources
from fmbench.report.claims.comparison import compared_with_each, error_of_difference, may_be_negative, scaled_difference
from fmbench.report.claims.learning_curves import OF_FIRST, curves, on_common_steps, scale_at_first
from fmbench.report.claims.rows import (
    DIFFUSION,
    OURS,
    TRAINED,
    Lost,
    by_dataset,
    lost_seeds,
    main_distance,
    metric_name,
    no_contest,
    no_distance,
)

Numbers = dict[str, list[float]]
"""Numbers about each other method, one for each seed."""
NONE = pd.Series(dtype=float)
"""The errors of a curve without errors."""


@dataclass(frozen=True)
class Differences:
    """FM-OT's distance minus each other method's, and the standard errors of these differences over samples."""

    values: Numbers = field(default_factory=dict)
    errors: Numbers = field(default_factory=dict)

    def add(self, other: str, value: float, error: float) -> None:
        self.values.setdefault(other, []).append(float(value))
        self.errors.setdefault(other, []).append(float(error))


def faster_and_further(sources: Sources) -> Drafts:
    """Compares FM-OT's distance during training with each other method's: the mean over iterations, and at the end."""
    lines: Drafts = []
    for dataset, here in by_dataset(sources["learning_curve"]):
        metric = main_distance(here)
        if OURS not in set(here.method.unique()):
            lines.append(no_contest(4, dataset))
            continue
        if metric is None:
            lines.append(no_distance(4, dataset))
            continue
        # A training that stopped early has snapshots, but the last of them is not the end of a whole training.
        lost = lost_seeds(here, (OURS, *DIFFUSION), metric)
        compared = here[(here.metric == metric) & (here.status == "ok") & here.method.isin([OURS, *DIFFUSION])]
        signed = may_be_negative(metric, compared.value)
        faster, further = _differences(here, metric, lost, signed)
        relative, unit = ("", OF_FIRST) if signed else ("relative ", "of the mean of both methods")
        for part, found, over in (("faster", faster, "mean over iterations"), ("further", further, "last snapshot")):
            columns = {
                "claim": 4,
                "dataset": dataset,
                "part": f"{part}, {metric_name(here, metric)}",
                "statistic": f"{relative}difference to the other method, {over}",
                "unit": unit,
            }
            lines += compared_with_each(found.values, TRAINED, lost, columns, errors=found.errors)
    return lines


def _differences(here: pd.DataFrame, metric: str, lost: Mapping[str, Lost], signed: bool) -> tuple[Differences, Differences]:
    """The differences as the mean over iterations, and at the last common snapshot.

    Args:
        signed: whether the distance may be near 0 or below. Differences are then divided by its scale at the first snapshot.
    """
    own = curves(here, OURS, metric, lost)
    known = {m: curves(here, m, f"{metric}_stderr") for m in (OURS, *DIFFUSION)}
    faster, further = Differences(), Differences()
    for other in DIFFUSION:
        found = on_common_steps(own, curves(here, other, metric, lost), 2)
        scale = scale_at_first(found) if signed else None
        for seed, pair in found.items():
            values = pair.ours.to_numpy(), pair.other.to_numpy()
            error_a, error_b = (known[m].get(seed, NONE).reindex(pair.index).to_numpy() for m in (OURS, other))
            difference, error = scaled_difference(*values, scale), error_of_difference(values, (error_a, error_b), scale)
            steps = pair.index.to_numpy(dtype=float)
            # The samples at all snapshots come from the same noise, so their errors may not average out.
            over_steps = [float(np.trapezoid(y, steps)) / (steps[-1] - steps[0]) for y in (difference, error)]
            faster.add(other, *over_steps)
            further.add(other, difference[-1], error[-1])
    return faster, further


CLAIM = Claim(
    number=4,
    title="FM-OT lowers FID faster and further during training",
    statement="During training the FID of FM-OT falls faster than that of the other methods, and it ends lower.",
    where="Fig. 5",
    how="The test takes the distance to the data of the EMA weights at the snapshots of each training. It computes the "
    "relative difference to each other method, paired by seed: averaged over iterations (faster), and at the last snapshot "
    "(further). A distance that may fall to 0 or below, such as the unbiased energy distance, needs one scale instead: the "
    "mean magnitude of both methods at the first snapshot. If FM-OT lost a seed, the claim cannot hold." + SAMPLING,
    needs=("learning_curve",),
    evaluate=faster_and_further,
)
