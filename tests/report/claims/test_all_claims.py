"""All claims together: their list, their sources, and the table, page and LaTeX made from their lines."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from claim_rows import as_frame, dequantisation_rows, few_step_rows, half_way_rows, snapshot_rows, sweep_rows, table1_rows
from user_code import command

from fmbench.errors import DataError
from fmbench.report.claims.evaluation import evaluate_claims
from fmbench.report.claims.registry import CLAIMS
from fmbench.report.claims.rendering import frame, latex, markdown
from fmbench.report.claims.sources import FILES, read_sources
from fmbench.report.claims.verdicts import HOLDS, INCONCLUSIVE, NOT_TESTED
from fmbench.store.records import write_rows

REFERENCE = Path(__file__).parents[3] / "results" / "reference" / "default"


def test_the_claims_are_numbered_documented_and_tested():
    assert [claim.number for claim in CLAIMS] == list(range(1, 12))
    for claim in CLAIMS:
        assert claim.title and claim.statement and claim.where and claim.how and claim.evaluate.__doc__
        assert set(claim.needs) <= set(FILES)


def test_a_claim_without_its_file_is_not_tested_and_names_the_command_that_makes_it():
    lines = {line.claim: line for line in evaluate_claims({"records": as_frame(table1_rows())}) if line.about == "overall"}
    assert lines[1].verdict == HOLDS
    for number, file in (
        (3, "few_step"),
        (4, "learning_curve"),
        (5, "learning_curve"),
        (7, "half_way"),
        (9, "theory/identities"),
        (10, "dequantisation"),
    ):
        assert lines[number].verdict == NOT_TESTED
        assert f"run `snakemake --cores all results/{file}.parquet` to make it" in lines[number].why


def test_a_claim_with_one_of_two_files_does_not_hold():
    t = np.linspace(0, 1, 5)
    rows = pd.DataFrame({"path": "ot", "particle": 0, "t": t, "x": t, "y": t})
    whole = next(line for line in evaluate_claims({"trajectories": rows}) if line.claim == 8 and line.about == "overall")
    assert whole.verdict == INCONCLUSIVE and "These results have no theory/fields.parquet" in whole.why


def test_a_failing_claim_is_shown_as_failing():
    lines = evaluate_claims({"records": as_frame(table1_rows(ours=1.0))})
    text = markdown(lines)
    assert "| 1 | FM-OT has the lowest NLL, FID and NFE | Table 1 | **fails** | **fails** |" in text
    assert "## 1. FM-OT has the lowest NLL, FID and NFE: fails" in text
    assert r"\textbf{fails}" in latex(lines)


def test_the_table_the_page_and_the_latex_are_complete():
    lines = evaluate_claims({"records": as_frame(table1_rows(seeds=[0, 1], dataset="a_b"))})
    tidy = frame(lines)
    assert list(tidy.claim.unique()) == list(range(1, 12)) and tidy.verdict.notna().all() and (tidy.why != "").all()
    assert (tidy[tidy.about == "overall"].claim.to_numpy() == np.arange(1, 12)).all()
    text = markdown(lines)
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(line.replace(r"\|", "").split("|")) for line in rows}) <= 1
    assert "Intervals in the evidence are 95 % intervals over seeds unless a line says otherwise: Student's t" in text
    assert "holds with a probability of at most 2.5 %" in text and "Holm's correction over all tests of the claim" in text
    body = [line for line in latex(lines).splitlines() if line.endswith(r"\\")]
    assert len(body) == 12 and len({line.count("&") for line in body}) == 1
    assert r"a\_b" in latex(lines) and "60 \\%" in latex(lines)


def test_the_command_on_a_results_folder_gives_the_same_bytes_again(tmp_path):
    write_rows(tmp_path / "records.parquet", table1_rows() + sweep_rows(0.6))
    write_rows(tmp_path / "learning_curve.parquet", snapshot_rows("frechet", lambda m, k: 1.0 / k))
    write_rows(tmp_path / "few_step.parquet", few_step_rows({4.0: 0.5, 8.0: 0.5}))
    write_rows(tmp_path / "dequantisation.parquet", dequantisation_rows(0.1))
    write_rows(tmp_path / "half_way.parquet", half_way_rows({"fm_ot": 0.4, "ddpm": 0.8}))
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


def test_a_folder_without_results_is_an_error(tmp_path):
    with pytest.raises(DataError, match="has none of records"):
        read_sources(tmp_path)
    (tmp_path / "learning_curve.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="cannot be used: it has no checksum"):
        read_sources(tmp_path)


def test_the_reference_run_is_judged_with_care():
    """FM-OT's NFE are far below the others', and what the path alone does is plain."""
    lines = evaluate_claims(read_sources(REFERENCE))
    nfe = [line for line in lines if (line.claim, line.dataset, line.part, line.about) == (1, "checkerboard", "NFE", "trained")]
    assert {(line.verdict, line.coverage, line.threshold) for line in nfe} == {(HOLDS, 0.95, 0.0)} and len(nfe) == 4
    whole = {line.claim: line for line in lines if line.about == "overall"}
    assert whole[8].verdict == HOLDS
    path = [line for line in lines if line.claim == 2 and line.about == "oracle"]
    assert all(0.4 < line.value < 0.8 for line in path)
