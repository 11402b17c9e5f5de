"""Claim 5: NFE stays constant during FM training, but not during score matching (Fig. 10)."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from fmbench.report.claims.claim import Claim, Drafts, Evidence, Finding, Sources
from fmbench.report.claims.comparison import numbers
from fmbench.report.claims.learning_curves import curves
from fmbench.report.claims.rows import OURS, Lost, by_dataset, in_prose, lost_seeds, pairs, say_lost
from fmbench.report.claims.student import Mean, mean_test
from fmbench.report.claims.verdicts import INCONCLUSIVE, NOT_TESTED

SCORE = "score_matching"
FLOW_MATCHING = (OURS, "fm_diffusion")
CONSTANT_NFE = 1.25
"""The largest NFE over the smallest during training that still counts as constant. dopri5 spends 6 evaluations a step, so with
some 50 to 100 evaluations this allows two or three steps more or less."""
DRASTIC_NFE = 2.0
"""A change is drastic if sampling costs twice as much at one time of the training as at another."""


def steady_cost(sources: Sources) -> Drafts:
    """Tests the largest over the smallest NFE of a training: near 1 for flow matching, large for score matching."""
    lines: Drafts = []
    for dataset, here in by_dataset(sources["learning_curve"]):
        lost = lost_seeds(here, (*FLOW_MATCHING, SCORE), "nfe")
        spreads = {method: _log_spreads(here, method, lost) for method in (*FLOW_MATCHING, SCORE)}
        for method in (*FLOW_MATCHING, SCORE):
            below = method != SCORE
            threshold = CONSTANT_NFE if below else DRASTIC_NFE
            test = mean_test(spreads[method], math.log(threshold), below, shown=f"{threshold:g}")
            columns = {
                "dataset": dataset,
                "part": f"{in_prose(method)}: {'constant' if below else 'drastic change'}",
                "statistic": "largest / smallest NFE during training",
            }
            lines.append(_line(test, lost, (method,), columns))
        for method in FLOW_MATCHING:
            both = pairs(spreads[method], spreads[SCORE])
            test = mean_test(both.ours - both.other, shown="1")
            columns = {
                "dataset": dataset,
                "part": f"{in_prose(method)}: smaller change",
                "against": SCORE,
                "statistic": "ratio of largest / smallest NFE",
            }
            lines.append(_line(test, lost, (method, SCORE), columns))
    return lines


def _log_spreads(here: pd.DataFrame, method: str, lost: Mapping[str, Lost]) -> pd.Series:
    """The logarithm of the largest over the smallest NFE, by seed; seeds with one snapshot are left out."""
    found = {seed: curve for seed, curve in curves(here, method, "nfe", lost).items() if len(curve) > 1 and (curve > 0).all()}
    return pd.Series({seed: math.log(curve.max() / curve.min()) for seed, curve in found.items()}, dtype=float)


def _line(test: Mean, lost: Mapping[str, Lost], methods: tuple[str, ...], columns: Mapping[str, Any]) -> Finding | Evidence:
    """The line on the logarithm of a ratio of NFE, from the seeds that were not lost.

    If flow matching lost seeds, the line cannot hold. If score matching lost seeds, it can: its cost was not constant then.

    Args:
        methods: the method that the line is about, and the one it is compared with.
    """
    columns = {"claim": 5, "about": "trained", "unit": "ratio", **columns}
    gone = {m: lost[m] for m in methods if m in lost}
    notes = (f"Lost seeds are left out: {say_lost(gone)}",) if gone else ()
    if test.seeds:
        can_hold = methods[0] == SCORE or methods[0] not in gone
        return Evidence({**columns, **numbers(test, math.exp)}, (test,), notes, can_hold)
    why = f"No seed has the NFE{' of both methods' if len(methods) > 1 else ''} at two or more snapshots"
    return Finding(verdict=INCONCLUSIVE if gone else NOT_TESTED, why=". ".join([why, *notes]), **columns)


CLAIM = Claim(
    number=5,
    title="NFE stays constant during FM training, but not during score matching",
    statement="The number of evaluations for sampling hardly changes during flow-matching training. It changes drastically "
    "during score matching.",
    where="Fig. 10",
    how="The test divides the largest NFE of dopri5 at the snapshots of a training by the smallest. A ratio of at most "
    f"{CONSTANT_NFE:g} counts as constant, and {DRASTIC_NFE:g} or more as drastic. The test also compares flow matching's "
    "ratio with score matching's, paired by seed.",
    needs=("learning_curve",),
    evaluate=steady_cost,
)
