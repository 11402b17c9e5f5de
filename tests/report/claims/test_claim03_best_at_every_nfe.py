"""Claim 3 on hand-made few-step samples."""

import itertools
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from claim_rows import FIVE, SEEDS, as_frame, diverged, few_step_rows, of_claim, row, wobble

from fmbench.report.claims.claim03_best_at_every_nfe import best_at_every_nfe
from fmbench.report.claims.evaluation import overall
from fmbench.report.claims.registry import CLAIMS
from fmbench.report.claims.student import student
from fmbench.report.claims.verdicts import FAILS, HOLDS, INCONCLUSIVE, NOT_TESTED
from fmbench.store.records import Row


def test_best_at_every_nfe():
    everywhere = dict.fromkeys(map(float, range(4, 44, 4)), 0.5)
    lines = of_claim(best_at_every_nfe, few_step=as_frame(few_step_rows(everywhere)))
    assert [line.against for line in lines] == list(FIVE[:4])
    for line in lines:
        assert line.verdict == HOLDS and line.value == pytest.approx(-2 / 3, abs=0.05) and line.low < line.value < line.high
    assert "Lower than DDPM at NFE 4, 8, 12, 16, 20, 24, 28, 32, 36, 40 (95 % t intervals)" in lines[0].why
    # Significantly worse at one of ten: the claim fails, however good the rest.
    lines = of_claim(best_at_every_nfe, few_step=as_frame(few_step_rows(everywhere | {4.0: 2.0})))
    assert {line.verdict for line in lines} == {FAILS}
    assert "Higher than DDPM at NFE 4 (Holm's correction for 40 tests)" in lines[0].why and lines[0].value < 0
    # As good as the others at one of ten: neither won nor lost.
    lines = of_claim(best_at_every_nfe, few_step=as_frame(few_step_rows(everywhere | {4.0: 1.0})))
    assert {line.verdict for line in lines} == {INCONCLUSIVE}
    assert all(line.why.split(". ")[1].startswith("Not significant against") and " at NFE 4" in line.why for line in lines)
    ddpm, *others = of_claim(best_at_every_nfe, few_step=as_frame(few_step_rows(everywhere, others=("ddpm",))))
    assert ddpm.verdict == HOLDS and {line.verdict for line in others} == {NOT_TESTED}
    assert overall(CLAIMS[2], [ddpm, *others]).verdict == INCONCLUSIVE and "Not compared with Score matching" in others[0].why


def test_the_spread_is_at_least_the_sampling_error_at_each_nfe():
    """At NFE 4 half of the distance, 12.5 against 25, has errors of 25 and more: not significant there, but at NFE 8."""
    rows = few_step_rows({4.0: 0.5, 8.0: 0.5})
    plain = of_claim(best_at_every_nfe, few_step=as_frame(rows))
    errors = [replace(r, metric="frechet_stderr", value=r.value * (1.0 if r.nfe == 4 else 1e-6)) for r in rows]
    lines = of_claim(best_at_every_nfe, few_step=as_frame(rows + errors))
    assert {line.verdict for line in plain} == {HOLDS} and {line.verdict for line in lines} == {INCONCLUSIVE}
    for line, without in zip(lines, plain, strict=True):
        assert "at NFE 8 (95 % t intervals). Not significant against" in line.why and " at NFE 4" in line.why
        # The error of (a - b) / ((a + b) / 2) with b = 2 a is 4 sqrt(2) a b / (a + b)^2 = 1.26, its mean over NFE half of that.
        assert line.value == without.value
        assert line.high - line.low == pytest.approx(2 * 2.5706 * 8 * 2**0.5 / 9 / 2 / 6**0.5, rel=0.02)


def test_the_rival_is_not_chosen_on_the_same_seeds():
    """Each line is on one method, and its interval is Student's on the mean over NFE of each seed."""
    rows = few_step_rows({4.0: 0.9, 8.0: 1.1})
    frame = as_frame(rows)
    for line in of_claim(best_at_every_nfe, few_step=frame):
        by = frame.pivot_table(index=["seed", "nfe"], columns="method", values="value")
        relative = 2 * (by.fm_ot - by[line.against]) / (by.fm_ot + by[line.against])
        values = relative.groupby("seed").mean().tolist()
        assert (line.low, line.high) == pytest.approx(student(values))


def test_ours_loses_an_nfe_where_its_samples_diverge_and_a_diverged_rival_does_not_count():
    rows = few_step_rows(dict.fromkeys((4.0, 8.0), 0.5))

    def without(method: str, seeds: Any = SEEDS) -> pd.DataFrame:
        bad = {"value": None, "status": "diverged", "reason": "x"}
        kept = [r for r in rows if r.seed in seeds]
        return as_frame([replace(r, **bad) if (r.method, r.nfe) == (method, 4.0) else r for r in kept])

    # All six seeds of ours and none of the other's: p = 1 / 924, with 8 tests in all.
    lines = of_claim(best_at_every_nfe, few_step=without("fm_ot"))
    assert {line.verdict for line in lines} == {FAILS} and all(" at NFE 4 (Holm" in line.why for line in lines)
    # Two of two and none of two: p = 1 / 6.
    lines = of_claim(best_at_every_nfe, few_step=without("fm_ot", range(2)))
    assert {line.verdict for line in lines} == {INCONCLUSIVE}
    lines = of_claim(best_at_every_nfe, few_step=without("ddpm"))
    assert {line.verdict for line in lines} == {HOLDS}
    assert "Lower than DDPM at NFE 8 (95 % t intervals). Lost seeds: DDPM 6 of 6 at NFE 4" in lines[0].why


def test_a_better_rival_without_one_seed_still_counts():
    rows = few_step_rows(dict.fromkeys((4.0, 8.0), 0.5))
    better = [replace(r, value=r.value * 0.1) if r.method == "ddpm" else r for r in rows]
    lines = of_claim(best_at_every_nfe, few_step=as_frame(diverged(better, "ddpm", [2])))
    assert [line.verdict for line in lines] == [FAILS, HOLDS, HOLDS, HOLDS]
    assert "Higher than DDPM at NFE 4, 8 (Holm" in lines[0].why and lines[0].value > 1 and lines[0].seeds == 5
    assert "DDPM 1 of 6 at NFE 4, 1 of 6 at NFE 8" in lines[0].why


def test_lost_seeds_of_ours_keep_every_nfe_from_holding():
    rows = few_step_rows(dict.fromkeys((4.0, 8.0), 0.5))
    lines = of_claim(best_at_every_nfe, few_step=as_frame(diverged(rows, "fm_ot", [2])))
    assert {(line.verdict, line.needs, line.seeds) for line in lines} == {(INCONCLUSIVE, None, 5)}
    assert all("FM (OT path) 1 of 6 at NFE 4, 1 of 6 at NFE 8" in line.why for line in lines)
    (line,) = of_claim(best_at_every_nfe, few_step=as_frame(diverged(rows, "fm_ot", SEEDS)))
    assert line.verdict == INCONCLUSIVE and "No seed of FM (OT path) has a value" in line.why
    # After a diverged training the few-step samples are skipped, which decides nothing either.
    skipped = [
        replace(r, value=None, status="skipped", reason="training diverged: x") if r.method == "fm_ot" else r for r in rows
    ]
    (line,) = of_claim(best_at_every_nfe, few_step=as_frame(skipped))
    assert line.verdict == INCONCLUSIVE and "FM (OT path) lost 6 of 6 seeds (skipped: training diverged" in line.why


def test_an_extra_seed_of_the_others_changes_nothing():
    rows = few_step_rows(dict.fromkeys((4.0, 8.0), 0.5))
    more = [replace(r, seed=99) for r in rows if r.seed == 0 and r.method != "fm_ot"]
    before, after = (of_claim(best_at_every_nfe, few_step=as_frame(r)) for r in (rows, rows + more))
    assert before == after and {(line.verdict, line.seeds) for line in after} == {(HOLDS, 6)}


def test_an_nfe_that_ours_was_not_run_at_leaves_the_claim_inconclusive():
    rows = [r for r in few_step_rows(dict.fromkeys((4.0, 8.0), 0.5)) if r.method != "fm_ot" or r.nfe == 8.0]
    lines = of_claim(best_at_every_nfe, few_step=as_frame(rows))
    assert {line.verdict for line in lines} == {INCONCLUSIVE} and all("No seed in common at NFE 4" in line.why for line in lines)


def energy_rows(distance: Any) -> list[Row]:
    """``distance(method, seed, nfe)``, unbiased and so of either sign."""
    return [
        row(m, s, "energy_distance", distance(m, s, nfe), solver="euler", nfe=nfe)
        for m, s, nfe in itertools.product(FIVE, SEEDS, (4.0, 8.0, 16.0))
    ]


def test_a_distance_about_zero_is_compared_over_one_scale():
    """At 8 and 16 NFE all are noise about 0 (ours below it); the relative difference of those would be -2."""

    def distance(method: str, seed: int, nfe: float) -> float:
        noise = 1e-4 * (1 + 0.1 * wobble(seed, method))
        return (1.1 if method == "fm_ot" else 1.0) + noise if nfe == 4 else -noise if method == "fm_ot" else noise

    for line in of_claim(best_at_every_nfe, few_step=as_frame(energy_rows(distance))):
        assert line.value == pytest.approx(0.1 / 1.02 / 3, abs=1e-3) and line.unit == "of the mean at NFE 4"
        assert line.verdict == FAILS


def test_each_of_the_papers_solvers_has_a_line_and_no_other():
    rows = few_step_rows({4.0: 0.5}) + few_step_rows({4.0: 0.5}, solver="midpoint")
    others = [replace(r, solver=name, value=9.0) for r in rows for name in ("dopri5", "unipc2", "midpoint/karras", "mine")]
    lines = of_claim(best_at_every_nfe, few_step=as_frame(rows + others))
    assert [line.part for line in lines] == ["euler, Frechet distance"] * 4 + ["midpoint, Frechet distance"] * 4
    assert lines == of_claim(best_at_every_nfe, few_step=as_frame(rows))
    for solver in ("dopri5", "unipc2"):
        alone = as_frame(few_step_rows({8.0: 1.0}, solver=solver))
        (line,) = best_at_every_nfe({"few_step": alone})
        assert line.verdict == NOT_TESTED and "no rows of euler, midpoint, rk4" in line.why


def test_an_nfe_that_one_of_the_papers_solvers_lacks_changes_nothing():
    """FM-OT is worse at 6 NFE, which RK4 cannot spend: the table of solvers has these samples, the claim is not about them."""
    common = {4.0: 0.5, 8.0: 0.5}
    rows = [r for solver in ("euler", "midpoint", "rk4") for r in few_step_rows(common, solver=solver)]
    more = few_step_rows({6.0: 3.0}) + few_step_rows({6.0: 3.0, 10.0: 3.0}, solver="midpoint")
    lines = of_claim(best_at_every_nfe, few_step=as_frame(rows + more))
    assert lines == of_claim(best_at_every_nfe, few_step=as_frame(rows)) and {line.verdict for line in lines} == {HOLDS}
    # Where nothing is in common, the claim says so.
    apart = few_step_rows({4.0: 0.5}) + few_step_rows({6.0: 0.5}, solver="midpoint")
    (line,) = of_claim(best_at_every_nfe, few_step=as_frame(apart))
    assert line.verdict == NOT_TESTED and "no NFE that euler and midpoint all spent" in line.why
