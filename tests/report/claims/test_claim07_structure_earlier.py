"""Claim 7 on half-way times made by hand."""

import math

import pytest
from claim_rows import FIVE, as_frame, half_way_rows, of_claim
from scipy import stats

from fmbench.report.claims.claim07_structure_earlier import EARLIER, structure_earlier
from fmbench.report.claims.student import student
from fmbench.report.claims.verdicts import FAILS, HOLDS, INCONCLUSIVE, NOT_TESTED


@pytest.mark.parametrize(("ours", "said"), [(0.4, "is below -0.05"), (0.9, "is above 0"), (0.7, "does not exclude")])
def test_one_seed_decides_nothing_and_shows_an_interval_over_samples(ours, said):
    rows = half_way_rows({"ddpm": 0.8, "score_matching": 0.7, "fm_ot": ours}, stderr=0.02)
    _, line, *others = of_claim(structure_earlier, half_way=as_frame(rows))
    assert (line.verdict, line.needs, line.against, line.interval) == (INCONCLUSIVE, None, "score_matching", "samples")
    assert f"The interval over samples {said}" in line.why and "does not cover other seeds" in line.why
    half = stats.t.ppf(0.975, 9) * 0.02 * math.sqrt(2)
    assert (line.value, line.low, line.high) == pytest.approx((ours - 0.7, ours - 0.7 - half, ours - 0.7 + half))
    assert f"FM (OT path) at t = {ours:.2f}" in line.why
    assert {o.verdict for o in others} == {NOT_TESTED}


@pytest.mark.parametrize(("gap", "verdict"), [(0.3, HOLDS), (-0.2, FAILS), (0.02, INCONCLUSIVE)])
def test_several_seeds_decide(gap, verdict):
    times = [{"fm_ot": 0.7 - gap + 0.012 * s, "ddpm": 0.7 + 0.01 * (s - 1)} for s in range(3)]
    rows = [row for seed, of_seed in enumerate(times) for row in half_way_rows(of_seed, seed)]
    ddpm, *others = of_claim(structure_earlier, half_way=as_frame(rows))
    assert (ddpm.verdict, ddpm.interval, ddpm.seeds) == (verdict, "seeds", 3)
    differences = [of_seed["fm_ot"] - of_seed["ddpm"] for of_seed in times]
    assert (ddpm.low, ddpm.high) == pytest.approx(student(differences))
    assert (ddpm.value, ddpm.threshold) == pytest.approx((sum(differences) / 3, -EARLIER))
    assert {line.verdict for line in others} == {NOT_TESTED}


def test_a_coarse_grid_of_states_does_not_turn_a_small_gain_into_a_loss():
    """Steps of 0.25: the margin is 0.125, and a gain of 0.1 is within it, but no failure."""
    rows = [row for s in range(5) for row in half_way_rows({"fm_ot": 0.6 + 0.001 * s, "ddpm": 0.7}, s, spacing=0.25)]
    line = of_claim(structure_earlier, half_way=as_frame(rows))[0]
    assert -0.125 < line.low < line.high < 0 and line.threshold == -0.125 and "margin is 0.12" in line.why
    assert line.verdict == INCONCLUSIVE


def test_a_lost_training_has_no_half_way_time():
    rows = half_way_rows({"ddpm": 0.8, "fm_ot": None})
    (line,) = of_claim(structure_earlier, half_way=as_frame(rows))
    assert line.verdict == INCONCLUSIVE
    assert "There is no half-way time: FM (OT path) lost 1 of 1 seeds (diverged: the loss became nan)" in line.why


def test_a_line_cannot_hold_if_a_seed_was_lost():
    rows = [row for s in range(5) for row in half_way_rows({"fm_ot": 0.4 + 0.01 * s if s else None, "ddpm": 0.8}, s)]
    line = of_claim(structure_earlier, half_way=as_frame(rows))[0]
    assert line.verdict == INCONCLUSIVE and line.seeds == 4 and "Lost seeds are left out: FM (OT path) lost 1 of 5" in line.why


def test_oracles_are_lines_of_their_own():
    rows = half_way_rows({"oracle_ot": 0.4, "oracle_vp": 0.8})
    lines = structure_earlier({"half_way": as_frame(rows)})
    assert [(line.about, line.verdict) for line in lines] == [("trained", NOT_TESTED), ("oracle", INCONCLUSIVE)]


def test_every_rival_has_its_line():
    rows = half_way_rows(dict.fromkeys(FIVE, 0.5))
    assert [line.against for line in of_claim(structure_earlier, half_way=as_frame(rows))] == list(FIVE[:4])
