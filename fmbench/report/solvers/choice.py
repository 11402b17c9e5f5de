"""The best of several solvers over seeds, and the solvers that cannot be told apart from it.

Solvers are compared on the same models from the same noise, so differences are paired by seed. The solver with the lowest mean is
chosen on the data that it is tested on. Each other solver therefore leaves the set of the best only if its difference to the
chosen one is significant at 2.5 % divided by the number of the others (Bonferroni). For normal values the set then contains the
truly best solver with a probability of at least 97.5 %, whichever was chosen: it is missing only if another beats it in such a
test.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fmbench.report.claims.student import mean_test, student
from fmbench.report.claims.verdicts import ALPHA

LEADS, TIE, ONE_SEED, ALONE = "leads", "tie", "one seed", "no other"
SAME = 1e-3
"""Solvers are equal if their numbers differ by at most this share at every seed. In exact arithmetic they may be one method, such
as Euler's and DDIM on the OT path."""


@dataclass(frozen=True)
class Best:
    """The best solver.

    Attributes:
        solver: the one with the lowest mean.
        runner_up: the solver with the next lowest mean; empty if there is no other.
        lead, low, high: the mean difference of the best to the runner-up, negative or 0, with Student's interval; NaN where there
            is none.
        verdict: :data:`LEADS` if it is significantly better than every other, :data:`TIE` if it is not, :data:`ONE_SEED` or
            :data:`ALONE` if nothing can be tested.
        ties: the solvers that it is not significantly better than.
    """

    solver: str
    runner_up: str
    lead: float
    low: float
    high: float
    verdict: str
    ties: tuple[str, ...]


def choose(values: pd.DataFrame, logs: bool) -> Best:
    """The best solver; of equal means the first.

    Args:
        values: a number for each seed (row) and solver (column), complete, with at least one of each; lower is better.
        logs: whether the numbers are logarithms, whose difference is a share by itself.
    """
    first, *others = values.mean().sort_values(kind="stable").index
    if not others:
        return Best(first, "", math.nan, math.nan, math.nan, ALONE, ())
    lead = (values[first] - values[others[0]]).tolist()
    scale = SAME if logs else SAME * float(values.abs().to_numpy().max())
    level = ALPHA / len(others)
    ties = [name for name in others if not _significant(values[first] - values[name], scale, level)]
    verdict = ONE_SEED if len(values) < 2 else TIE if ties else LEADS
    shown = () if verdict == ONE_SEED else tuple(ties)
    return Best(first, others[0], float(np.mean(lead)), *student(lead), verdict, shown)


def _significant(differences: pd.Series, scale: float, level: float) -> bool:
    """Whether a mean difference is below 0 at this level, one-sided; differences up to ``scale`` count as none."""
    return bool(differences.abs().max() > scale) and mean_test(differences).p_holds < level
