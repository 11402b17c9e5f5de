"""Claim 4: FM-OT lowers FID faster and further during training (Fig. 5)."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from fmbench.report.claims.claim import Claim, Drafts, Sources
from fmbench.report.claims.comparison import lower_than_each, may_be_negative, relative_difference
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

Differences = dict[str, list[float]]
"""Differences to each other method, one for each seed."""


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
        for part, values, over in (("faster", faster, "mean over iterations"), ("further", further, "last snapshot")):
            columns = {
                "claim": 4,
                "dataset": dataset,
                "part": f"{part}, {metric_name(here, metric)}",
                "statistic": f"{relative}difference to the other method, {over}",
                "unit": unit,
            }
            lines += lower_than_each(values, TRAINED, lost, columns)
    return lines


def _differences(here: pd.DataFrame, metric: str, lost: Mapping[str, Lost], signed: bool) -> tuple[Differences, Differences]:
    """FM-OT's distance minus each other method's: the mean over iterations, and at the last common snapshot.

    Args:
        signed: whether the distance may be near 0 or below. Differences are then divided by its scale at the first snapshot.
    """
    own = curves(here, OURS, metric, lost)
    faster: Differences = {}
    further: Differences = {}
    for other in DIFFUSION:
        found = on_common_steps(own, curves(here, other, metric, lost), 2)
        scale = scale_at_first(found)
        for pair in found.values():
            a, b = pair.ours.to_numpy(), pair.other.to_numpy()
            difference = (a - b) / scale if signed else relative_difference(a, b)
            steps = pair.index.to_numpy(dtype=float)
            faster.setdefault(other, []).append(float(np.trapezoid(difference, steps) / (steps[-1] - steps[0])))
            further.setdefault(other, []).append(float(difference[-1]))
    return faster, further


CLAIM = Claim(
    number=4,
    title="FM-OT lowers FID faster and further during training",
    statement="During training the FID of FM-OT falls faster than that of the other methods, and it ends lower.",
    where="Fig. 5",
    how="The test takes the distance to the data of the EMA weights at the snapshots of each training. It computes the "
    "relative difference to each other method, paired by seed: averaged over iterations (faster), and at the last snapshot "
    "(further). A distance that may fall to 0 or below, such as the unbiased energy distance, needs one scale instead: the "
    "mean magnitude of both methods at the first snapshot. If FM-OT lost a seed, the claim cannot hold.",
    needs=("learning_curve",),
    evaluate=faster_and_further,
)
