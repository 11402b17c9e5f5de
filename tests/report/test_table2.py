"""Table 2: the paper's super-resolution and that of the records."""

import csv
from pathlib import Path

import pandas as pd
import pytest
from latex_checks import balanced, columns_fit
from user_code import command

from fmbench.report.layout import paper
from fmbench.report.style import label
from fmbench.report.table2 import write_table2
from fmbench.report.table2.notes import missing
from fmbench.report.table2.numbers import NUMBERS, table2
from fmbench.store.records import Row, write_rows

INCEPTION = "pytorch-fid InceptionV3(2048)"
PIXELS = "RGB, rounded to 256 levels, range 255"
IN_PAPER = ["fid", "inception_score", "psnr", "ssim"]


def sharp_rows(method: str, seed: int, features: str = INCEPTION, **values: float | None) -> list[Row]:
    """A row for each value; those of None are skipped because the training diverged."""
    rows = []
    for metric, value in values.items():
        bad = {} if value is not None else {"status": "skipped", "reason": "training diverged: a_b"}
        what = {"features": PIXELS, "reference": "test, n = 500"} if metric in ("psnr", "ssim") else {"features": features}
        solve = {"solver": "dopri5", "rtol": 1e-5, "atol": 1e-5} if metric == "nfe" else {}
        rows.append(Row("super", method, seed, "super_resolution", metric, value, "u", n=500, **what, **bad, **solve))
    return rows


def records(rows: list[Row], folder: Path) -> Path:
    write_rows(folder / "records.parquet", rows)
    return folder / "records.parquet"


def test_without_super_resolution_the_table_has_the_papers_rows_alone_and_a_note(tmp_path):
    # A Frechet distance and an inception score do not make a super-resolution data set.
    plain = [Row("digits", "fm_ot", 0, "sample_quality", m, 1.0, "u") for m in ("frechet", "inception_score")]
    table = write_table2(records(plain, tmp_path), tmp_path / "table2.csv")
    printed = paper("table2").set_index("model")
    assert list(table.model) == list(printed.index) and set(table.source) == {"paper"}
    for row in table.itertuples():
        for column in IN_PAPER:
            ours, theirs = getattr(row, f"{column}_mean"), printed.loc[row.model, column]
            assert ours == theirs or (pd.isna(ours) and pd.isna(theirs))
    assert "no super-resolution" in missing(table)
    for kind in (".md", ".tex"):
        assert "no super-resolution" in (tmp_path / "table2").with_suffix(kind).read_text()
    text = (tmp_path / "table2.md").read_text()
    assert "| Model | FID | IS | PSNR | SSIM |" in text
    assert "| FM, OT path | **3.4** | **200.8** | 24.7 | 0.747 |" in text
    assert "| Reference | 1.9 | 240.8 | - | - |" in text


def test_a_data_set_has_a_table_with_the_papers_rows_below(tmp_path):
    rows = []
    for seed, shift in ((0, 0.0), (1, 2.0)):
        rows += sharp_rows(
            "fm_ot", seed, frechet=4 + shift, inception_score=100.0, psnr=25 + shift, psnr_stderr=0.1, ssim=0.7, nfe=80.0
        )
        rows += sharp_rows("mine", seed, frechet=9.0, psnr=20 + shift, psnr_stderr=0.2, ssim=0.9, nfe=1.0)
    rows += sharp_rows("bicubic", 0, frechet=30.0, inception_score=50.0, psnr=21.5, ssim=0.65, consistency=2.68e-5)
    rows += sharp_rows("reference", 0, frechet=1.0, inception_score=200.0)
    table = write_table2(records(rows, tmp_path), tmp_path / "table2.csv")
    ours = table[table.source == "ours"].set_index("model")
    assert list(ours.index) == ["reference", "bicubic", "fm_ot", "mine"]
    assert (ours.loc["fm_ot"].fid_mean, ours.loc["fm_ot"].fid_std) == (5.0, pytest.approx(2**0.5))
    assert (ours.loc["fm_ot"].psnr_mean, ours.loc["fm_ot"].seeds, ours.loc["fm_ot"].n) == (26.0, 2, 500)
    assert set(ours.status) == {"ok"} and set(ours.features) == {INCEPTION}
    assert ours.loc["bicubic"].consistency_mean == 2.68e-5
    assert missing(table) == ""
    text = (tmp_path / "table2.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines == [
        "| Model | FID | IS | PSNR | SSIM | Consistency (1e-5) | NFE |",
        "|---|---|---|---|---|---|---|",
        "| Reference | 1.00 | 200.00 | - | - | - | - |",
        "| Bicubic | 30.00 | 50.00 | 21.50 | 0.650 | **2.68** | - |",
        "| FM, OT path | **5.00 ± 1.41** | **100.00 ± 0.00** | **26.00 ± 1.41 [0.10]** | 0.700 ± 0.000 | - | 80.0 ± 0.0 |",
        "| mine | 9.00 ± 0.00 | - | 21.00 ± 1.41 [0.20] | **0.900 ± 0.000** | - | 1.0 ± 0.0 |",
        "| Paper: Reference | 1.9 | 240.8 | - | - | - | - |",
        f"| Paper: {label('regression')} | 15.2 | 121.1 | **27.9** | **0.801** | - | - |",
        "| Paper: SR3 | 5.2 | 180.1 | 26.4 | 0.762 | - | - |",
        "| Paper: FM, OT path | **3.4** | **200.8** | 24.7 | 0.747 | - | - |",
    ]
    assert f"* PSNR: mean over 500 images, {PIXELS}; test, n = 500." in text and "On every" not in text
    assert "* NFE: evaluations of the network for one image, dopri5 at rtol = 1e-05, atol = 1e-05." in text
    latex = (tmp_path / "table2.tex").read_text()
    assert balanced(latex) and columns_fit(latex) and latex.count(r"\toprule") == 1 and latex.count(r"\midrule") == 2


def test_two_data_sets_have_a_table_each(tmp_path):
    rows = sharp_rows("fm_ot", 0, frechet=4.0, psnr=25.0, ssim=0.7)
    rows += [Row("other", "fm_ot", 0, "super_resolution", "psnr", 20.0, "dB")]
    table = write_table2(records(rows, tmp_path), tmp_path / "table2.csv")
    assert list(table[table.source == "ours"].dataset) == ["super", "other"]
    assert table.status.iloc[-1] == "no FID; no SSIM"
    each, _, every = (tmp_path / "table2.md").read_text().partition("## On every data set\n")
    assert "Bold is the best model" in every and "Bold" not in each
    assert each.count("* PSNR: ") == 2 and "* PSNR: " not in every  # of other pixels each
    latex = (tmp_path / "table2.tex").read_text()
    assert balanced(latex) and columns_fit(latex) and latex.count(r"\toprule") == 2


def test_other_features_are_not_called_fid_and_failures_are_named(tmp_path):
    rows = sharp_rows("fm_ot", 0, "classifier(64)", frechet=4.0, frechet_test=5.0, psnr=25.0, ssim=0.7, classifier_score=1.5)
    rows += sharp_rows("fm_ot", 1, "classifier(64)", frechet=None, psnr=None, ssim=None, classifier_score=None)
    table = write_table2(records(rows, tmp_path), tmp_path / "table2.csv")
    text = (tmp_path / "table2.md").read_text()
    assert "| Model | Frechet | Frechet, test | Score | PSNR | SSIM |" in text and "classifier(64)" in text
    row = table.iloc[-1]
    assert row.status == "seed 1, FID, IS, PSNR, SSIM: training diverged: a_b"
    assert (row.seeds, row.inception_score_mean) == (1, 1.5)
    latex = (tmp_path / "table2.tex").read_text()
    assert r"training diverged: a\_b" in latex and balanced(latex) and columns_fit(latex)


def test_a_model_without_any_number_still_has_a_row(tmp_path):
    rows = sharp_rows("fm_ot", 0, frechet=None, psnr=None, ssim=None)
    table = write_table2(records(rows, tmp_path), tmp_path / "table2.csv")
    assert (table.model.iloc[-1], table.seeds.iloc[-1]) == ("fm_ot", 0)
    assert "| FM, OT path | - | - | - | - |" in (tmp_path / "table2.md").read_text()


def test_table_2_by_the_command(tmp_path):
    path = records([Row("digits", "fm_ot", 0, "sample", "nfe", 1.0, "u")], tmp_path)
    said = command("table2", "--records", path, "--out", tmp_path / "table2.csv", "--progress", "lines")
    assert said.code == 0 and "no super-resolution" in said.err and "0 rows of ours, 4 of the paper" in said.err
    assert len(list(csv.DictReader((tmp_path / "table2.csv").read_text().splitlines()))) == 4


def test_table_2_takes_nothing_from_rows_without_a_method():
    floor = pd.DataFrame([{"dataset": "d", "method": "", "metric": "psnr", "value": 1.0, "status": "ok", "seed": 0}])
    assert set(table2(floor).source) == {"paper"} and set(IN_PAPER) <= set(NUMBERS)
