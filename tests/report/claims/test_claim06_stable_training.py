"""Claim 6 on hand-made trainings."""

import math
from dataclasses import replace

import pytest
from claim_rows import as_frame, final_rows, of_claim, snapshot_rows, wobble

from fmbench.report.claims.claim06_stable_training import log_spreads, stable_training
from fmbench.report.claims.student import student
from fmbench.report.claims.verdicts import FAILS, HOLDS, INCONCLUSIVE, NOT_TESTED


def test_the_spread_over_seeds_is_judged_by_the_jackknife():
    rows = final_rows({"fm_diffusion": 0.1, "score_matching": 2.0})
    frame = as_frame([replace(r, value=r.value + 0.1 * wobble(r.seed, r.method)) if r.metric == "frechet" else r for r in rows])
    spread = of_claim(stable_training, records=frame)[-1]
    assert spread.verdict == HOLDS and spread.low < 0.08 < spread.high and spread.threshold == 1
    by = frame[frame.metric == "frechet"].pivot_table(index="seed", columns="method", values="value")
    logs = log_spreads(by.fm_diffusion.to_numpy()) - log_spreads(by.score_matching.to_numpy())
    low, high = student(logs.tolist())
    assert (spread.low, spread.high) == pytest.approx((math.exp(low), math.exp(high)))
    turned = frame.replace({"method": {"fm_diffusion": "score_matching", "score_matching": "fm_diffusion"}})
    assert of_claim(stable_training, records=turned)[-1].verdict == FAILS
    rows = as_frame(final_rows({"fm_diffusion": 0.1, "score_matching": 0.3}, seeds=2))
    spread = of_claim(stable_training, records=rows)[-1]
    assert (spread.verdict, spread.value, spread.low) == (INCONCLUSIVE, pytest.approx(1 / 3), None)
    assert "needs 3 or more different values" in spread.why


def test_lost_trainings_have_a_line_where_their_numbers_differ():
    same = {"fm_diffusion": 1.0, "score_matching": 1.0}
    lines = of_claim(stable_training, records=as_frame(final_rows(same, {"score_matching": 8})))
    assert (lines[0].part, lines[0].verdict, lines[0].value) == ("lost trainings", HOLDS, -8)
    lines = of_claim(stable_training, records=as_frame(final_rows(same, {"fm_diffusion": 8})))
    assert (lines[0].verdict, lines[0].value) == (FAILS, 8)
    lines = of_claim(stable_training, records=as_frame(final_rows(same, {"score_matching": 1})))
    assert lines[0].verdict == INCONCLUSIVE  # one of eight may be chance
    lines = of_claim(stable_training, records=as_frame(final_rows(same, {"score_matching": 4})))
    assert lines[0].verdict == INCONCLUSIVE and "p = 0.038" in lines[0].why  # four of eight, too, more often than one in forty
    lines = of_claim(stable_training, records=as_frame(final_rows(same, {"score_matching": 1, "fm_diffusion": 1})))
    assert "lost trainings" not in [line.part for line in lines]


def test_steps_back_during_training():
    def jumpy(method: str, k: int) -> float:
        return 10 / k + (5 if method == "score_matching" and k == 4 else 0) + (0.1 if k == 5 and method == "fm_diffusion" else 0)

    sources = {"records": as_frame(final_rows({"fm_diffusion": 1.0, "score_matching": 1.0}))}
    jumps = as_frame(snapshot_rows("frechet", jumpy))
    back = of_claim(stable_training, learning_curve=jumps, **sources)[0]
    assert (back.part, back.verdict) == ("steps back during training", HOLDS)
    rise = jumpy("score_matching", 4) - jumpy("score_matching", 3)
    assert back.value == pytest.approx(-rise / 10, rel=0.01)  # both begin at 10
    smooth = as_frame(snapshot_rows("frechet", lambda m, k: 10 / k))
    back = of_claim(stable_training, learning_curve=smooth, **sources)[0]
    assert (back.verdict, back.why) == (INCONCLUSIVE, "The distance of neither method ever rises")
    missing = of_claim(stable_training, **sources)[0]
    assert missing.verdict == NOT_TESTED and "learning_curve.parquet" in missing.why


def test_noise_around_zero_is_not_a_step_back():
    """FM comes down to noise about 0 and score matching climbs far from it: over its own mean FM would climb the most."""

    def curve(method: str, k: int) -> float:
        return {"fm_diffusion": (0.1, 1e-4, -1e-4, 1e-4, -1e-4), "score_matching": (1, 0.5, 0.8, 0.5, 0.8)}[method][k - 1]

    rows = as_frame(snapshot_rows("energy_distance", curve, methods=("fm_diffusion", "score_matching")))
    sources = {"records": as_frame(final_rows({"fm_diffusion": 1.0, "score_matching": 1.0}))}
    back = of_claim(stable_training, learning_curve=rows, **sources)[0]
    assert (back.part, back.verdict) == ("steps back during training", HOLDS)
    assert back.value == pytest.approx((2e-4 - 0.6) / 0.55, rel=0.05)


def test_an_estimate_that_moves_below_zero_is_not_a_step_back():
    """FM is at the floor from the start, where the unbiased estimate is noise; score matching falls towards it."""

    def curve(method: str, k: int) -> float:
        return {"fm_diffusion": (-3e-4, -1e-4, -4e-4, -1e-4, -3e-4), "score_matching": (5e-4, 4e-4, 3e-4, 2e-4, 1e-4)}[method][
            k - 1
        ]

    rows = as_frame(snapshot_rows("energy_distance", curve, methods=("fm_diffusion", "score_matching")))
    sources = {"records": as_frame(final_rows({"fm_diffusion": 1.0, "score_matching": 1.0}))}
    back = of_claim(stable_training, learning_curve=rows, **sources)[0]
    assert (back.verdict, back.value, back.why) == (INCONCLUSIVE, 0, "The distance of neither method ever rises")
