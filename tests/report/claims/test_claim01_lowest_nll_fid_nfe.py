"""Claim 1 on hand-made rows of Table 1."""

import pytest
from claim_rows import FIVE, as_frame, diverged, of_claim, row, table1_rows

from fmbench.report.claims.claim01_lowest_nll_fid_nfe import lowest, printed_difference
from fmbench.report.claims.evaluation import overall
from fmbench.report.claims.registry import CLAIMS
from fmbench.report.claims.rows import in_prose
from fmbench.report.claims.verdicts import FAILS, HOLDS, INCONCLUSIVE, NOT_TESTED


def test_the_claim_holds_for_the_lowest_against_each_other():
    lines = of_claim(lowest, records=as_frame(table1_rows()))
    assert [line.part for line in lines] == ["NLL"] * 4 + ["Frechet distance"] * 4 + ["NFE"] * 4
    for line in lines:
        assert (line.verdict, line.seeds, line.threshold, line.coverage) == (HOLDS, 6, 0.0, 0.95)
        # Paired by seed, the part that seeds share is gone: the interval is as narrow as the wobble.
        assert line.value == pytest.approx(-1 - 0.1 * FIVE.index(line.against), abs=0.02) and line.high - line.low < 0.03
        assert line.why.startswith(f"Lower than {in_prose(line.against)}: with 6 seeds the 95 % t interval is below 0")


def test_one_lower_method_makes_the_claim_fail():
    lines = of_claim(lowest, records=as_frame(table1_rows(ours=0.05)))
    assert {line.verdict for line in lines if line.against == "ddpm"} == {FAILS}
    assert {line.verdict for line in lines if line.against != "ddpm"} == {HOLDS}
    assert all("Higher than DDPM: with 6 seeds the 95 % t interval is above 0 (Holm" in line.why for line in lines[::4])
    assert overall(CLAIMS[0], lines).verdict == FAILS


def test_one_seed_is_inconclusive_and_two_seeds_far_from_zero_are_enough():
    one = of_claim(lowest, records=as_frame(table1_rows(seeds=[0])))
    assert {line.verdict for line in one} == {INCONCLUSIVE} and all("one seed gives no interval" in line.why for line in one)
    two = of_claim(lowest, records=as_frame(table1_rows(seeds=[0, 1])))
    assert {line.verdict for line in two} == {HOLDS} and {line.coverage for line in two} == {0.95}


@pytest.mark.parametrize("metric", ["frechet", "nfe", "nll"])
def test_the_spread_of_two_seeds_is_at_least_the_sampling_error(metric):
    """Errors of 0.3 and 0.4 make 0.5, and the interval of two seeds is wide. That of the NLL is of the shared test samples."""
    errors = [row(method, seed, f"{metric}_stderr", 0.4 if method == "fm_ot" else 0.3) for method in FIVE for seed in (0, 1)]
    lines = of_claim(lowest, records=as_frame(table1_rows(seeds=[0, 1]) + errors))
    part = {"frechet": "Frechet distance", "nfe": "NFE", "nll": "NLL"}[metric]
    changed = [line for line in lines if line.part == part and metric != "nll"]
    for line in changed:
        assert line.verdict == INCONCLUSIVE and line.high - line.low == pytest.approx(2 * 12.706 * 0.5 / 2**0.5, rel=1e-4)
        assert "with 2 seeds and the sampling error as their spread the 95 % t interval includes 0" in line.why
    assert {line.verdict for line in lines if line not in changed} == {HOLDS}


def test_a_missing_or_diverged_method_leaves_the_claim_inconclusive():
    lines = of_claim(lowest, records=as_frame(table1_rows(lost="scoreflow")))
    assert overall(CLAIMS[0], lines).verdict == INCONCLUSIVE and overall(CLAIMS[0], lines).needs is None
    assert {line.verdict for line in lines if line.against == "scoreflow"} == {INCONCLUSIVE}
    assert all("Not compared with ScoreFlow (diverged: the loss became nan)" in line.why for line in lines[2::4])
    some = of_claim(lowest, records=as_frame([r for r in table1_rows() if r.method in ("ddpm", "fm_ot")]))
    assert {line.verdict for line in some if line.against != "ddpm"} == {NOT_TESTED}
    assert overall(CLAIMS[0], some).verdict == INCONCLUSIVE
    # One that is lower settles it, whoever is missing.
    some = of_claim(lowest, records=as_frame([r for r in table1_rows(ours=1.0) if r.method in ("ddpm", "fm_ot")]))
    assert overall(CLAIMS[0], some).verdict == FAILS
    alone = as_frame([r for r in table1_rows() if r.method == "fm_ot"])
    assert {line.verdict for line in of_claim(lowest, records=alone)} == {NOT_TESTED}
    none = as_frame([r for r in table1_rows() if r.method == "ddpm"])
    assert {line.verdict for line in of_claim(lowest, records=none)} == {NOT_TESTED}
    lost = of_claim(lowest, records=as_frame(table1_rows(lost="fm_ot")))
    assert {line.verdict for line in lost} == {INCONCLUSIVE} and "FM (OT path) lost 6 of 6 seeds (diverged" in lost[0].why
    rows = [row(r.method, 0, r.metric, None) if (r.method, r.seed) == ("ddpm", 0) else r for r in table1_rows()]
    partly = of_claim(lowest, records=as_frame(rows))
    assert {(line.verdict, line.against == "ddpm", line.seeds) for line in partly} == {(HOLDS, True, 5), (HOLDS, False, 6)}
    assert all("Lost seeds are left out: DDPM lost 1 of 6 seeds (diverged" in line.why for line in partly[::4])


def test_lost_seeds_of_ours_keep_the_claim_from_holding_but_not_from_failing():
    rows = diverged(table1_rows(seeds=range(10)), "fm_ot", range(4))
    lines = of_claim(lowest, records=as_frame(rows))
    assert {(line.verdict, line.needs, line.seeds) for line in lines} == {(INCONCLUSIVE, None, 6)}
    assert all("FM (OT path) lost 4 of 10 seeds (diverged: the loss became nan)" in line.why for line in lines)
    # The same where the seeds lost have no rows of the metric, and only one of the training.
    gone = [r for r in table1_rows(seeds=range(10)) if r.method != "fm_ot" or r.seed >= 4]
    gone += [row("fm_ot", seed, "final_loss", None) for seed in range(4)]
    lines = of_claim(lowest, records=as_frame(gone))
    assert {line.verdict for line in lines} == {INCONCLUSIVE} and all("lost 4 of 10 seeds" in line.why for line in lines)
    rows = diverged(table1_rows(ours=1.0, seeds=range(10)), "fm_ot", range(4))
    assert {line.verdict for line in of_claim(lowest, records=as_frame(rows))} == {FAILS}


def test_a_seed_that_ours_was_not_run_with_is_not_lost():
    rows = [r for r in table1_rows(seeds=range(7)) if r.method != "fm_ot" or r.seed < 6]
    assert {(line.verdict, line.seeds) for line in of_claim(lowest, records=as_frame(rows))} == {(HOLDS, 6)}


def test_the_papers_differences_are_shown_beside_ours():
    rows = as_frame(table1_rows(dataset="cifar10"))
    lines = of_claim(lowest, records=rows.assign(features="pytorch-fid InceptionV3(2048)"))
    of_ddpm = [line.paper for line in lines if line.against == "ddpm"]
    assert of_ddpm == [pytest.approx(v) for v in (2.99 - 3.12, 6.35 - 7.48, 142 - 274)]
    assert [line.paper is None for line in of_claim(lowest, records=rows)[::4]] == [False, True, False]
    assert [printed_difference("cifar10", m) for m in ("nll", "frechet", "nfe")] == [
        pytest.approx(v) for v in (2.99 - 3.09, 6.35 - 7.48, 142 - 183)
    ]
    assert {line.paper for line in of_claim(lowest, records=as_frame(table1_rows()))} == {None}


@pytest.mark.parametrize(("features", "name"), [("pytorch-fid InceptionV3(2048)", "FID"), ("inception-like", "Frechet distance")])
def test_only_the_distance_of_inception_features_is_called_fid(features, name):
    rows = as_frame(table1_rows()).assign(features=features)
    assert [line.part for line in of_claim(lowest, records=rows)][4] == name
