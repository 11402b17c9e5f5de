"""Table 2: the paper's super-resolution and that of the records."""

import csv
from pathlib import Path

import pandas as pd
import pytest
from latex_checks import balanced, columns_fit
from user_code import command

from fmbench.report.layout import paper
from fmbench.report.table2 import METRICS, missing, table2, write_table2
from fmbench.store.records import Row, write_rows


def sharp_rows(method: str, seed: int, features: str = "pytorch-fid InceptionV3(2048)", **values: float | None) -> list[Row]:
    rows = []
    for metric, value in values.items():
        bad = {} if value is not None else {"status": "skipped", "reason": "training diverged: a_b"}
        rows.append(Row("super", method, seed, "sample_quality", metric, value, "u", n=500, features=features, **bad))
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
        for column in METRICS:
            ours, theirs = getattr(row, f"{column}_mean"), printed.loc[row.model, column]
            assert ours == theirs or (pd.isna(ours) and pd.isna(theirs))
    assert "no super-resolution" in missing(table)
    for kind in (".md", ".tex"):
        assert "no super-resolution" in (tmp_path / "table2").with_suffix(kind).read_text()
    assert "| FM, OT path | **3.4** | **200.8** | 24.7 | 0.747 |" in (tmp_path / "table2.md").read_text()


def test_rows_of_super_resolution_are_a_table_of_their_own(tmp_path):
    rows = []
    for seed, shift in ((0, 0.0), (1, 2.0)):
        rows += sharp_rows("fm_ot", seed, frechet=4 + shift, inception_score=100.0, psnr=25 + shift, ssim=0.7)
        rows += sharp_rows("mine", seed, frechet=9.0, psnr=20 + shift, ssim=0.9)
    table = write_table2(records(rows, tmp_path), tmp_path / "table2.csv")
    ours = table[table.source == "ours"].set_index("model")
    assert (ours.loc["fm_ot"].fid_mean, ours.loc["fm_ot"].fid_std) == (5.0, pytest.approx(2**0.5))
    assert (ours.loc["fm_ot"].psnr_mean, ours.loc["fm_ot"].seeds, ours.loc["fm_ot"].n) == (26.0, 2, 500)
    assert (ours.loc["fm_ot"].status, ours.loc["mine"].status) == ("ok", "no IS")
    assert missing(table) == ""
    text = (tmp_path / "table2.md").read_text()
    assert "| Model | FID | IS | PSNR | SSIM |" in text.split("## super")[1] and "no super-resolution" not in text
    assert "| FM, OT path | **5.0 ± 1.4** | **100.0 ± 0.0** | **26.0 ± 1.4** | 0.700 ± 0.000 |" in text
    assert "| mine | 9.0 ± 0.0 | - | 21.0 ± 1.4 | **0.900 ± 0.000** |" in text and "* mine: no IS." in text
    latex = (tmp_path / "table2.tex").read_text()
    assert balanced(latex) and columns_fit(latex) and latex.count(r"\toprule") == 2


def test_other_features_are_not_called_fid_and_failures_are_named(tmp_path):
    rows = sharp_rows("fm_ot", 0, "classifier(64)", frechet=4.0, psnr=25.0, ssim=0.7, inception_score=1.0)
    rows += sharp_rows("fm_ot", 1, "classifier(64)", frechet=None, psnr=None, ssim=None, inception_score=None)
    table = write_table2(records(rows, tmp_path), tmp_path / "table2.csv")
    own = (tmp_path / "table2.md").read_text().split("## super")[1]
    assert "| Model | Frechet | IS |" in own and "classifier(64)" in own
    assert "PSNR, seed 1: training diverged: a_b" in table.status.iloc[-1] and table.seeds.iloc[-1] == 1
    latex = (tmp_path / "table2.tex").read_text()
    assert r"training diverged: a\_b" in latex and balanced(latex) and columns_fit(latex)


def test_table_2_by_the_command(tmp_path):
    path = records([Row("digits", "fm_ot", 0, "sample", "nfe", 1.0, "u")], tmp_path)
    said = command("table2", "--records", path, "--out", tmp_path / "table2.csv", "--progress", "lines")
    assert said.code == 0 and "no super-resolution" in said.err and "0 rows of ours, 4 of the paper" in said.err
    assert len(list(csv.DictReader((tmp_path / "table2.csv").read_text().splitlines()))) == 4


def test_table_2_takes_nothing_from_rows_without_a_method():
    floor = pd.DataFrame([{"dataset": "d", "method": "", "metric": "psnr", "value": 1.0, "status": "ok", "seed": 0}])
    assert set(table2(floor).source) == {"paper"}
