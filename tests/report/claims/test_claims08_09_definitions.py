"""Claims 8 and 9, which follow from definitions."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fmbench.report.claims.claim08_constant_direction import straight_paths
from fmbench.report.claims.claim09_probability_flow import probability_flow
from fmbench.report.claims.evaluation import evaluate_claims
from fmbench.report.claims.sources import read_sources
from fmbench.report.claims.verdicts import FAILS, HOLDS, NOT_TESTED


def test_straight_lines_at_constant_speed_hold_and_bends_or_changes_of_speed_fail():
    t = np.linspace(0, 1, 21)

    def moves(x: Any, y: Any) -> pd.DataFrame:
        return pd.DataFrame({"path": "ot", "particle": 0, "t": t, "x": x, "y": y})

    straight, even = straight_paths({"trajectories": moves(t, 2 * t)})
    assert (straight.verdict, even.verdict) == (HOLDS, HOLDS)
    straight, even = straight_paths({"trajectories": moves(t, 4 * t * (1 - t))})
    assert (straight.verdict, even.verdict) == (FAILS, FAILS) and straight.value == pytest.approx(1)
    straight, even = straight_paths({"trajectories": moves(t**2, t**2)})
    assert (straight.verdict, even.verdict) == (HOLDS, FAILS) and even.value == pytest.approx(0.95)


@pytest.mark.parametrize(("angle", "verdict"), [(0.0, HOLDS), (90.0, FAILS), (180.0, FAILS)])
def test_the_turn_of_an_arrow(angle, verdict):
    rows = [
        {"figure": "fig02", "panel": "OT path: conditional field", "t": k, "x": 0.0, "y": 0.0, "u": (1 + k) * u, "v": (1 + k) * v}
        for k, (u, v) in enumerate([(1.0, 0.0), (math.cos(math.radians(angle)), math.sin(math.radians(angle)))])
    ]
    (line,) = straight_paths({"fields": pd.DataFrame(rows)})
    assert line.verdict == verdict and line.value == pytest.approx(angle)


@pytest.mark.parametrize(("difference", "verdict"), [(1e-14, HOLDS), (1e-6, FAILS)])
def test_the_probability_flow_to_rounding(difference, verdict):
    rows = [
        {"identity": "one point", "path": "vp", "t": t, "max_difference": d, "scale": 10.0, "n": 8}
        for t, d in ((0.1, 1e-15), (0.9, difference * 10))
    ]
    (line,) = probability_flow({"identities": pd.DataFrame(rows)})
    assert line.verdict == verdict and line.value == pytest.approx(difference)


def test_both_claims_hold_on_the_rows_that_the_stage_theory_writes(theory):
    sources = read_sources(theory)
    lines = {line.claim: line for line in evaluate_claims(sources) if line.about == "overall"}
    assert lines[8].verdict == lines[9].verdict == HOLDS
    assert {lines[k].verdict for k in (1, 2, 3, 4, 5, 6, 7, 10)} == {NOT_TESTED}
    assert {line.part for line in probability_flow(sources)} == {
        "conditional field of one point",
        "marginal field of a mixture",
    }
