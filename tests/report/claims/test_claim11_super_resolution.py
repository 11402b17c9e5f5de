"""Claim 11 on hand-made rows of Table 2."""

import itertools

import pytest
from claim_rows import SEEDS, as_frame, diverged, of_claim, row, table1_rows, wobble

from fmbench.report.claims.claim01_lowest_nll_fid_nfe import CLAIM as FIRST
from fmbench.report.claims.claim11_super_resolution import CLAIM, printed_difference, sharper
from fmbench.report.claims.evaluation import evaluate_claims, overall
from fmbench.report.claims.verdicts import FAILS, HOLDS, INCONCLUSIVE, NOT_TESTED
from fmbench.report.table2.numbers import PAPERS_DATA
from fmbench.store.records import Row

PAPERS = {  # the rows of its Table 2
    "regression": {"frechet": 15.2, "inception_score": 121.1, "psnr": 27.9, "ssim": 0.801},
    "ddpm": {"frechet": 5.2, "inception_score": 180.1, "psnr": 26.4, "ssim": 0.762},
    "fm_ot": {"frechet": 3.4, "inception_score": 200.8, "psnr": 24.7, "ssim": 0.747},
}


def rows_of(values: dict[str, dict[str, float]], dataset: str = "d", seeds: object = SEEDS) -> list[Row]:
    return [
        row(method, seed, metric, value * (1 + 0.002 * wobble(seed, method)), dataset, features="pytorch-fid InceptionV3(2048)")
        for (method, found), seed in itertools.product(values.items(), seeds)
        for metric, value in found.items()
    ]


def changed(method: str, **values: float) -> dict[str, dict[str, float]]:
    return PAPERS | {method: PAPERS[method] | values}


def test_the_claim_holds_on_the_papers_numbers():
    lines = of_claim(sharper, records=as_frame(rows_of(PAPERS, PAPERS_DATA)))
    assert [(line.part, line.against, line.claimed) for line in lines] == [
        ("FID", "regression", "below"),
        ("FID", "ddpm", "below"),
        ("IS", "regression", "above"),
        ("IS", "ddpm", "above"),
        ("PSNR", "regression", "below"),
        ("SSIM", "regression", "below"),
    ]
    assert {(line.verdict, line.seeds, line.threshold) for line in lines} == {(HOLDS, 6, 0.0)}
    assert [line.paper for line in lines] == [pytest.approx(v) for v in (-11.8, -1.8, 79.7, 20.7, -3.2, -0.054)]
    assert lines[2].why.startswith("Higher than ") and ": with 6 seeds the 95 % t interval is above 0" in lines[2].why
    assert lines[4].why.startswith("Lower than ") and overall(CLAIM, lines).verdict == HOLDS
    assert {line.paper for line in of_claim(sharper, records=as_frame(rows_of(PAPERS)))} == {None}


@pytest.mark.parametrize(
    ("values", "part", "against"),
    [
        (changed("regression", psnr=24.0), "PSNR", "regression"),
        (changed("regression", ssim=0.7), "SSIM", "regression"),
        (changed("ddpm", frechet=3.0), "FID", "ddpm"),
        (changed("ddpm", inception_score=230.0), "IS", "ddpm"),
    ],
)
def test_one_number_on_the_other_side_makes_it_fail(values, part, against):
    lines = of_claim(sharper, records=as_frame(rows_of(values)))
    assert [(line.part, line.against) for line in lines if line.verdict == FAILS] == [(part, against)]
    assert overall(CLAIM, lines).verdict == FAILS
    (line,) = (line for line in lines if line.verdict == FAILS)
    assert line.why.startswith("Lower than" if part == "IS" else "Higher than")


def test_it_is_judged_on_super_resolution_alone_and_the_other_claims_on_generation():
    plain = as_frame(table1_rows())
    (whole,) = evaluate_claims({"records": plain}, [CLAIM])
    assert whole.verdict == NOT_TESTED and whole.why == "There are no rows of super-resolution to test this claim"
    both = as_frame([*table1_rows(dataset="other"), *table1_rows(dataset="d"), *rows_of(PAPERS)])
    own, first = (evaluate_claims({"records": both}, [claim]) for claim in (CLAIM, FIRST))
    assert {line.dataset for line in own} == {"all", "d"} and {line.dataset for line in first} == {"all", "other"}
    alone = evaluate_claims({"records": as_frame([*table1_rows(dataset="d"), *rows_of(PAPERS)])}, [FIRST])
    assert [line.why for line in alone] == ["There are no rows of generation to test this claim"]


def test_missing_models_scores_and_seeds():
    without = {method: values for method, values in PAPERS.items() if method != "ddpm"}
    lines = of_claim(sharper, records=as_frame(rows_of(without)))
    assert {line.verdict for line in lines if line.against == "ddpm"} == {NOT_TESTED}
    assert overall(CLAIM, lines).verdict == INCONCLUSIVE  # never compared with SR3
    unscored = [r for r in rows_of(PAPERS) if r.metric != "inception_score"]
    lines = of_claim(sharper, records=as_frame(unscored))
    assert [(line.verdict, line.why) for line in lines if line.part == "IS"] == [(NOT_TESTED, "There are no rows of IS")]
    nobody = of_claim(sharper, records=as_frame([r for r in rows_of(PAPERS) if r.method != "fm_ot"]))
    assert [line.verdict for line in nobody] == [NOT_TESTED]
    lost = of_claim(sharper, records=as_frame(diverged(rows_of(PAPERS), "fm_ot", [0])))
    assert {line.verdict for line in lost} == {INCONCLUSIVE} and "FM (OT path) lost 1 of 6 seeds" in lost[0].why
    one = of_claim(sharper, records=as_frame(rows_of(PAPERS, seeds=[0])))
    assert {line.verdict for line in one} == {INCONCLUSIVE}


def test_the_spread_of_two_seeds_is_at_least_the_sampling_error_of_the_distance():
    errors = [row(method, seed, "frechet_stderr", 2.0) for method in PAPERS for seed in (0, 1)]
    lines = of_claim(sharper, records=as_frame(rows_of(PAPERS, seeds=[0, 1]) + errors))
    for line in lines:
        assert (line.verdict == INCONCLUSIVE) == (line.part == "FID")
        assert ("the sampling error as their spread" in line.why) == (line.part == "FID")


def test_the_score_of_another_classifier_is_not_called_is():
    records = as_frame(rows_of(PAPERS)).replace({"metric": {"inception_score": "classifier_score"}}).assign(features="c")
    parts = [line.part for line in of_claim(sharper, records=records)]
    assert parts == 2 * ["Frechet distance"] + 2 * ["classifier score"] + ["PSNR", "SSIM"]


def test_the_papers_differences():
    assert printed_difference(PAPERS_DATA, "FID", "ddpm") == pytest.approx(3.4 - 5.2)
    assert printed_difference(PAPERS_DATA, "Frechet distance", "ddpm") is None
    said = CLAIM.in_paper()
    assert "FID -11.8 to regression; FID -1.8 to SR3; IS 79.7 to regression; IS 20.7 to SR3; PSNR -3.2 to regression" in said
