"""Claim 10 on hand-made NLL against K."""

from dataclasses import replace

import pytest
from claim_rows import SEEDS, as_frame, dequantisation_rows, diverged, of_claim, wobble

from fmbench.report.claims.claim10_nll_falls_with_k import falls_with_k
from fmbench.report.claims.verdicts import FAILS, HOLDS, INCONCLUSIVE
from fmbench.report.layout import paper
from fmbench.store.records import Row


def test_nll_against_k():
    lines = of_claim(falls_with_k, dequantisation=as_frame(dequantisation_rows(0.1)))
    assert [line.part for line in lines] == ["averaged probes, K = 1 to 20", "averaged probes, K = 20 to 50"]
    for line in lines:
        assert line.verdict == HOLDS and line.value == pytest.approx(-0.1, abs=0.002) and "falls for 2 of 2 methods" in line.why
    assert verdicts(dequantisation_rows(-0.1)) == {FAILS} and verdicts(dequantisation_rows(0.0)) == {INCONCLUSIVE}


def verdicts(rows: list[Row]) -> set[str]:
    return {line.verdict for line in of_claim(falls_with_k, dequantisation=as_frame(rows))}


def test_nll_against_k_uses_the_seeds_that_all_methods_have():
    """DDPM's numbers lie far from FM-OT's in their falls: the mean of a seed is over both, or the seed is left out."""
    rows = [replace(r, value=3.0 + 5 * (r.value - 3.0)) if r.method == "ddpm" else r for r in dequantisation_rows(0.1)]
    for line in of_claim(falls_with_k, dequantisation=as_frame(diverged(rows, "fm_ot", range(3)))):
        assert line.seeds == 3 and line.value == pytest.approx(-0.3, abs=0.01)
        assert (line.verdict, line.needs) == (INCONCLUSIVE, None) and "FM (OT path) lost 3 of 6 seeds (diverged" in line.why
    for line in of_claim(falls_with_k, dequantisation=as_frame(diverged(rows, "fm_ot", SEEDS))):
        assert line.verdict == INCONCLUSIVE and line.seeds == 6 and "lost 6 of 6" in line.why
    split = diverged(diverged(rows, "fm_ot", range(3)), "ddpm", range(3, 6))
    (line,) = of_claim(falls_with_k, dequantisation=as_frame(split))
    assert line.verdict == INCONCLUSIVE and "No seed has values of every method" in line.why


def test_each_step_has_its_line_and_one_small_fall_decides():
    """The step is fixed, not chosen as the smallest on the same seeds."""
    rows = [
        replace(r, value=3.0 - {1: 0.0, 20: 0.5, 50: 0.5}[r.draws] + 0.001 * wobble(r.seed + r.draws, r.method))
        for r in dequantisation_rows(0.1)
        if r.metric == "nll_averaged"
    ]
    first, second = of_claim(falls_with_k, dequantisation=as_frame(rows))
    assert first.value == pytest.approx(-0.5, abs=0.005) and "from K = 1 to 20" in first.statistic
    assert second.value == pytest.approx(0, abs=0.005) and "from K = 20 to 50" in second.statistic
    assert (first.verdict, second.verdict) == (HOLDS, INCONCLUSIVE)


def test_a_fall_from_probe_noise_alone_does_not_hold():
    """All of the fall is bias: the corrected estimator does not fall. The paper's falls, and its reason names the bias."""
    for line in of_claim(falls_with_k, dequantisation=as_frame(dequantisation_rows(0.0, bias=0.1))):
        assert line.verdict == INCONCLUSIVE and abs(line.value) < 0.002
    rows = dequantisation_rows(0.0, bias=0.1) + dequantisation_rows(0.4, metric="nll_paper")
    *averaged, papers, last = of_claim(falls_with_k, dequantisation=as_frame(rows))
    assert papers.verdict == last.verdict == HOLDS
    assert "At K = 50 the noise lowers it by about 0.8, which is bias and not likelihood" in papers.why
    assert [line.verdict for line in averaged] == [INCONCLUSIVE] * 2


def test_the_papers_falls_are_shown_beside_ours():
    lines = of_claim(falls_with_k, dequantisation=as_frame(dequantisation_rows(0.1, dataset="cifar10")))
    printed = paper("table4").pivot_table(index=["dataset", "method"], columns="k", values="nll_bpd").loc["cifar10"]
    steps = [(printed[20] - printed[1]).mean(), (printed[50] - printed[20]).mean()]
    assert [line.paper for line in lines] == pytest.approx(steps)
