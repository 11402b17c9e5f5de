"""Claim 2 on hand-made sweeps with a known ratio of NFE at equal error."""

import math
from dataclasses import replace

import numpy as np
import pytest
from claim_rows import FIVE, SEEDS, as_frame, diverged, of_claim, row, sweep_rows, wobble

from fmbench.report.claims.claim02_fewer_evaluations import evaluations_at, fewer_evaluations
from fmbench.report.claims.decision import decide
from fmbench.report.claims.evaluation import overall
from fmbench.report.claims.registry import CLAIMS
from fmbench.report.claims.verdicts import FAILS, HOLDS, INCONCLUSIVE, NOT_TESTED, combine


@pytest.mark.parametrize(("ratio", "verdict"), [(0.6, HOLDS), (0.4, HOLDS), (0.9, FAILS), (1.2, FAILS), (0.775, INCONCLUSIVE)])
def test_the_ratio_of_evaluations_at_equal_error(ratio, verdict):
    lines = of_claim(fewer_evaluations, records=as_frame(sweep_rows(ratio)))
    assert [line.against for line in lines] == list(FIVE[:4]) and {line.paper for line in lines} == {0.6}
    for line in lines:
        assert line.value == pytest.approx(ratio, rel=0.03) and line.low < line.value < line.high
    assert combine(line.verdict for line in lines) == verdict


def test_errors_near_the_error_of_the_reference_are_left_out():
    """With a floor of the reference, only errors above 100 times it are compared."""
    (line,) = of_claim(fewer_evaluations, records=as_frame(sweep_rows(0.5, others=("ddpm",), floor=1e-5)))
    assert line.verdict == HOLDS and "over errors from 0.001 to" in line.why
    for floor, why in (
        (0.01, "that all curves cover is too small: 1 to 2.3"),
        (0.1, "No error is in the range of"),
    ):
        (line,) = of_claim(fewer_evaluations, records=as_frame(sweep_rows(0.5, others=("ddpm",), floor=floor)))
        assert line.verdict == NOT_TESTED and why in line.why


def test_an_error_that_first_rises_with_nfe_keeps_its_seed():
    """Every curve starts at the envelope's first point, whatever worse comes after it."""
    rows = [
        replace(r, value=50 * r.value) if (r.metric, r.solver, r.nfe) == ("mse", "midpoint", 8.0) else r for r in sweep_rows(0.5)
    ]
    by_nfe = {r.nfe: r.value for r in rows if (r.method, r.seed, r.metric, r.solver) == ("ddpm", 0, "mse", "midpoint")}
    assert by_nfe[8.0] > by_nfe[4.0] > by_nfe[20.0]
    lines = of_claim(fewer_evaluations, records=as_frame(rows))
    assert {(line.verdict, line.seeds) for line in lines} == {(HOLDS, 6)}


def test_a_seed_without_a_curve_is_named():
    rows = diverged(sweep_rows(0.5, others=("ddpm",)), "ddpm", [3])
    (line,) = of_claim(fewer_evaluations, records=as_frame(rows))
    assert (line.verdict, line.seeds) == (HOLDS, 5) and "DDPM has no curve for seed 3" in line.why
    rows = diverged(sweep_rows(0.5, others=("ddpm",)), "fm_ot", [3])
    (line,) = of_claim(fewer_evaluations, records=as_frame(rows))
    assert (line.verdict, line.needs) == (INCONCLUSIVE, None) and "FM (OT path) has no curve for seed 3" in line.why


def test_a_method_that_diverged_on_a_whole_data_set_counts():
    """Good rows on d do not make it hold where FM-OT, or a rival, was lost on all of e."""
    rows = sweep_rows(0.5, others=("ddpm", "scoreflow"))
    for lost in ("fm_ot", "ddpm"):
        more = diverged([replace(r, dataset="e") for r in rows], lost, SEEDS)
        found = decide(fewer_evaluations({"records": as_frame(rows + more)}))
        assert {(line.dataset, line.against, line.verdict) for line in found if lost in ("fm_ot", line.against)} >= {
            ("e", "ddpm", INCONCLUSIVE)
        }
        assert overall(CLAIMS[1], found).verdict == INCONCLUSIVE
        bad = next(line for line in found if (line.dataset, line.against) == ("e", "ddpm"))
        assert "No seed has a curve of both methods" in bad.why and "lost 6 of 6 seeds (diverged: the loss became nan)" in bad.why


def test_a_sweep_without_the_midpoint_rule():
    rows = as_frame([r for r in sweep_rows(0.6) if r.solver == "euler"])
    (line,) = of_claim(fewer_evaluations, records=rows)
    assert line.verdict == NOT_TESTED and "midpoint" in line.why


def test_other_solvers_and_budgets_change_nothing():
    """Neither another solver nor an NFE that Euler's method or RK4 has not spent is part of the midpoint rule's curve."""
    rows = sweep_rows(0.6)
    midpoint = [r for r in rows if (r.metric, r.solver) == ("mse", "midpoint")]
    of_others = [replace(r, solver=name, value=1e-9) for r in midpoint for name in ("unipc2", "midpoint/cosine", "mine")]
    cheaper = [replace(r, nfe=6.0, value=1e-9) for r in midpoint if r.nfe == 4.0]
    found = of_claim(fewer_evaluations, records=as_frame(rows + of_others + cheaper))
    assert found == of_claim(fewer_evaluations, records=as_frame(rows))
    assert found != of_claim(fewer_evaluations, records=as_frame(midpoint + cheaper))


def test_oracles_have_separate_lines_that_do_not_count():
    rows = sweep_rows(0.6)
    for seed in SEEDS:
        for nfe in (4, 8, 20, 40, 100):
            for method, c in (("oracle_ot", 20.0), ("oracle_vp", 10.0)):
                noisy = c * math.exp(0.02 * wobble(seed, method))
                rows.append(row(method, seed, "mse", (noisy / nfe) ** 4, solver="midpoint", nfe=float(nfe)))
    sources = {"records": as_frame(rows)}
    (oracle,) = of_claim(fewer_evaluations, "oracle", **sources)
    assert (oracle.verdict, oracle.against, oracle.paper) == (FAILS, "oracle_vp", None)
    assert overall(CLAIMS[1], decide(fewer_evaluations(sources))).verdict == HOLDS


def test_evaluations_at_equal_error_are_those_of_a_power_law():
    nfe = np.array([100.0, 4.0, 8.0, 20.0])  # in no order
    found = evaluations_at(5 * nfe**-4, nfe, 5 * np.array([10.0, 50.0]) ** -4)
    assert found == pytest.approx([10, 50])
    outside = evaluations_at(5 * nfe**-4, nfe, 5 * np.array([3.0, 101.0]) ** -4)
    assert np.isnan(outside).all()


def test_a_point_worse_than_a_cheaper_one_is_skipped():
    nfe, errors = np.array([4.0, 8.0, 16.0, 32.0]), np.array([1.0, 0.1, 0.5, 0.001])
    assert evaluations_at(errors, nfe, np.array([0.1, 0.5]))[0] == pytest.approx(8)
    assert evaluations_at(errors, nfe, np.array([0.5]))[0] < 8
