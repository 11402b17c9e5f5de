"""Claim 5 on hand-made costs during training."""

import itertools

import pytest
from claim_rows import FIVE, SEEDS, as_frame, of_claim, row, wobble

from fmbench.report.claims.claim05_constant_nfe import steady_cost
from fmbench.report.claims.evaluation import overall
from fmbench.report.claims.registry import CLAIMS
from fmbench.report.claims.rows import in_prose
from fmbench.report.claims.verdicts import FAILS, HOLDS, INCONCLUSIVE, NOT_TESTED
from fmbench.store.records import Row


@pytest.mark.parametrize(
    ("fm", "score", "verdicts"),
    [
        (1.05, 3.0, [HOLDS, HOLDS, HOLDS, HOLDS, HOLDS]),
        (2.0, 1.05, [FAILS, FAILS, FAILS, FAILS, FAILS]),
        (1.05, 1.4, [HOLDS, HOLDS, FAILS, HOLDS, HOLDS]),
    ],
)
def test_the_cost_during_training(fm, score, verdicts):
    def nfe(method: str, k: int) -> float:
        return 100 * (score if method == "score_matching" else fm) ** ((k - 1) / 4)

    rows = [
        row(m, s, "nfe", nfe(m, k) * (1 + 0.002 * wobble(s + k, m)), step=k)
        for m, s, k in itertools.product(FIVE, SEEDS, range(1, 6))
    ]
    lines = of_claim(steady_cost, learning_curve=as_frame(rows))
    assert [line.verdict for line in lines] == verdicts
    assert lines[0].value == pytest.approx(fm, rel=0.01) and lines[2].value == pytest.approx(score, rel=0.01)
    assert lines[3].value == pytest.approx(fm / score, rel=0.02)


def test_one_snapshot_does_not_show_a_change():
    rows = [row(m, s, "nfe", 100.0, step=1) for m, s in itertools.product(FIVE, SEEDS)]
    assert {line.verdict for line in steady_cost({"learning_curve": as_frame(rows)})} == {NOT_TESTED}


def nfe_rows(methods: tuple[str, ...] = FIVE) -> list[Row]:
    """Flow matching's cost stays, score matching's doubles twice."""
    return [
        row(m, s, "nfe", 100 * (4.0 if m == "score_matching" else 1.05) ** ((k - 1) / 4) * (1 + 0.002 * wobble(s + k, m)), step=k)
        for m, s, k in itertools.product(methods, SEEDS, range(1, 6))
    ]


def test_a_claim_tested_in_part_on_a_data_set_does_not_hold():
    whole = overall(CLAIMS[4], of_claim(steady_cost, learning_curve=as_frame(nfe_rows())))
    assert whole.verdict == HOLDS
    half = overall(CLAIMS[4], of_claim(steady_cost, learning_curve=as_frame(nfe_rows(("fm_diffusion", "fm_ot")))))
    assert (half.verdict, half.needs) == (INCONCLUSIVE, None) and "Only part of the claim is tested on d" in half.why


def test_a_stopped_training_does_not_count_as_constant():
    for lost, seeds, verdict in (("fm_ot", range(4), INCONCLUSIVE), ("score_matching", range(4), HOLDS)):
        rows = [r for r in nfe_rows() if r.method != lost or r.seed not in seeds or r.step < 3]
        rows += [row(lost, s, "nfe", None, step=3) for s in seeds]
        lines = of_claim(steady_cost, learning_curve=as_frame(rows))
        own = [line for line in lines if lost in (line.against, *(m for m in FIVE if line.part.startswith(in_prose(m))))]
        assert own and all(f"{in_prose(lost)} lost 4 of 6 seeds (diverged" in line.why and line.seeds == 2 for line in own)
        assert overall(CLAIMS[4], lines).verdict == verdict
    gone = [r for r in nfe_rows() if r.method != "score_matching"] + [
        row("score_matching", s, "nfe", None, step=1) for s in SEEDS
    ]
    lines = of_claim(steady_cost, learning_curve=as_frame(gone))
    assert [line.verdict for line in lines] == [HOLDS, HOLDS, *[INCONCLUSIVE] * 3]
