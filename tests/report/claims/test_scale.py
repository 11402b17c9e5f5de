"""The places of lines on a forest plot, in closed form; the colours of verdicts."""

import math

import numpy as np
import pandas as pd
import pytest
from contrast import contrast

from fmbench.report.claims.scale import COLOURS, on_scale
from fmbench.report.claims.verdicts import VERDICTS


def lines(*rows: dict) -> pd.DataFrame:
    base = {"claim": 1, "dataset": "d", "about": "trained", "part": "p", "unit": "nats", "claimed": "below", "threshold": 0.0}
    return pd.DataFrame([{**base, "value": math.nan, "low": math.nan, "high": math.nan, **row} for row in rows])


def test_the_claimed_side_is_positive_and_the_furthest_bound_of_a_part_is_1():
    made = on_scale(lines({"value": -2, "low": -4, "high": 0}, {"value": 1, "low": 0.5, "high": 1.5}))
    assert made[["left", "at", "right"]].to_numpy().tolist() == [[0, 0.5, 1], [-0.375, -0.25, -0.125]]
    above = on_scale(lines({"value": 3, "low": 1, "high": 5, "threshold": 1.0, "claimed": "above"}))
    assert above[["left", "at", "right"]].to_numpy().tolist() == [[0, 0.5, 1]]


def test_ratios_are_on_a_logarithmic_scale():
    """exp(-1) and exp(1) lie at the same distance from 1, a ratio of 0 nowhere."""
    made = on_scale(lines(*({"unit": "ratio", "threshold": 1.0, "value": math.exp(v)} for v in (-1, 1, 0.5)), {"unit": "ratio"}))
    np.testing.assert_allclose(made["at"], [1, -1, -0.5])
    assert made[["left", "right"]].isna().all(axis=None)
    assert on_scale(lines({"unit": "ratio", "threshold": 1.0, "value": 0.0})).empty


def test_parts_have_their_own_scales_and_runs_share_them():
    made = on_scale(lines({"value": -1, "part": "a"}, {"value": -100, "part": "b"}, {"value": -50, "part": "b"}))
    assert list(made["at"]) == [1, 1, 0.5]


def test_a_line_without_a_value_or_a_threshold_is_left_out():
    made = on_scale(lines({"value": 0.0}, {"value": math.inf}, {"value": 1, "claimed": ""}, {"value": 1, "threshold": math.nan}))
    assert list(made["at"]) == [0.0]


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_colour_of_a_verdict_can_be_read_on_white(verdict):
    """Contrast AA for text: 4.5 to 1."""
    assert contrast(COLOURS[verdict]) >= 4.5
    assert len(set(COLOURS.values())) == len(VERDICTS)
