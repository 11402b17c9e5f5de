"""Claim 7 on hand-made trajectories whose half-way time is known."""

import re

import numpy as np
import pandas as pd
import pytest
from claim_rows import FIVE, as_frame, of_claim, row, states

from fmbench.report.claims.claim07_structure_earlier import (
    EARLIER,
    GROUPS,
    half_time,
    interval_over_samples,
    mean_distances,
    structure_earlier,
)
from fmbench.report.claims.student import student
from fmbench.report.claims.verdicts import FAILS, HOLDS, INCONCLUSIVE, NOT_TESTED


@pytest.mark.parametrize(
    ("ours", "said"), [(0.4, "is below -0.05"), (0.9, "is above 0"), (0.7, "does not exclude"), (0.65, "does not exclude")]
)
def test_the_time_at_which_half_of_the_way_is_covered(ours, said):
    """States are of one seed, so that nothing is decided, and the interval is over samples."""
    later = dict.fromkeys(FIVE[:4], 0.8) | {"score_matching": 0.7}
    lines = of_claim(structure_earlier, trajectory=states(later | {"fm_ot": ours}))
    assert [line.against for line in lines] == list(FIVE[:4])
    line = lines[1]
    assert (line.verdict, line.needs, line.against, line.interval) == (INCONCLUSIVE, None, "score_matching", "samples")
    assert f"The interval over samples {said}" in line.why and "does not cover other seeds" in line.why
    assert line.value == pytest.approx(ours - 0.7, abs=0.03) and line.low <= line.value <= line.high
    found = re.search(r"FM \(OT path\) at t = ([\d.]+)", line.why)
    assert found is not None and float(found[1]) == pytest.approx(ours, abs=0.05)


@pytest.mark.parametrize(("gap", "verdict"), [(0.3, HOLDS), (-0.2, FAILS), (0.02, INCONCLUSIVE)])
def test_states_of_several_seeds_decide(gap, verdict):
    """Half of the way at 0.7 + 0.01 (seed - 1) for DDPM, and earlier by about the gap for FM-OT; the interval is Student's."""
    frames, differences = [], []
    for seed in range(3):
        own = states({"fm_ot": 0.7 - gap + 0.012 * seed, "ddpm": 0.7 + 0.01 * (seed - 1)}, n=100).assign(seed=seed)
        frames.append(own)
        differences.append(of_claim(structure_earlier, trajectory=own.assign(seed=0))[0].value)
    ddpm, *others = of_claim(structure_earlier, trajectory=pd.concat(frames))
    assert (ddpm.verdict, ddpm.interval, ddpm.seeds) == (verdict, "seeds", 3)
    assert (ddpm.low, ddpm.high) == pytest.approx(student(differences)) and ddpm.value == pytest.approx(-gap, abs=0.06)
    assert {line.verdict for line in others} == {NOT_TESTED}


def test_a_coarse_grid_of_states_does_not_turn_a_small_gain_into_a_loss():
    """States at 0, 0.25, .. 1: the margin is 0.125, and a gain of about 0.1 is within it, but no failure."""
    shown = states({"fm_ot": 0.6, "ddpm": 0.7})
    line = of_claim(structure_earlier, trajectory=shown[shown.t.isin([0, 0.25, 0.5, 0.75, 1])])[0]
    assert -0.125 < line.low < line.high < 0 and "margin is 0.12" in line.why
    assert line.verdict == INCONCLUSIVE and "does not exclude -0.12 to 0" in line.why


def test_the_scale_of_the_noise_does_not_change_the_time():
    plain, swollen = (states({"fm_ot": 0.4, "ddpm": 0.8}, n=100, swell=swell) for swell in (1.0, 30.0))
    one, other = (of_claim(structure_earlier, trajectory=frame)[0] for frame in (plain, swollen))
    assert one.value == pytest.approx(other.value, abs=1e-9)


def test_the_half_way_time_is_that_of_the_distribution_not_of_each_sample():
    """Points that go straight from x0 to a place near by: every state knows its end, and no structure is there before."""
    rng = np.random.default_rng(1)
    x0 = rng.standard_normal((400, 2))
    corner = np.where(x0 > 0, 1.0, -1.0)
    rows = []
    for t in np.linspace(0, 1, 11):
        for method, share in (("fm_ot", t), ("ddpm", t**6)):
            for i, value in enumerate((1 - share) * x0 + share * corner):
                rows.append({"dataset": "d", "method": method, "seed": 0, "index": i, "values": value, "shape": [2], "t": t})
    line = of_claim(structure_earlier, trajectory=pd.DataFrame(rows))[0]
    assert line.value < -0.3 and "FM (OT path) at t = 0.0" not in line.why


def test_the_mean_distances_are_those_computed_by_hand():
    x, y = np.random.default_rng(2).standard_normal((2, 40, 3))
    pairs = [(i, j) for i in range(40) for j in range(40) if i != j]
    by_hand = np.mean([np.linalg.norm(x[i] - y[j]) for i, j in pairs])
    found = mean_distances(x, y)
    assert found[0] == pytest.approx(by_hand)
    kept = [(i, j) for i, j in pairs if i >= 4 and j >= 4]  # without the first of ten groups
    assert found[1] == pytest.approx(np.mean([np.linalg.norm(x[i] - y[j]) for i, j in kept]))
    assert len(found) == 1 + GROUPS


def test_the_jackknife_of_a_mean_is_students_interval():
    x = np.random.default_rng(3).standard_normal(10)
    without = [np.delete(x, i).mean() for i in range(10)]
    assert interval_over_samples(np.array([x.mean(), *without])) == pytest.approx(student(x.tolist()))


def test_a_lost_training_has_no_trajectory():
    lost = as_frame([row("fm_ot", 0, "final_loss", None), row("ddpm", 0, "final_loss", 0.1)])
    (line,) = of_claim(structure_earlier, trajectory=states({"ddpm": 0.8}, n=30), records=lost)
    assert (
        line.verdict == INCONCLUSIVE
        and "There is no trajectory: FM (OT path) lost 1 of 1 seeds (diverged: the loss became nan)" in line.why
    )


def test_a_later_time_within_the_margin_is_later():
    line = of_claim(structure_earlier, trajectory=states({"fm_ot": 0.63, "ddpm": 0.6}))[0]
    assert 0 < line.low < line.value < EARLIER and "over samples is above 0" in line.why


def test_one_path_or_too_few_times_or_samples_are_not_tested():
    (line,) = of_claim(structure_earlier, trajectory=states({"fm_ot": 0.5}, n=30))
    assert line.verdict == NOT_TESTED
    few = states({"fm_ot": 0.5, "ddpm": 0.8}, n=30)
    (line,) = of_claim(structure_earlier, trajectory=few[few.t > 0.92])
    assert line.verdict == NOT_TESTED
    (line,) = of_claim(structure_earlier, trajectory=few[few["index"] < 2 * GROUPS - 1])
    assert line.verdict == NOT_TESTED
    lines = structure_earlier({"trajectory": states({"oracle_ot": 0.4, "oracle_vp": 0.8}, n=200)})
    assert [(line.about, line.verdict) for line in lines] == [("trained", NOT_TESTED), ("oracle", INCONCLUSIVE)]


def test_the_half_time():
    times = np.array([0.0, 0.5, 1.0])
    assert half_time(times, np.array([[0.0, 0.4, 0.8], [0.6, 0.7, 1.0], [0.0, 0.5, 1.0]])) == pytest.approx([0.625, 0.0, 0.5])
    assert np.isnan(half_time(times, np.array([0.0, 0.1, 0.2]))).all()
