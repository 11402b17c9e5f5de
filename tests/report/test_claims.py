"""Claims on hand-made rows where the answer is known, and the statistics behind them in closed form."""

import csv
import itertools
import math
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from user_code import command

from fmbench.errors import DataError
from fmbench.report import claims
from fmbench.report.claims import CLAIMS, FILES, frame, latex, markdown, overall, read_sources, test_claims
from fmbench.report.evidence import (
    ENOUGH_SEEDS,
    FAILS,
    HOLDS,
    INCONCLUSIVE,
    LEVEL,
    NOT_TESTED,
    Finding,
    bootstrap,
    combine,
    combine_leaning,
    coverage,
    evaluations_at,
    half_time,
    judge,
    relative_difference,
    student,
)
from fmbench.report.layout import paper
from fmbench.report.style import label
from fmbench.store.records import PREVIEW, Row, table, write_rows, write_table

REFERENCE = Path(__file__).parent.parent.parent / "results" / "reference" / "default"
FIVE = ("ddpm", "score_matching", "scoreflow", "fm_diffusion", "fm_ot")
SEEDS = range(6)


def as_frame(rows: list[Row]) -> pd.DataFrame:
    return pd.DataFrame([asdict(r) for r in rows])


def row(method: str, seed: int, metric: str, value: float | None, dataset: str = "d", **columns: Any) -> Row:
    bad = {} if value is not None else {"status": "diverged", "reason": "the loss became nan"}
    return Row(dataset, method, seed, columns.pop("stage", "s"), metric, value, columns.pop("unit", "u"), **columns, **bad)


def wobble(seed: int, method: str) -> float:
    """A spread over seeds that is never the same for two methods."""
    return math.sin(7.3 * seed + 1.9 * sum(map(ord, method)))


# Statistics


@pytest.mark.parametrize("values", [(3.0, 1.0), (0.2, -1.0, 4.0), (0.0, 1.0, 10.0, 100.0), (1.0, 2.0, 4.0, 8.0, 16.0)])
def test_the_bootstrap_of_few_values_is_that_of_all_resamples(values):
    means = np.sort([np.mean(pick) for pick in itertools.product(values, repeat=len(values))])
    share = np.arange(1, len(means) + 1) / len(means)
    low = means[np.argmax(share > 0.025 + 1e-12)]
    high = means[np.argmax(share >= 0.975 - 1e-12)]
    assert bootstrap(values) == (pytest.approx(low), pytest.approx(high))


def test_of_two_and_three_values_the_interval_is_the_range_and_of_four_it_is_less():
    assert bootstrap([5.0, 2.0]) == (2.0, 5.0)
    assert bootstrap([5.0, 2.0, 3.0]) == (2.0, 5.0)
    low, high = bootstrap([0.0, 1.0, 2.0, 3.0])
    assert 0 < low < high < 3


def test_one_value_has_no_interval():
    assert all(math.isnan(v) for v in (*bootstrap([1.0]), *student([1.0])))
    assert coverage(1) is None


def test_many_values_have_the_interval_of_normal_theory_and_the_same_one_each_time():
    values = stats.norm.ppf((np.arange(400) + 0.5) / 400).tolist()
    low, high = bootstrap(values)
    assert (low, high) == bootstrap(values)
    half = 1.96 * np.std(values) / 20
    assert low == pytest.approx(-half, abs=0.004) and high == pytest.approx(half, abs=0.004)


def test_the_coverage_is_that_of_the_range_for_the_median():
    """Of two draws both lie on one side of the median half of the time, whatever they are drawn from."""
    draws = np.random.default_rng(0).exponential(size=(20000, 3))
    median = math.log(2)
    for n in (2, 3):
        inside = (draws[:, :n].min(1) < median) & (median < draws[:, :n].max(1))
        assert coverage(n) == pytest.approx(inside.mean(), abs=0.015)
    assert coverage(ENOUGH_SEEDS - 1) < LEVEL == coverage(ENOUGH_SEEDS)


def test_students_interval_is_scipys():
    values = [1.0, 2.5, 2.0]
    assert student(values) == pytest.approx(stats.t.interval(0.95, 2, np.mean(values), stats.sem(values)))


@pytest.mark.parametrize(
    ("values", "below", "verdict", "leans"),
    [
        ([-1.0, -1.1, -0.9, -1.2, -0.8, -1.0], True, HOLDS, ""),
        ([-1.0, -1.1, -0.9, -1.2, -0.8, -1.0], False, FAILS, ""),
        ([1.0, 1.1, 0.9, 1.2, 0.8, 1.0], True, FAILS, ""),
        ([-1.0, 1.1, -0.9, 1.2, -0.8, 1.0], True, INCONCLUSIVE, ""),
        # Two seeds: 12.7 standard errors must lie between the mean and the threshold.
        ([-1.00, -1.01], True, HOLDS, ""),
        ([-1.0, -2.0], True, INCONCLUSIVE, HOLDS),
        ([1.0, 2.0], True, INCONCLUSIVE, FAILS),
        ([1.0, -2.0], True, INCONCLUSIVE, ""),
        ([-1000.0], True, INCONCLUSIVE, ""),
        ([], True, NOT_TESTED, ""),
        ([math.nan, math.inf], True, NOT_TESTED, ""),
    ],
)
def test_a_verdict_by_the_values_of_the_seeds(values, below, verdict, leans):
    judged = judge(values, 0.0, below)
    assert (judged.verdict, judged.leans) == (verdict, leans) and judged.why
    if len(values) == 1:
        assert math.isnan(judged.low) and judged.value == values[0]


def test_five_seeds_that_the_bootstrap_alone_would_pass_need_student_too():
    values = [-0.1, -0.1, -0.1, -0.1, -3.0]
    assert bootstrap(values)[1] < 0 < student(values)[1]
    assert (judge(values, 0.0).verdict, judge(values, 0.0).leans) == (INCONCLUSIVE, HOLDS)
    assert judge([*values, -0.1], 0.0).verdict == HOLDS


def test_verdicts_together():
    assert combine([HOLDS, HOLDS, NOT_TESTED]) == HOLDS
    assert combine([HOLDS, INCONCLUSIVE]) == INCONCLUSIVE
    assert combine([HOLDS, INCONCLUSIVE, FAILS]) == FAILS
    assert combine([NOT_TESTED]) == combine([]) == NOT_TESTED
    assert combine_leaning([(HOLDS, ""), (INCONCLUSIVE, HOLDS)]) == HOLDS
    assert combine_leaning([(HOLDS, ""), (INCONCLUSIVE, FAILS)]) == FAILS
    assert combine_leaning([(INCONCLUSIVE, ""), (INCONCLUSIVE, HOLDS)]) == ""
    assert combine_leaning([(FAILS, ""), (INCONCLUSIVE, HOLDS)]) == ""


def test_a_finding_has_a_known_verdict_and_a_reason():
    with pytest.raises(ValueError, match="a verdict is one of holds, fails"):
        Finding(1, "d", "trained", "", "true", "because")
    with pytest.raises(ValueError, match="needs a reason"):
        Finding(1, "d", "trained", "", HOLDS, "")


def test_the_relative_difference():
    found = relative_difference(np.array([1.0, 2.0, 0.0, -1.0, 1.0]), np.array([2.0, 1.0, 0.0, 1.0, 1.0]))
    assert found == pytest.approx([-2 / 3, 2 / 3, 0, -2, 0])


def test_evaluations_at_equal_error_are_those_of_a_power_law():
    nfe = np.array([100.0, 4.0, 8.0, 20.0])  # in no order
    found = evaluations_at(5 * nfe**-4, nfe, 5 * np.array([10.0, 50.0]) ** -4)
    assert found == pytest.approx([10, 50])
    outside = evaluations_at(5 * nfe**-4, nfe, 5 * np.array([3.0, 101.0]) ** -4)
    assert np.isnan(outside).all()


def test_a_point_worse_than_a_cheaper_one_is_passed_over():
    nfe, errors = np.array([4.0, 8.0, 16.0, 32.0]), np.array([1.0, 0.1, 0.5, 0.001])
    assert evaluations_at(errors, nfe, np.array([0.1, 0.5]))[0] == pytest.approx(8)
    assert evaluations_at(errors, nfe, np.array([0.5]))[0] < 8


def test_the_half_time():
    times = np.array([0.0, 0.5, 1.0])
    assert half_time(times, np.array([[0.0, 0.4, 0.8], [0.6, 0.7, 1.0], [0.0, 0.5, 1.0]])) == pytest.approx([0.625, 0.0, 0.5])
    assert np.isnan(half_time(times, np.array([0.0, 0.1, 0.2]))).all()


# 1: the lowest


def table1_rows(ours: float = -1.0, seeds: Any = SEEDS, lost: str = "", dataset: str = "d") -> list[Row]:
    rows = []
    for method, seed in itertools.product(FIVE, seeds):
        shift = ours if method == "fm_ot" else 0.1 * FIVE.index(method)
        for metric in ("nll", "frechet", "nfe"):
            value = None if method == lost else 10 + shift + 0.05 * seed + 0.01 * wobble(seed, method)
            rows.append(row(method, seed, metric, value, dataset, features="classifier"))
    return rows


def of_claim(test: Any, about: str = "trained", **sources: pd.DataFrame) -> list[Finding]:
    return [line for line in test(sources) if line.about == about]


def test_the_lowest_of_all_holds_and_the_closest_is_shown():
    lines = of_claim(claims.lowest, records=as_frame(table1_rows()))
    assert [line.part for line in lines] == ["NLL", "Frechet distance", "NFE"]
    for line in lines:
        assert (line.verdict, line.against, line.seeds) == (HOLDS, "ddpm", 6)
        # Paired by seed, the part that seeds share is gone: the interval is as narrow as the wobble.
        assert line.value == pytest.approx(-1, abs=0.02) and line.high - line.low < 0.03


def test_one_other_that_is_lower_makes_it_fail():
    lines = of_claim(claims.lowest, records=as_frame(table1_rows(ours=0.05)))
    assert {line.verdict for line in lines} == {FAILS} and {line.against for line in lines} == {"ddpm"}
    assert all("higher than DDPM" in line.why for line in lines)


def test_one_seed_and_two_far_seeds():
    one = of_claim(claims.lowest, records=as_frame(table1_rows(seeds=[0])))
    assert {line.verdict for line in one} == {INCONCLUSIVE} and all("one seed has no interval" in line.why for line in one)
    two = of_claim(claims.lowest, records=as_frame(table1_rows(seeds=[0, 1])))
    assert {line.verdict for line in two} == {HOLDS} and {line.coverage for line in two} == {0.5}


def test_a_method_that_is_missing_or_diverged_leaves_it_open():
    lines = of_claim(claims.lowest, records=as_frame(table1_rows(lost="scoreflow")))
    assert {line.verdict for line in lines} == {INCONCLUSIVE}
    assert all("Not compared with ScoreFlow: diverged: the loss became nan" in line.why for line in lines)
    some = as_frame([r for r in table1_rows() if r.method in ("ddpm", "fm_ot")])
    assert {line.verdict for line in of_claim(claims.lowest, records=some)} == {INCONCLUSIVE}
    # One that is lower settles it, whoever is missing.
    some = as_frame([r for r in table1_rows(ours=1.0) if r.method in ("ddpm", "fm_ot")])
    assert {line.verdict for line in of_claim(claims.lowest, records=some)} == {FAILS}
    alone = as_frame([r for r in table1_rows() if r.method == "fm_ot"])
    assert {line.verdict for line in of_claim(claims.lowest, records=alone)} == {NOT_TESTED}
    none = as_frame([r for r in table1_rows() if r.method == "ddpm"])
    assert {line.verdict for line in of_claim(claims.lowest, records=none)} == {NOT_TESTED}
    lost = of_claim(claims.lowest, records=as_frame(table1_rows(lost="fm_ot")))
    assert {line.verdict for line in lost} == {INCONCLUSIVE} and "FM, OT path: diverged" in lost[0].why
    rows = [row(r.method, 0, r.metric, None) if (r.method, r.seed) == ("ddpm", 0) else r for r in table1_rows()]
    partly = of_claim(claims.lowest, records=as_frame(rows))
    assert {(line.verdict, line.against, line.seeds) for line in partly} == {(HOLDS, "ddpm", 5)}
    assert all("Over the seeds that went well: DDPM lost 1 of 6 seeds, diverged" in line.why for line in partly)


def diverged(rows: list[Row], method: str, seeds: Any) -> list[Row]:
    bad = {"value": None, "status": "diverged", "reason": "the loss became nan"}
    return [replace(r, **bad) if r.method == method and r.seed in seeds else r for r in rows]


def test_the_survivors_of_ours_do_not_make_it_hold_but_may_make_it_fail():
    rows = diverged(table1_rows(seeds=range(10)), "fm_ot", range(4))
    lines = of_claim(claims.lowest, records=as_frame(rows))
    assert {(line.verdict, line.leans, line.seeds) for line in lines} == {(INCONCLUSIVE, "", 6)}
    assert all("FM, OT path lost 4 of 10 seeds, diverged: the loss became nan" in line.why for line in lines)
    # The same where the seeds lost have no rows of the metric, and only one of the training.
    gone = [r for r in table1_rows(seeds=range(10)) if r.method != "fm_ot" or r.seed >= 4]
    gone += [row("fm_ot", seed, "final_loss", None) for seed in range(4)]
    lines = of_claim(claims.lowest, records=as_frame(gone))
    assert {line.verdict for line in lines} == {INCONCLUSIVE} and all("lost 4 of 10 seeds" in line.why for line in lines)
    rows = diverged(table1_rows(ours=1.0, seeds=range(10)), "fm_ot", range(4))
    assert {line.verdict for line in of_claim(claims.lowest, records=as_frame(rows))} == {FAILS}


def test_a_seed_that_only_the_others_were_run_with_is_none_that_ours_lost():
    rows = [r for r in table1_rows(seeds=range(7)) if r.method != "fm_ot" or r.seed < 6]
    assert {(line.verdict, line.seeds) for line in of_claim(claims.lowest, records=as_frame(rows))} == {(HOLDS, 6)}


def test_the_papers_differences_stand_beside_ours():
    rows = as_frame(table1_rows(dataset="cifar10"))
    lines = of_claim(claims.lowest, records=rows.assign(features="pytorch-fid InceptionV3(2048)"))
    assert [line.paper for line in lines] == [pytest.approx(v) for v in (2.99 - 3.09, 6.35 - 7.48, 142 - 183)]
    assert [line.paper is None for line in of_claim(claims.lowest, records=rows)] == [False, True, False]
    assert {line.paper for line in of_claim(claims.lowest, records=as_frame(table1_rows()))} == {None}


@pytest.mark.parametrize(("features", "name"), [("pytorch-fid InceptionV3(2048)", "FID"), ("inception-like", "Frechet distance")])
def test_only_inceptions_distance_is_called_fid(features, name):
    rows = as_frame(table1_rows()).assign(features=features)
    assert [line.part for line in of_claim(claims.lowest, records=rows)][1] == name


# 2: fewer evaluations


def sweep_rows(ratio: float, seeds: Any = SEEDS, floor: float = 1e-12, others: tuple[str, ...] = FIVE[:4]) -> list[Row]:
    """Second order: an error of (c / NFE)^4, so that c is the ratio of NFE at equal error."""
    rows = []
    for method, seed in itertools.product((*others, "fm_ot"), seeds):
        c = (ratio if method == "fm_ot" else 1.0) * 10 * math.exp(0.02 * wobble(seed, method))
        for nfe in (4, 8, 20, 40, 100):
            rows.append(row(method, seed, "mse", (c / nfe) ** 4, solver="midpoint", nfe=float(nfe), stage="sweep"))
            rows.append(row(method, seed, "mse", 1.0, solver="euler", nfe=float(nfe), stage="sweep"))
        rows.append(row(method, seed, "reference_mse", floor, solver="midpoint at 1000 NFE", stage="sweep"))
    return rows


@pytest.mark.parametrize(("ratio", "verdict"), [(0.6, HOLDS), (0.4, HOLDS), (0.9, FAILS), (1.2, FAILS), (0.775, INCONCLUSIVE)])
def test_the_ratio_of_evaluations_at_equal_error(ratio, verdict):
    lines = of_claim(claims.fewer_evaluations, records=as_frame(sweep_rows(ratio)))
    assert [line.against for line in lines] == list(FIVE[:4]) and {line.paper for line in lines} == {0.6}
    for line in lines:
        assert line.value == pytest.approx(ratio, rel=0.03) and line.low < line.value < line.high
    assert combine(line.verdict for line in lines) == verdict


def test_errors_near_the_references_own_are_left_out():
    """With a floor of the reference, only errors above 100 times it are compared."""
    (line,) = of_claim(claims.fewer_evaluations, records=as_frame(sweep_rows(0.5, others=("ddpm",), floor=1e-5)))
    assert line.verdict == HOLDS and "at errors from 0.001 to" in line.why
    (line,) = of_claim(claims.fewer_evaluations, records=as_frame(sweep_rows(0.5, others=("ddpm",), floor=0.1)))
    assert line.verdict == NOT_TESTED and "no range of errors is common" in line.why


def test_an_error_that_first_rises_with_the_evaluations_drops_no_seed():
    """Every curve starts at the envelope's first point, whatever worse comes after it."""
    rows = [
        replace(r, value=50 * r.value) if (r.metric, r.solver, r.nfe) == ("mse", "midpoint", 8.0) else r for r in sweep_rows(0.5)
    ]
    by_nfe = {r.nfe: r.value for r in rows if (r.method, r.seed, r.metric, r.solver) == ("ddpm", 0, "mse", "midpoint")}
    assert by_nfe[8.0] > by_nfe[4.0] > by_nfe[20.0]
    lines = of_claim(claims.fewer_evaluations, records=as_frame(rows))
    assert {(line.verdict, line.seeds) for line in lines} == {(HOLDS, 6)}


def test_a_seed_without_a_curve_is_named():
    rows = diverged(sweep_rows(0.5, others=("ddpm",)), "ddpm", [3])
    (line,) = of_claim(claims.fewer_evaluations, records=as_frame(rows))
    assert (line.verdict, line.seeds) == (HOLDS, 5) and "DDPM has no curve of seed 3" in line.why
    rows = diverged(sweep_rows(0.5, others=("ddpm",)), "fm_ot", [3])
    (line,) = of_claim(claims.fewer_evaluations, records=as_frame(rows))
    assert (line.verdict, line.leans) == (INCONCLUSIVE, "") and "FM, OT path has no curve of seed 3" in line.why


def test_who_diverged_on_a_whole_data_set_is_not_passed_over():
    """Good rows on d do not make it hold where FM-OT, or a rival, was lost on all of e."""
    rows = sweep_rows(0.5, others=("ddpm", "scoreflow"))
    for lost in ("fm_ot", "ddpm"):
        more = diverged([replace(r, dataset="e") for r in rows], lost, SEEDS)
        found = claims.fewer_evaluations({"records": as_frame(rows + more)})
        assert {(line.dataset, line.against, line.verdict) for line in found if lost in ("fm_ot", line.against)} >= {
            ("e", "ddpm", INCONCLUSIVE)
        }
        assert overall(CLAIMS[1], found).verdict == INCONCLUSIVE
        bad = next(line for line in found if (line.dataset, line.against) == ("e", "ddpm"))
        assert "no seed has both" in bad.why and "lost 6 of 6 seeds, diverged: the loss became nan" in bad.why


def test_a_sweep_without_the_midpoint_rule():
    rows = as_frame([r for r in sweep_rows(0.6) if r.solver == "euler"])
    (line,) = of_claim(claims.fewer_evaluations, records=rows)
    assert line.verdict == NOT_TESTED and "midpoint" in line.why


def test_oracles_have_lines_of_their_own_that_do_not_count():
    rows = sweep_rows(0.6)
    for seed in SEEDS:
        for nfe in (4, 8, 20, 40, 100):
            for method, c in (("oracle_ot", 20.0), ("oracle_vp", 10.0)):
                noisy = c * math.exp(0.02 * wobble(seed, method))
                rows.append(row(method, seed, "mse", (noisy / nfe) ** 4, solver="midpoint", nfe=float(nfe)))
    sources = {"records": as_frame(rows)}
    (oracle,) = of_claim(claims.fewer_evaluations, "oracle", **sources)
    assert (oracle.verdict, oracle.against, oracle.paper) == (FAILS, "oracle_vp", None)
    assert overall(CLAIMS[1], claims.fewer_evaluations(sources)).verdict == HOLDS


# 3: every budget


def budget_rows(factor: dict[float, float], others: tuple[str, ...] = FIVE[:4], solver: str = "euler") -> list[Row]:
    """FM-OT's distance is so many times the others' at each NFE."""
    rows = []
    for method, seed, (nfe, ours) in itertools.product((*others, "fm_ot"), SEEDS, factor.items()):
        value = (ours if method == "fm_ot" else 1.0) * 100 / nfe * (1 + 0.02 * wobble(seed, method))
        rows.append(row(method, seed, "frechet", value, solver=solver, nfe=nfe, features="c"))
    return rows


def test_best_at_every_budget():
    everywhere = dict.fromkeys(map(float, range(4, 44, 4)), 0.5)
    (line,) = of_claim(claims.best_at_every_budget, few_step=as_frame(budget_rows(everywhere)))
    assert line.verdict == HOLDS and line.value == pytest.approx(-2 / 3, abs=0.05) and "lowest mean at 10 of 10" in line.why
    # Two of ten decidedly lost: not at every budget, however good the rest.
    (line,) = of_claim(claims.best_at_every_budget, few_step=as_frame(budget_rows(everywhere | {4.0: 2.0, 8.0: 2.0})))
    assert line.verdict == FAILS and "decidedly lost at NFE 4, 8" in line.why and line.value < 0
    # Two of ten in the others' midst: neither won nor lost.
    (line,) = of_claim(claims.best_at_every_budget, few_step=as_frame(budget_rows(everywhere | {4.0: 1.0, 8.0: 1.0})))
    assert line.verdict in (INCONCLUSIVE, FAILS) and "lowest mean at 8 of 10" in line.why
    (line,) = of_claim(claims.best_at_every_budget, few_step=as_frame(budget_rows(everywhere, others=("ddpm",))))
    assert line.verdict == INCONCLUSIVE and "Not compared with Score matching" in line.why


def test_a_budget_at_which_samples_diverge_is_lost_and_a_rival_that_diverges_is_none():
    rows = budget_rows(dict.fromkeys((4.0, 8.0), 0.5))

    def without(method: str) -> pd.DataFrame:
        return as_frame(
            [replace(r, value=None, status="diverged", reason="x") if (r.method, r.nfe) == (method, 4.0) else r for r in rows]
        )

    (line,) = of_claim(claims.best_at_every_budget, few_step=without("fm_ot"))
    assert line.verdict == FAILS and "decidedly lost at NFE 4" in line.why
    (line,) = of_claim(claims.best_at_every_budget, few_step=without("ddpm"))
    assert line.verdict == HOLDS and "lowest mean at 2 of 2" in line.why


def test_a_better_rival_that_lacks_one_seed_stays_a_rival():
    rows = budget_rows(dict.fromkeys((4.0, 8.0), 0.5))
    better = [replace(r, value=r.value * 0.1) if r.method == "ddpm" else r for r in rows]
    (line,) = of_claim(claims.best_at_every_budget, few_step=as_frame(diverged(better, "ddpm", [2])))
    assert line.verdict == FAILS and "decidedly lost at NFE 4, 8" in line.why and line.value > 1
    assert "DDPM 1 of 6 at 4, 1 of 6 at 8 NFE" in line.why


def test_seeds_of_ours_that_are_lost_keep_every_budget_from_holding():
    rows = budget_rows(dict.fromkeys((4.0, 8.0), 0.5))
    (line,) = of_claim(claims.best_at_every_budget, few_step=as_frame(diverged(rows, "fm_ot", [2])))
    assert (line.verdict, line.leans, line.seeds) == (INCONCLUSIVE, "", 5)
    assert "lowest mean at 2 of 2" in line.why and "FM, OT path 1 of 6 at 4, 1 of 6 at 8 NFE" in line.why
    (line,) = of_claim(claims.best_at_every_budget, few_step=as_frame(diverged(rows, "fm_ot", SEEDS)))
    assert line.verdict == INCONCLUSIVE and "one side of the comparison has no numbers" in line.why
    # After a training that diverged its budget is skipped, which is no decision of anybody's either.
    skipped = [
        replace(r, value=None, status="skipped", reason="training diverged: x") if r.method == "fm_ot" else r for r in rows
    ]
    (line,) = of_claim(claims.best_at_every_budget, few_step=as_frame(skipped))
    assert line.verdict == INCONCLUSIVE and "FM, OT path lost 6 of 6 seeds, skipped: training diverged" in line.why


def test_a_merge_that_brings_the_others_one_seed_more_changes_nothing():
    rows = budget_rows(dict.fromkeys((4.0, 8.0), 0.5))
    more = [replace(r, seed=99) for r in rows if r.seed == 0 and r.method != "fm_ot"]
    (before,), (after,) = (of_claim(claims.best_at_every_budget, few_step=as_frame(r)) for r in (rows, rows + more))
    assert before == after and after.verdict == HOLDS and after.seeds == 6


def test_a_budget_that_ours_was_not_run_at_leaves_it_open():
    rows = [r for r in budget_rows(dict.fromkeys((4.0, 8.0), 0.5)) if r.method != "fm_ot" or r.nfe == 8.0]
    (line,) = of_claim(claims.best_at_every_budget, few_step=as_frame(rows))
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

    (line,) = of_claim(claims.best_at_every_budget, few_step=as_frame(energy_rows(distance)))
    assert line.value == pytest.approx(0.1 / 1.02 / 3, abs=1e-3) and line.unit == "of the mean at NFE 4"
    assert line.verdict == FAILS


def test_every_solver_is_a_line_and_the_adaptive_one_is_none():
    rows = budget_rows({4.0: 0.5}) + budget_rows({4.0: 0.5}, solver="midpoint/karras")
    lines = of_claim(
        claims.best_at_every_budget, few_step=as_frame(rows + [replace(r, solver="dopri5", nfe=0.0, value=9.0) for r in rows])
    )
    assert [line.part for line in lines] == ["euler, Frechet distance", "midpoint/karras, Frechet distance"]
    adaptive = as_frame(budget_rows({8.0: 1.0}, solver="dopri5"))
    assert [line.verdict for line in claims.best_at_every_budget({"few_step": adaptive})] == [NOT_TESTED]


# 4, 5: along training


def along_rows(metric: str, curve: Any, seeds: Any = SEEDS, methods: tuple[str, ...] = FIVE) -> list[Row]:
    """``curve(method, k)`` at snapshots k = 1 .. 5, with a per cent of spread over seeds."""
    return [
        row(m, s, metric, curve(m, k) * (1 + 0.01 * wobble(s, m)), step=1000 * k, features="c", stage="learning_curve")
        for m, s, k in itertools.product(methods, seeds, range(1, 6))
    ]


def test_faster_and_further():
    def halved(method: str, k: int) -> float:
        return (0.5 if method == "fm_ot" else 1.0) * 10 / k

    lines = of_claim(claims.faster_and_further, learning_curve=as_frame(along_rows("frechet", halved)))
    assert [line.verdict for line in lines] == [HOLDS, HOLDS]
    assert [line.value for line in lines] == [pytest.approx(-2 / 3, abs=0.03)] * 2

    def slower_but_further(method: str, k: int) -> float:
        return 1.0 / k if method != "fm_ot" else 2.0 if k < 5 else 0.1

    faster, further = of_claim(claims.faster_and_further, learning_curve=as_frame(along_rows("frechet", slower_but_further)))
    assert (faster.verdict, further.verdict) == (FAILS, HOLDS)
    assert further.value == pytest.approx(-2 * (0.2 - 0.1) / (0.2 + 0.1), abs=0.03)


def test_the_survivors_along_training():
    rows = along_rows("frechet", lambda m, k: (0.5 if m == "fm_ot" else 1.0) * 10 / k, seeds=range(10))
    stopped = [r for r in rows if r.method != "fm_ot" or r.seed >= 4 or r.step < 2000]
    stopped += [row("fm_ot", s, "frechet", None, step=1500, features="c", stage="learning_curve") for s in range(4)]
    lines = of_claim(claims.faster_and_further, learning_curve=as_frame(stopped))
    assert {(line.verdict, line.leans) for line in lines} == {(INCONCLUSIVE, "")}
    assert all("FM, OT path lost 4 of 10 seeds" in line.why for line in lines)


def test_the_last_snapshot_before_a_training_stopped_is_not_its_end():
    """FM-OT's seeds 0 to 3 stop after two snapshots, which are bad: over the seeds that went well they are not."""

    def stopped(method: str, seeds: Any) -> list[Row]:
        rows = along_rows("frechet", lambda m, k: (0.5 if m == "fm_ot" else 1.0) * 10 / k, seeds=range(10))
        kept = [r for r in rows if r.method != method or r.seed not in seeds or r.step <= 2000]
        worse = [replace(r, value=r.value * 100) if r.method == method and r.seed in seeds else r for r in kept]
        return worse + [row(method, s, "frechet", None, step=2500, features="c", stage="learning_curve") for s in seeds]

    lines = of_claim(claims.faster_and_further, learning_curve=as_frame(stopped("fm_ot", range(4))))
    assert {(line.verdict, line.seeds) for line in lines} == {(INCONCLUSIVE, 6)} and all(line.value < -0.6 for line in lines)
    lines = of_claim(claims.faster_and_further, learning_curve=as_frame(stopped("ddpm", range(10))))
    assert {line.verdict for line in lines} == {INCONCLUSIVE}
    assert all("Not compared with DDPM: diverged: the loss became nan" in line.why for line in lines)


def test_an_end_about_zero_is_compared_over_the_beginning():
    """Both come down to noise about 0, of which a relative difference would be -2 at the end."""

    def curve(method: str, k: int) -> float:
        return (1.0 if method == "fm_ot" else 3.0) if k == 1 else -1e-4 if method == "fm_ot" else 1e-4

    faster, further = of_claim(claims.faster_and_further, learning_curve=as_frame(along_rows("energy_distance", curve)))
    assert further.value == pytest.approx(-1e-4, rel=0.05) and further.unit == "of the mean of both at the first"
    assert faster.value == pytest.approx(-1 / 8, rel=0.05)  # a triangle of height -1 over the first of four intervals


def test_the_mean_over_iterations_is_weighted_by_iterations():
    rows = [
        row(m, s, "frechet", v * (1 + 1e-3 * wobble(s, m)), step=step)
        for s in SEEDS
        for m in ("ddpm", "fm_ot")
        for step, v in ((0, 1.0), (10, 3.0 if m == "fm_ot" else 1.0), (100, 1.0))
    ]
    faster, _ = of_claim(claims.faster_and_further, learning_curve=as_frame(rows))
    assert faster.value == pytest.approx(0.5, abs=0.01)  # a triangle of height 1 over the whole


@pytest.mark.parametrize(
    ("fm", "score", "verdicts"),
    [
        (1.05, 3.0, [HOLDS, HOLDS, HOLDS, HOLDS, HOLDS]),
        (2.0, 1.05, [FAILS, FAILS, FAILS, FAILS, FAILS]),
        (1.05, 1.4, [HOLDS, HOLDS, FAILS, HOLDS, HOLDS]),
    ],
)
def test_the_cost_along_training(fm, score, verdicts):
    def nfe(method: str, k: int) -> float:
        return 100 * (score if method == "score_matching" else fm) ** ((k - 1) / 4)

    rows = [
        row(m, s, "nfe", nfe(m, k) * (1 + 0.002 * wobble(s + k, m)), step=k)
        for m, s, k in itertools.product(FIVE, SEEDS, range(1, 6))
    ]
    lines = of_claim(claims.steady_cost, learning_curve=as_frame(rows))
    assert [line.verdict for line in lines] == verdicts
    assert lines[0].value == pytest.approx(fm, rel=0.01) and lines[2].value == pytest.approx(score, rel=0.01)
    assert lines[3].value == pytest.approx(fm / score, rel=0.02)


def test_one_snapshot_says_nothing_of_a_change():
    rows = [row(m, s, "nfe", 100.0, step=1) for m, s in itertools.product(FIVE, SEEDS)]
    assert {line.verdict for line in claims.steady_cost({"learning_curve": as_frame(rows)})} == {NOT_TESTED}


def nfe_rows(methods: tuple[str, ...] = FIVE) -> list[Row]:
    """Flow matching's cost stays, score matching's doubles twice."""
    return [
        row(m, s, "nfe", 100 * (4.0 if m == "score_matching" else 1.05) ** ((k - 1) / 4) * (1 + 0.002 * wobble(s + k, m)), step=k)
        for m, s, k in itertools.product(methods, SEEDS, range(1, 6))
    ]


def test_half_of_a_claim_on_a_data_set_does_not_make_it_hold():
    whole = overall(CLAIMS[4], claims.steady_cost({"learning_curve": as_frame(nfe_rows())}))
    assert whole.verdict == HOLDS
    half = overall(CLAIMS[4], claims.steady_cost({"learning_curve": as_frame(nfe_rows(("fm_diffusion", "fm_ot")))}))
    assert (half.verdict, half.leans) == (INCONCLUSIVE, "") and "tested in part only on d" in half.why


def test_a_training_that_stopped_was_not_steady_whatever_it_cost_before():
    for lost, seeds, verdict in (("fm_ot", range(4), INCONCLUSIVE), ("score_matching", range(4), HOLDS)):
        rows = [r for r in nfe_rows() if r.method != lost or r.seed not in seeds or r.step < 3]
        rows += [row(lost, s, "nfe", None, step=3) for s in seeds]
        lines = claims.steady_cost({"learning_curve": as_frame(rows)})
        own = [line for line in lines if lost in (line.against, *(m for m in FIVE if line.part.startswith(label(m))))]
        assert own and all(f"{label(lost)} lost 4 of 6 seeds, diverged" in line.why and line.seeds == 2 for line in own)
        assert overall(CLAIMS[4], lines).verdict == verdict
    gone = [r for r in nfe_rows() if r.method != "score_matching"] + [
        row("score_matching", s, "nfe", None, step=1) for s in SEEDS
    ]
    lines = claims.steady_cost({"learning_curve": as_frame(gone)})
    assert [line.verdict for line in lines] == [HOLDS, HOLDS, *[INCONCLUSIVE] * 3]


# 6: stability


def final_rows(spread: dict[str, float], lost: dict[str, int] | None = None, seeds: int = 8) -> list[Row]:
    rows = []
    for method, seed in itertools.product(("fm_diffusion", "score_matching"), range(seeds)):
        bad = seed < (lost or {}).get(method, 0)
        rows.append(row(method, seed, "final_loss", None if bad else 0.1))
        rows.append(row(method, seed, "frechet", None if bad else 10 + spread[method] * (-1) ** seed * (1 + seed / 10)))
    return rows


def test_the_spread_over_seeds_is_judged_by_normal_theory():
    rows = as_frame(final_rows({"fm_diffusion": 0.1, "score_matching": 2.0}))
    spread = of_claim(claims.stable_training, records=rows)[-1]
    assert (spread.verdict, spread.value) == (HOLDS, pytest.approx(0.05))
    bound = math.sqrt(stats.f.ppf(0.975, 7, 7))
    assert (spread.low, spread.high) == (pytest.approx(0.05 / bound), pytest.approx(0.05 * bound))
    rows = as_frame(final_rows({"fm_diffusion": 2.0, "score_matching": 0.1}))
    assert of_claim(claims.stable_training, records=rows)[-1].verdict == FAILS
    rows = as_frame(final_rows({"fm_diffusion": 0.1, "score_matching": 0.3}, seeds=2))
    assert of_claim(claims.stable_training, records=rows)[-1].verdict == INCONCLUSIVE


def test_trainings_lost_count_where_they_differ():
    same = {"fm_diffusion": 1.0, "score_matching": 1.0}
    lines = of_claim(claims.stable_training, records=as_frame(final_rows(same, {"score_matching": 8})))
    assert (lines[0].part, lines[0].verdict, lines[0].value) == ("trainings lost", HOLDS, -8)
    lines = of_claim(claims.stable_training, records=as_frame(final_rows(same, {"fm_diffusion": 8})))
    assert (lines[0].verdict, lines[0].value) == (FAILS, 8)
    lines = of_claim(claims.stable_training, records=as_frame(final_rows(same, {"score_matching": 1})))
    assert lines[0].verdict == INCONCLUSIVE  # one of eight may be chance
    lines = of_claim(claims.stable_training, records=as_frame(final_rows(same, {"score_matching": 4})))
    assert lines[0].verdict == INCONCLUSIVE and "p = 0.077" in lines[0].why  # four of eight, too, more often than one in twenty
    lines = of_claim(claims.stable_training, records=as_frame(final_rows(same, {"score_matching": 1, "fm_diffusion": 1})))
    assert "trainings lost" not in [line.part for line in lines]


def test_steps_back_along_training():
    def jumpy(method: str, k: int) -> float:
        return 10 / k + (5 if method == "score_matching" and k == 4 else 0) + (0.1 if k == 5 and method == "fm_diffusion" else 0)

    sources = {"records": as_frame(final_rows({"fm_diffusion": 1.0, "score_matching": 1.0}))}
    jumps = as_frame(along_rows("frechet", jumpy))
    back = of_claim(claims.stable_training, learning_curve=jumps, **sources)[0]
    assert (back.part, back.verdict) == ("steps back along training", HOLDS)
    rise = jumpy("score_matching", 4) - jumpy("score_matching", 3)
    assert back.value == pytest.approx(-rise / 10, rel=0.01)  # both begin at 10
    smooth = as_frame(along_rows("frechet", lambda m, k: 10 / k))
    back = of_claim(claims.stable_training, learning_curve=smooth, **sources)[0]
    assert (back.verdict, back.why) == (INCONCLUSIVE, "neither ever rises")
    missing = of_claim(claims.stable_training, **sources)[0]
    assert missing.verdict == NOT_TESTED and "learning_curve.parquet" in missing.why


def test_noise_about_zero_is_no_step_back():
    """FM comes down to noise about 0 and score matching climbs far from it: over its own mean FM would climb the most."""

    def curve(method: str, k: int) -> float:
        return {"fm_diffusion": (0.1, 1e-4, -1e-4, 1e-4, -1e-4), "score_matching": (1, 0.5, 0.8, 0.5, 0.8)}[method][k - 1]

    rows = as_frame(along_rows("energy_distance", curve, methods=("fm_diffusion", "score_matching")))
    sources = {"records": as_frame(final_rows({"fm_diffusion": 1.0, "score_matching": 1.0}))}
    back = of_claim(claims.stable_training, learning_curve=rows, **sources)[0]
    assert (back.part, back.verdict) == ("steps back along training", HOLDS)
    assert back.value == pytest.approx((2e-4 - 0.6) / 0.55, rel=0.05)


def test_an_estimate_that_moves_below_zero_takes_no_step_back():
    """FM is at the floor from the start, where the unbiased estimate is noise; score matching falls towards it."""

    def curve(method: str, k: int) -> float:
        return {"fm_diffusion": (-3e-4, -1e-4, -4e-4, -1e-4, -3e-4), "score_matching": (5e-4, 4e-4, 3e-4, 2e-4, 1e-4)}[method][
            k - 1
        ]

    rows = as_frame(along_rows("energy_distance", curve, methods=("fm_diffusion", "score_matching")))
    sources = {"records": as_frame(final_rows({"fm_diffusion": 1.0, "score_matching": 1.0}))}
    back = of_claim(claims.stable_training, learning_curve=rows, **sources)[0]
    assert (back.verdict, back.value, back.why) == (INCONCLUSIVE, 0, "neither ever rises")


# 7: structure

CORNERS = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
SHARE = 0.86
"""The share of the corners in the state's variance at which half of the way is gone, as 2000 points have it."""


def states(half: dict[str, float], n: int = 400, swell: float = 1.0) -> pd.DataFrame:
    """x_t = w x1 + sqrt(1 - w^2) x0, x1 at four corners: the share w^2 of the data rises to SHARE at the time given."""
    rng = np.random.default_rng(0)
    x0, x1 = rng.standard_normal((n, 2)), CORNERS[rng.permutation(n) % 4]
    rows = []
    for method, middle in half.items():
        for t in np.linspace(0, 1, 21):
            share = t ** (math.log(SHARE) / math.log(middle))
            scale = 1 + (swell - 1) * (1 - t)
            for i, value in enumerate(scale * (math.sqrt(share) * x1 + math.sqrt(1 - share) * x0)):
                rows.append({"dataset": "d", "method": method, "seed": 0, "index": i, "values": value, "shape": [2], "t": t})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("ours", "leans"), [(0.4, HOLDS), (0.9, FAILS), (0.7, ""), (0.65, "")])
def test_when_half_of_the_way_is_gone(ours, leans):
    """States are of one seed, so that nothing is decided; the interval over samples leans."""
    later = dict.fromkeys(FIVE[:4], 0.8) | {"score_matching": 0.7}
    (line,) = of_claim(claims.structure_earlier, trajectory=states(later | {"fm_ot": ours}))
    assert (line.verdict, line.leans, line.against, line.interval) == (INCONCLUSIVE, leans, "score_matching", "samples")
    assert "over samples of one seed" in line.why
    assert line.value == pytest.approx(ours - 0.7, abs=0.03) and line.low <= line.value <= line.high
    said = re.search(r"FM, OT path at t = ([\d.]+)", line.why)
    assert said is not None and float(said[1]) == pytest.approx(ours, abs=0.05)


def test_a_coarse_grid_of_states_does_not_turn_a_small_gain_into_a_loss():
    """States at 0, 0.25, .. 1: the margin is 0.125, and a gain of about 0.1 is within it, but no failure."""
    shown = states({"fm_ot": 0.6, "ddpm": 0.7})
    (line,) = of_claim(claims.structure_earlier, trajectory=shown[shown.t.isin([0, 0.25, 0.5, 0.75, 1])])
    assert -0.125 < line.low < line.high < 0 and "against a margin of 0.12" in line.why
    assert (line.verdict, line.leans) == (INCONCLUSIVE, "")


def test_the_scale_of_the_noise_is_no_structure():
    plain, swollen = (states({"fm_ot": 0.4, "ddpm": 0.8}, n=100, swell=swell) for swell in (1.0, 30.0))
    (one,), (other,) = (claims.structure_earlier({"trajectory": frame}) for frame in (plain, swollen))
    assert one.value == pytest.approx(other.value, abs=1e-9)


def test_a_flow_that_only_moves_its_noise_is_half_way_when_its_distribution_is():
    """Points that go straight from x0 to a place near by: every state knows its end, and no structure is there before."""
    rng = np.random.default_rng(1)
    x0 = rng.standard_normal((400, 2))
    corner = np.where(x0 > 0, 1.0, -1.0)
    rows = []
    for t in np.linspace(0, 1, 11):
        for method, share in (("fm_ot", t), ("ddpm", t**6)):
            for i, value in enumerate((1 - share) * x0 + share * corner):
                rows.append({"dataset": "d", "method": method, "seed": 0, "index": i, "values": value, "shape": [2], "t": t})
    (line,) = claims.structure_earlier({"trajectory": pd.DataFrame(rows)})
    assert line.value < -0.3 and "FM, OT path at t = 0.0" not in line.why


def test_the_energy_distance_of_the_way_is_the_one_by_hand():
    x, y = np.random.default_rng(2).standard_normal((2, 40, 3))
    pairs = [(i, j) for i in range(40) for j in range(40) if i != j]
    by_hand = np.mean([np.linalg.norm(x[i] - y[j]) for i, j in pairs])
    found = claims._mean_distances(x, y)
    assert found[0] == pytest.approx(by_hand)
    kept = [(i, j) for i, j in pairs if i >= 4 and j >= 4]  # without the first of ten groups
    assert found[1] == pytest.approx(np.mean([np.linalg.norm(x[i] - y[j]) for i, j in kept]))
    assert len(found) == 1 + claims.GROUPS


def test_the_jackknife_of_a_mean_is_students_interval():
    x = np.random.default_rng(3).standard_normal(10)
    without = [np.delete(x, i).mean() for i in range(10)]
    assert claims._jackknife(np.array([x.mean(), *without])) == pytest.approx(student(x.tolist()))


def test_what_was_trained_and_lost_has_no_states():
    lost = as_frame([row("fm_ot", 0, "final_loss", None), row("ddpm", 0, "final_loss", 0.1)])
    (line,) = of_claim(claims.structure_earlier, trajectory=states({"ddpm": 0.8}, n=30), records=lost)
    assert (
        line.verdict == INCONCLUSIVE and "no trajectory: FM, OT path lost 1 of 1 seeds, diverged: the loss became nan" in line.why
    )


def test_later_within_the_margin_is_a_failure():
    (line,) = of_claim(claims.structure_earlier, trajectory=states({"fm_ot": 0.63, "ddpm": 0.6}))
    assert 0 < line.low < line.value < claims.EARLIER and line.leans == FAILS


def test_states_of_one_path_or_of_too_few_times_or_samples():
    (line,) = of_claim(claims.structure_earlier, trajectory=states({"fm_ot": 0.5}, n=30))
    assert line.verdict == NOT_TESTED
    few = states({"fm_ot": 0.5, "ddpm": 0.8}, n=30)
    (line,) = of_claim(claims.structure_earlier, trajectory=few[few.t > 0.92])
    assert line.verdict == NOT_TESTED
    (line,) = of_claim(claims.structure_earlier, trajectory=few[few["index"] < 2 * claims.GROUPS - 1])
    assert line.verdict == NOT_TESTED
    lines = claims.structure_earlier({"trajectory": states({"oracle_ot": 0.4, "oracle_vp": 0.8}, n=200)})
    assert [(line.about, line.verdict, line.leans) for line in lines] == [
        ("trained", NOT_TESTED, ""),
        ("oracle", INCONCLUSIVE, HOLDS),
    ]


# 8, 9: from the definitions


def test_a_straight_line_at_even_speed_and_one_that_bends_or_hurries():
    t = np.linspace(0, 1, 21)

    def moves(x: Any, y: Any) -> pd.DataFrame:
        return pd.DataFrame({"path": "ot", "particle": 0, "t": t, "x": x, "y": y})

    straight, even = claims.straight_paths({"trajectories": moves(t, 2 * t)})
    assert (straight.verdict, even.verdict) == (HOLDS, HOLDS)
    straight, even = claims.straight_paths({"trajectories": moves(t, 4 * t * (1 - t))})
    assert (straight.verdict, even.verdict) == (FAILS, FAILS) and straight.value == pytest.approx(1)
    straight, even = claims.straight_paths({"trajectories": moves(t**2, t**2)})
    assert (straight.verdict, even.verdict) == (HOLDS, FAILS) and even.value == pytest.approx(0.95)


@pytest.mark.parametrize(("angle", "verdict"), [(0.0, HOLDS), (90.0, FAILS), (180.0, FAILS)])
def test_the_turn_of_an_arrow(angle, verdict):
    rows = [
        {"figure": "fig02", "panel": "OT path: conditional field", "t": k, "x": 0.0, "y": 0.0, "u": (1 + k) * u, "v": (1 + k) * v}
        for k, (u, v) in enumerate([(1.0, 0.0), (math.cos(math.radians(angle)), math.sin(math.radians(angle)))])
    ]
    (line,) = claims.straight_paths({"fields": pd.DataFrame(rows)})
    assert line.verdict == verdict and line.value == pytest.approx(angle)


@pytest.mark.parametrize(("difference", "verdict"), [(1e-14, HOLDS), (1e-6, FAILS)])
def test_the_probability_flow_to_rounding(difference, verdict):
    rows = [
        {"identity": "one point", "path": "vp", "t": t, "max_difference": d, "scale": 10.0, "n": 8}
        for t, d in ((0.1, 1e-15), (0.9, difference * 10))
    ]
    (line,) = claims.probability_flow({"identities": pd.DataFrame(rows)})
    assert line.verdict == verdict and line.value == pytest.approx(difference)


def test_what_the_theory_writes_bears_both_claims_out(theory):
    sources = read_sources(theory)
    lines = {line.claim: line for line in test_claims(sources) if line.about == "overall"}
    assert lines[8].verdict == lines[9].verdict == HOLDS
    assert {lines[k].verdict for k in (1, 2, 3, 4, 5, 6, 7, 10)} == {NOT_TESTED}
    assert {line.part for line in claims.probability_flow(sources)} == {
        "conditional field of one point",
        "marginal field of a mixture",
    }


# 10: draws


def draws_rows(fall: float, bias: float = 0.0, metric: str = "nll_averaged", dataset: str = "d") -> list[Row]:
    rows = []
    for method, seed, (i, k) in itertools.product(("ddpm", "fm_ot"), SEEDS, enumerate((1, 20, 50))):
        value = 3.0 - fall * i - bias * i + 0.001 * wobble(seed + i, method)
        rows.append(row(method, seed, metric, value, dataset, draws=k, probes=4, unit="bits/dim"))
        if metric == "nll_averaged":
            rows.append(row(method, seed, "nll_probe_bias", -bias * i, dataset, draws=k, probes=4))
    return rows


def test_nll_over_draws():
    (line,) = of_claim(claims.falls_with_draws, dequantisation=as_frame(draws_rows(0.1)))
    assert line.verdict == HOLDS and line.value == pytest.approx(-0.1, abs=0.002) and "4 of 4 steps" in line.why
    (line,) = of_claim(claims.falls_with_draws, dequantisation=as_frame(draws_rows(-0.1)))
    assert line.verdict == FAILS
    (line,) = of_claim(claims.falls_with_draws, dequantisation=as_frame(draws_rows(0.0)))
    assert line.verdict == INCONCLUSIVE


def test_nll_over_draws_of_the_seeds_that_all_methods_have():
    """DDPM's numbers lie far from FM-OT's in their falls: the mean of a seed is over both, or the seed is left out."""
    rows = [replace(r, value=3.0 + 5 * (r.value - 3.0)) if r.method == "ddpm" else r for r in draws_rows(0.1)]
    (line,) = of_claim(claims.falls_with_draws, dequantisation=as_frame(diverged(rows, "fm_ot", range(3))))
    assert line.seeds == 3 and line.value == pytest.approx(-0.3, abs=0.01)
    assert (line.verdict, line.leans) == (INCONCLUSIVE, "") and "FM, OT path lost 3 of 6 seeds, diverged" in line.why
    (line,) = of_claim(claims.falls_with_draws, dequantisation=as_frame(diverged(rows, "fm_ot", SEEDS)))
    assert line.verdict == INCONCLUSIVE and line.seeds == 6 and "lost 6 of 6" in line.why
    split = diverged(diverged(rows, "fm_ot", range(3)), "ddpm", range(3, 6))
    (line,) = of_claim(claims.falls_with_draws, dequantisation=as_frame(split))
    assert line.verdict == INCONCLUSIVE and "no seed has numbers of every method" in line.why


def test_the_smallest_fall_is_the_one_shown():
    rows = [
        replace(r, value=3.0 - {1: 0.0, 20: 0.5, 50: 0.6}[r.draws] + 0.001 * wobble(r.seed, r.method)) for r in draws_rows(0.1)
    ]
    rows = [r for r in rows if r.metric == "nll_averaged"]
    (line,) = of_claim(claims.falls_with_draws, dequantisation=as_frame(rows))
    assert line.value == pytest.approx(-0.1, abs=0.005) and "from K = 20 to 50, the smallest fall" in line.statistic


def test_a_fall_that_is_only_the_probes_noise_is_none():
    """All of the fall is bias: the averaged estimator, corrected, does not fall; the paper's, as it is, does, and it is said."""
    (line,) = of_claim(claims.falls_with_draws, dequantisation=as_frame(draws_rows(0.0, bias=0.1)))
    assert line.verdict == INCONCLUSIVE and abs(line.value) < 0.002
    rows = draws_rows(0.0, bias=0.1) + draws_rows(0.4, metric="nll_paper")
    averaged, papers = of_claim(claims.falls_with_draws, dequantisation=as_frame(rows))
    assert papers.verdict == HOLDS and "by about 0.8 at K = 50, which is no likelihood" in papers.why
    assert averaged.verdict == INCONCLUSIVE


def test_the_papers_falls_stand_beside_ours():
    (line,) = of_claim(claims.falls_with_draws, dequantisation=as_frame(draws_rows(0.1, dataset="cifar10")))
    printed = paper("table4").pivot_table(index=["dataset", "method"], columns="k", values="nll_bpd").loc["cifar10"]
    steps = {"K = 1 to 20": (printed[20] - printed[1]).mean(), "K = 20 to 50": (printed[50] - printed[20]).mean()}
    assert line.paper == pytest.approx(next(v for k, v in steps.items() if k in line.statistic))


# The whole


def test_the_ten_claims_are_numbered_documented_and_tested():
    assert [claim.number for claim in CLAIMS] == list(range(1, 11))
    for claim in CLAIMS:
        assert claim.title and claim.statement and claim.where and claim.how and claim.test.__doc__
        assert set(claim.needs) <= set(FILES)


def test_a_claim_whose_file_is_missing_is_not_tested_and_says_what_makes_it():
    lines = {line.claim: line for line in test_claims({"records": as_frame(table1_rows())}) if line.about == "overall"}
    assert lines[1].verdict == HOLDS
    for number, file in (
        (3, "few_step"),
        (4, "learning_curve"),
        (5, "learning_curve"),
        (7, "trajectory"),
        (9, "theory/identities"),
        (10, "dequantisation"),
    ):
        assert lines[number].verdict == NOT_TESTED
        assert f"`snakemake --cores all results/{file}.parquet` makes it" in lines[number].why


def test_half_of_what_a_claim_needs_is_not_enough_to_hold():
    t = np.linspace(0, 1, 5)
    rows = pd.DataFrame({"path": "ot", "particle": 0, "t": t, "x": t, "y": t})
    whole = next(line for line in test_claims({"trajectories": rows}) if line.claim == 8 and line.about == "overall")
    assert whole.verdict == INCONCLUSIVE and "theory/fields.parquet is not in these results" in whole.why


def test_a_failing_claim_is_shown_as_failing():
    lines = test_claims({"records": as_frame(table1_rows(ours=1.0))})
    text = markdown(lines)
    assert "| 1 | FM-OT has the lowest NLL, FID and NFE | Table 1 | **fails** | **fails** |" in text
    assert "## 1. FM-OT has the lowest NLL, FID and NFE: fails" in text
    assert r"\textbf{fails}" in latex(lines)


def test_the_table_is_tidy_and_the_page_and_the_latex_are_whole():
    lines = test_claims({"records": as_frame(table1_rows(seeds=[0, 1], dataset="a_b"))})
    tidy = frame(lines)
    assert list(tidy.claim.unique()) == list(range(1, 11)) and tidy.verdict.notna().all() and (tidy.why != "").all()
    assert (tidy[tidy.about == "overall"].claim.to_numpy() == np.arange(1, 11)).all()
    text = markdown(lines)
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(line.replace(r"\|", "").split("|")) for line in rows}) <= 1
    assert "With 2 seeds the interval is their range, which holds the true median with at most 50%" in text
    body = [line for line in latex(lines).splitlines() if line.endswith(r"\\")]
    assert len(body) == 11 and len({line.count("&") for line in body}) == 1
    assert r"a\_b" in latex(lines) and "60 \\%" in latex(lines)


def test_the_command_on_a_results_folder_gives_the_same_bytes_again(tmp_path):
    write_rows(tmp_path / "records.parquet", table1_rows() + sweep_rows(0.6))
    write_rows(tmp_path / "learning_curve.parquet", along_rows("frechet", lambda m, k: 1.0 / k))
    write_rows(tmp_path / "few_step.parquet", budget_rows({4.0: 0.5, 8.0: 0.5}))
    write_rows(tmp_path / "dequantisation.parquet", draws_rows(0.1))
    shown = states({"fm_ot": 0.4, "ddpm": 0.8}, n=30)
    plain = [{**r, "values": r["values"].tolist()} for r in shown.to_dict("records")]
    import pyarrow as pa

    write_table(tmp_path / "trajectory.parquet", table(plain, pa.schema([*PREVIEW, ("t", pa.float64())])))
    texts = []
    for name in ("one", "two"):
        out = tmp_path / name / "claims.csv"
        said = command("claims", "--results", tmp_path, "--out", out, "--progress", "lines")
        assert said.code == 0 and f"-> {out}, claims.md, .tex" in said.err
        texts.append([out.with_suffix(kind).read_bytes() for kind in (".csv", ".md", ".tex")])
    assert texts[0] == texts[1]
    with open(tmp_path / "one" / "claims.csv") as stream:
        whole = {r["claim"]: r["verdict"] for r in csv.DictReader(stream) if r["about"] == "overall"}
    assert whole["1"] == whole["2"] == whole["3"] == whole["10"] == HOLDS
    assert whole["4"] == INCONCLUSIVE and whole["8"] == whole["9"] == NOT_TESTED
    # Against DDPM alone, the earlier structure is not shown against all.
    assert whole["7"] == INCONCLUSIVE


def test_no_results_at_all(tmp_path):
    with pytest.raises(DataError, match="has none of records"):
        read_sources(tmp_path)
    (tmp_path / "learning_curve.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="not a readable parquet file"):
        read_sources(tmp_path)


def test_the_reference_run_is_judged_with_care():
    """Two seeds: what is far apart holds, what is not is inconclusive, and nothing fails that the table shows in favour."""
    lines = test_claims(read_sources(REFERENCE))
    nfe = next(line for line in lines if line.claim == 1 and line.dataset == "checkerboard" and line.part == "NFE")
    assert nfe.verdict == HOLDS and nfe.against == "scoreflow" and nfe.coverage == 0.5
    whole = {line.claim: line for line in lines if line.about == "overall"}
    assert whole[8].verdict == HOLDS
    assert whole[10].leans == HOLDS
    path = [line for line in lines if line.claim == 2 and line.about == "oracle"]
    assert all(0.4 < line.value < 0.8 for line in path)
