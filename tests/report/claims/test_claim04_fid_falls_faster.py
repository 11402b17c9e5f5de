"""Claim 4 on hand-made learning curves."""

from dataclasses import replace
from typing import Any

import pytest
from claim_rows import FIVE, SEEDS, as_frame, of_claim, row, snapshot_rows, wobble

from fmbench.report.claims.claim04_fid_falls_faster import faster_and_further
from fmbench.report.claims.evaluation import overall
from fmbench.report.claims.registry import CLAIMS
from fmbench.report.claims.verdicts import FAILS, HOLDS, INCONCLUSIVE
from fmbench.store.records import Row


def test_faster_and_further():
    def halved(method: str, k: int) -> float:
        return (0.5 if method == "fm_ot" else 1.0) * 10 / k

    lines = of_claim(faster_and_further, learning_curve=as_frame(snapshot_rows("frechet", halved)))
    assert [line.verdict for line in lines] == [HOLDS] * 8 and [line.against for line in lines] == [*FIVE[:4]] * 2
    assert [line.value for line in lines] == [pytest.approx(-2 / 3, abs=0.03)] * 8

    def slower_but_further(method: str, k: int) -> float:
        return 1.0 / k if method != "fm_ot" else 2.0 if k < 5 else 0.1

    lines = of_claim(faster_and_further, learning_curve=as_frame(snapshot_rows("frechet", slower_but_further)))
    assert [line.verdict for line in lines] == [FAILS] * 4 + [HOLDS] * 4
    assert lines[-1].value == pytest.approx(-2 * (0.2 - 0.1) / (0.2 + 0.1), abs=0.03)


def test_the_spread_is_at_least_the_sampling_error():
    """Errors as large as the distances at the last snapshot alone: "further" is open, and the mean over iterations holds."""
    rows = snapshot_rows("frechet", lambda m, k: (0.5 if m == "fm_ot" else 1.0) * 10 / k)
    errors = [replace(r, metric="frechet_stderr", value=r.value * (1.0 if r.step == 5000 else 1e-6)) for r in rows]
    lines = of_claim(faster_and_further, learning_curve=as_frame(rows + errors))
    assert [line.verdict for line in lines] == [HOLDS] * 4 + [INCONCLUSIVE] * 4
    widths = [(line.high - line.low) / (2 * 2.5706 / 6**0.5) for line in lines]
    error = 8 * 2**0.5 / 9  # of a relative difference with b = 2 a; over the last of four intervals its trapezoid is error / 8
    assert widths == [pytest.approx(error / 8, rel=0.02)] * 4 + [pytest.approx(error, rel=0.02)] * 4


def test_lost_seeds_during_training_keep_the_claim_from_holding():
    rows = snapshot_rows("frechet", lambda m, k: (0.5 if m == "fm_ot" else 1.0) * 10 / k, seeds=range(10))
    stopped = [r for r in rows if r.method != "fm_ot" or r.seed >= 4 or r.step < 2000]
    stopped += [row("fm_ot", s, "frechet", None, step=1500, features="c", stage="learning_curve") for s in range(4)]
    lines = of_claim(faster_and_further, learning_curve=as_frame(stopped))
    assert {(line.verdict, line.needs) for line in lines} == {(INCONCLUSIVE, None)}
    assert all("FM (OT path) lost 4 of 10 seeds" in line.why for line in lines)


def test_the_last_snapshot_of_a_stopped_training_is_not_its_end():
    """FM-OT's seeds 0 to 3 stop after two snapshots, which are bad: over the seeds that went well they are not."""

    def stopped(method: str, seeds: Any) -> list[Row]:
        rows = snapshot_rows("frechet", lambda m, k: (0.5 if m == "fm_ot" else 1.0) * 10 / k, seeds=range(10))
        kept = [r for r in rows if r.method != method or r.seed not in seeds or r.step <= 2000]
        worse = [replace(r, value=r.value * 100) if r.method == method and r.seed in seeds else r for r in kept]
        return worse + [row(method, s, "frechet", None, step=2500, features="c", stage="learning_curve") for s in seeds]

    lines = of_claim(faster_and_further, learning_curve=as_frame(stopped("fm_ot", range(4))))
    assert {(line.verdict, line.seeds) for line in lines} == {(INCONCLUSIVE, 6)} and all(line.value < -0.6 for line in lines)
    lines = of_claim(faster_and_further, learning_curve=as_frame(stopped("ddpm", range(10))))
    assert overall(CLAIMS[3], lines).verdict == INCONCLUSIVE
    assert {line.verdict for line in lines if line.against == "ddpm"} == {INCONCLUSIVE}
    assert all("Not compared with DDPM (diverged: the loss became nan)" in line.why for line in lines[::4])


def test_a_distance_near_zero_at_the_end_is_compared_on_the_scale_of_the_first_snapshot():
    """Both come down to noise about 0, of which a relative difference would be -2 at the end."""

    def curve(method: str, k: int) -> float:
        return (1.0 if method == "fm_ot" else 3.0) if k == 1 else -1e-4 if method == "fm_ot" else 1e-4

    lines = of_claim(faster_and_further, learning_curve=as_frame(snapshot_rows("energy_distance", curve)))
    faster, further = lines[0], lines[4]
    assert further.value == pytest.approx(-1e-4, rel=0.05) and further.unit == "of the mean at the first snapshot"
    assert faster.value == pytest.approx(-1 / 8, rel=0.05)  # a triangle of height -1 over the first of four intervals


def test_the_mean_over_iterations_is_weighted_by_iterations():
    rows = [
        row(m, s, "frechet", v * (1 + 1e-3 * wobble(s, m)), step=step)
        for s in SEEDS
        for m in ("ddpm", "fm_ot")
        for step, v in ((0, 1.0), (10, 3.0 if m == "fm_ot" else 1.0), (100, 1.0))
    ]
    faster = of_claim(faster_and_further, learning_curve=as_frame(rows))[0]
    assert faster.value == pytest.approx(0.5, abs=0.01)  # a triangle of height 1 over the whole
