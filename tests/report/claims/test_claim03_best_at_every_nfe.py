"""Claim 3 on hand-made few-step samples."""

import itertools
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from claim_rows import FIVE, SEEDS, as_frame, diverged, few_step_rows, of_claim, row, wobble

from fmbench.report.claims.claim03_best_at_every_nfe import best_at_every_nfe
from fmbench.report.claims.verdicts import FAILS, HOLDS, INCONCLUSIVE, NOT_TESTED
from fmbench.store.records import Row


def test_best_at_every_nfe():
    everywhere = dict.fromkeys(map(float, range(4, 44, 4)), 0.5)
    (line,) = of_claim(best_at_every_nfe, few_step=as_frame(few_step_rows(everywhere)))
    assert (
        line.verdict == HOLDS
        and line.value == pytest.approx(-2 / 3, abs=0.05)
        and "FM (OT path) has the lowest mean at 10 of 10" in line.why
    )
    # Significantly worse at two of ten: the claim fails, however good the rest.
    (line,) = of_claim(best_at_every_nfe, few_step=as_frame(few_step_rows(everywhere | {4.0: 2.0, 8.0: 2.0})))
    assert line.verdict == FAILS and "Significantly worse than another method at NFE 4, 8" in line.why and line.value < 0
    # As good as the others at two of ten: neither won nor lost.
    (line,) = of_claim(best_at_every_nfe, few_step=as_frame(few_step_rows(everywhere | {4.0: 1.0, 8.0: 1.0})))
    assert line.verdict in (INCONCLUSIVE, FAILS) and "FM (OT path) has the lowest mean at 8 of 10" in line.why
    (line,) = of_claim(best_at_every_nfe, few_step=as_frame(few_step_rows(everywhere, others=("ddpm",))))
    assert line.verdict == INCONCLUSIVE and "Not compared with Score matching" in line.why


def test_ours_loses_an_nfe_where_its_samples_diverge_and_a_diverged_rival_does_not_count():
    rows = few_step_rows(dict.fromkeys((4.0, 8.0), 0.5))

    def without(method: str) -> pd.DataFrame:
        return as_frame(
            [replace(r, value=None, status="diverged", reason="x") if (r.method, r.nfe) == (method, 4.0) else r for r in rows]
        )

    (line,) = of_claim(best_at_every_nfe, few_step=without("fm_ot"))
    assert line.verdict == FAILS and "No seed of FM (OT path) has a value at NFE 4" in line.why
    (line,) = of_claim(best_at_every_nfe, few_step=without("ddpm"))
    assert line.verdict == HOLDS and "FM (OT path) has the lowest mean at 2 of 2" in line.why


def test_a_better_rival_without_one_seed_still_counts():
    rows = few_step_rows(dict.fromkeys((4.0, 8.0), 0.5))
    better = [replace(r, value=r.value * 0.1) if r.method == "ddpm" else r for r in rows]
    (line,) = of_claim(best_at_every_nfe, few_step=as_frame(diverged(better, "ddpm", [2])))
    assert line.verdict == FAILS and "Significantly worse than another method at NFE 4, 8" in line.why and line.value > 1
    assert "DDPM 1 of 6 at NFE 4, 1 of 6 at NFE 8" in line.why


def test_lost_seeds_of_ours_keep_every_nfe_from_holding():
    rows = few_step_rows(dict.fromkeys((4.0, 8.0), 0.5))
    (line,) = of_claim(best_at_every_nfe, few_step=as_frame(diverged(rows, "fm_ot", [2])))
    assert (line.verdict, line.leans, line.seeds) == (INCONCLUSIVE, "", 5)
    assert (
        "FM (OT path) has the lowest mean at 2 of 2" in line.why and "FM (OT path) 1 of 6 at NFE 4, 1 of 6 at NFE 8" in line.why
    )
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
    (before,), (after,) = (of_claim(best_at_every_nfe, few_step=as_frame(r)) for r in (rows, rows + more))
    assert before == after and after.verdict == HOLDS and after.seeds == 6


def test_an_nfe_that_ours_was_not_run_at_leaves_the_claim_inconclusive():
    rows = [r for r in few_step_rows(dict.fromkeys((4.0, 8.0), 0.5)) if r.method != "fm_ot" or r.nfe == 8.0]
    (line,) = of_claim(best_at_every_nfe, few_step=as_frame(rows))
    assert line.verdict == INCONCLUSIVE and "No seed in common at NFE 4" in line.why


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

    (line,) = of_claim(best_at_every_nfe, few_step=as_frame(energy_rows(distance)))
    assert line.value == pytest.approx(0.1 / 1.02 / 3, abs=1e-3) and line.unit == "of the mean at NFE 4"
    assert line.verdict == FAILS


def test_every_fixed_step_solver_has_a_line_and_the_adaptive_one_has_not():
    rows = few_step_rows({4.0: 0.5}) + few_step_rows({4.0: 0.5}, solver="midpoint/karras")
    lines = of_claim(best_at_every_nfe, few_step=as_frame(rows + [replace(r, solver="dopri5", nfe=0.0, value=9.0) for r in rows]))
    assert [line.part for line in lines] == ["euler, Frechet distance", "midpoint/karras, Frechet distance"]
    adaptive = as_frame(few_step_rows({8.0: 1.0}, solver="dopri5"))
    assert [line.verdict for line in best_at_every_nfe({"few_step": adaptive})] == [NOT_TESTED]
