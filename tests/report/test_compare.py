"""Comparing two result sets, number by number."""

import io
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from result_sets import config, make_results
from scipy import stats
from user_code import command

from fmbench.report.compare import COLUMNS, compare, compare_sets, welch
from fmbench.store.benchmark import FILE
from fmbench.store.parquet import write_table
from fmbench.store.records import Row, read_rows, write_rows
from fmbench.store.unpack import opened

pytestmark = pytest.mark.usefixtures("no_fsync")


def values(folder: Path, **seeds: list[float]) -> pd.DataFrame:
    """The NLL of each method, one number for each seed."""
    rows = [Row("d", m, s, "likelihood", "nll", v, "nats", n=9) for m, found in seeds.items() for s, v in enumerate(found)]
    write_rows(folder / "r.parquet", rows)
    return read_rows([folder / "r.parquet"]).to_pandas()


def test_differences_and_spreads_match_a_calculation_by_hand(tmp_path):
    a = values(tmp_path, far=[1.0, 2.0, 3.0], near=[1.0, 2.0, 3.0], one=[1.0], same=[2.0, 2.0], gone=[1.0, 2.0])
    b = values(tmp_path, far=[11.0, 12.0, 13.0], near=[2.0, 3.0, 4.0], one=[5.0, 6.0], same=[2.5, 2.5], new=[1.0])
    table = compare(a, b)
    assert list(table.columns) == COLUMNS
    row = {r["method"]: r for r in table.to_dict("records")}
    assert (row["far"]["mean_a"], row["far"]["std_a"], row["far"]["seeds_a"]) == (2.0, 1.0, 3)
    assert row["far"]["difference"] == 10.0 and row["far"]["exceeds"] == "yes"
    # s^2 / n = 1/3 on each side: standard error sqrt(2/3), 4 degrees of freedom, t at 0.975: 2.776
    assert row["far"]["t"] == pytest.approx(10 / math.sqrt(2 / 3)) and row["far"]["degrees"] == pytest.approx(4)
    assert row["far"]["critical"] == pytest.approx(2.7764451)
    assert row["near"]["t"] == pytest.approx(1 / math.sqrt(2 / 3)) and row["near"]["exceeds"] == "no"
    assert row["one"]["difference"] == 4.5 and row["one"]["exceeds"] == "no spread" and math.isnan(row["one"]["t"])
    assert row["same"]["exceeds"] == "yes" and row["same"]["difference"] == 0.5
    assert row["gone"]["exceeds"] == "only in A" and math.isnan(row["gone"]["mean_b"])
    assert row["new"]["exceeds"] == "only in B" and row["new"]["seeds_a"] == 0
    assert list(table.method) == ["far", "near", "one", "same", "gone", "new"]
    assert set(compare(a.assign(unit="s"), b).exceeds) == {"only in B"}  # measured times are not compared


def test_two_seeds_on_each_side_need_a_large_difference():
    """At one degree of freedom the critical value is 12.7; unequal spreads have fewer degrees than pooled ones."""
    found = welch(1.0, 0.1, 2, 1e-9, 2)
    assert found["degrees"] == pytest.approx(1, abs=1e-6) and found["critical"] == pytest.approx(12.706, abs=1e-3)
    assert found["t"] == pytest.approx(1 / (0.1 / math.sqrt(2))) and found["exceeds"] == "yes"
    assert welch(0.8, 0.1, 2, 1e-9, 2)["exceeds"] == "no"


def test_the_t_test_agrees_with_scipy():
    g = np.random.default_rng(3)
    for n, m in ((2, 2), (3, 7), (10, 4)):
        x, y = g.normal(0, 1, n), g.normal(1, 3, m)
        expected = stats.ttest_ind(y, x, equal_var=False)
        found = welch(y.mean() - x.mean(), x.std(ddof=1), n, y.std(ddof=1), m)
        assert found["t"] == pytest.approx(expected.statistic) and found["degrees"] == pytest.approx(expected.df)
        assert (found["exceeds"] == "yes") == (expected.pvalue < 0.05)


def test_a_diverged_seed_does_not_count_and_each_budget_has_its_own_row(tmp_path):
    rows = [
        Row("d", "m", 0, "sweep", "mse", 1.0, "squared", solver="euler", nfe=4.0),
        Row("d", "m", 1, "sweep", "mse", None, "squared", "diverged", "nan", solver="euler", nfe=4.0),
        Row("d", "m", 0, "sweep", "mse", 0.5, "squared", solver="euler/karras", nfe=8.0),
        Row("d", "m", 0, "sample", "nfe", 40.0, "evaluations", solver="dopri5", nfe=40.0),
        Row("d", "m", 1, "sample", "nfe", 44.0, "evaluations", solver="dopri5", nfe=44.0),
        Row("d", "m", 0, "train", "train_seconds", 9.0, "s"),
        Row("d", "", 0, "features", "data_std", 9.0, "model units"),
    ]
    write_rows(tmp_path / "r.parquet", rows)
    frame = read_rows([tmp_path / "r.parquet"]).to_pandas()
    found = compare(frame, frame)
    shown = [(r.metric, r.solver, r.seeds_a, r.exceeds) for r in found.itertuples()]
    assert shown == [
        ("mse", "euler", 1, "no spread"),
        ("mse", "euler/karras", 1, "no spread"),
        ("nfe", "dopri5", 2, "no"),
    ]
    assert found.budget.tolist()[:2] == [4.0, 8.0] and math.isnan(found.budget[2])


def test_learning_curves_few_step_samples_and_dequantisation_are_compared(whole_run, archive, tmp_path):
    with opened(archive) as folder:  # whose NLL against K is in one file
        for name in ("one", "other"):
            shutil.copytree(folder, tmp_path / name)
    rows = {
        "learning_curve": [
            Row("board", "ddpm", s, "learning_curve", "nfe", 40.0 + s, "evaluations", step=k) for s in (0, 1) for k in (10, 20)
        ],
        "few_step": [Row("board", "ddpm", s, "few_step", "mmd", 1.0 + s, "squared", solver="euler", nfe=4.0) for s in (0, 1)],
    }
    for name, more in (("one", 0.0), ("other", 1000.0)):
        for file, found in rows.items():
            write_rows(tmp_path / name / f"{file}.parquet", [replace(r, value=r.value + more) for r in found])
    draws = read_rows([tmp_path / "other" / "dequantisation.parquet"])
    shifted = pa.array([None if v is None else v + 1000 for v in draws["value"].to_pylist()], pa.float64())
    write_table(
        tmp_path / "other" / "dequantisation.parquet", draws.set_column(draws.schema.get_field_index("value"), "value", shifted)
    )
    said = command("compare", tmp_path / "one", tmp_path / "other", "--csv", "--fail")
    table = pd.read_csv(io.StringIO(said.out))
    assert said.code == 1 and set(table[table.exceeds == "yes"].stage) == {"learning_curve", "few_step", "dequantisation"}
    assert set(table[table.stage == "learning_curve"].step) == {10, 20} and set(table[table.stage == "dequantisation"].draws) == {
        1,
        5,
        20,
    }
    text = command("compare", tmp_path / "one", tmp_path / "other").out
    assert "nfe, iteration 20 (evaluations)" in text and "nll_paper, K = 5 (bits/dim)" in text
    # Stale rows are left out.
    write_table(tmp_path / "other" / "dequantisation.parquet", draws, source_hash="another")
    assert set(compare_sets(tmp_path / "one", tmp_path / "other")[0].query("stage == 'dequantisation'").exceeds) == {"only in A"}


def test_compare_prints_different_settings_and_writes_the_requested_format(whole_run, archive, tmp_path):
    changed = config(seeds=[0, 1, 2], methods=["ddpm", "fm_ot"], board__training={"iterations": 500})
    other = make_results(
        tmp_path / "b",
        changed,
        code="f00d",
        extractor="bbbb",
        change=lambda r: {"value": r.value + 7, "versions": '{"torch": "3"}'},
    )
    said = command("compare", archive, other, "--out", tmp_path / "table.csv")
    assert said.code == 0
    for line in (
        "seeds: [0, 1] in A, [0, 1, 2] in B",
        "methods: ['ddpm', 'fm_ot', 'oracle_ot'] in A, ['ddpm', 'fm_ot'] in B",
        "settings.board.training.iterations: 100 in A, 500 in B",
        'code of sweep: ["c0de-sweep"] in A, ["f00d-sweep"] in B',
        'versions: [{"torch": "2.14"}] in A, [{"torch": "3"}] in B',
        "classifier(digits, 64 features, aaaa) in A, classifier(digits, 64 features, bbbb) in B",
    ):
        assert line in said.out, line
    table = pd.read_csv(tmp_path / "table.csv")
    both = table[table.method != "oracle_ot"]
    final = both[both.metric == "final_loss"]
    assert len(final) == 4 and (final.difference > 5).all() and set(final.exceeds) == {"yes"}
    assert set(table[table.method == "oracle_ot"].exceeds) == {"only in A"}
    assert command("compare", archive, other, "--fail").code == 1
    assert command("compare", whole_run, archive, "--fail").code == 0
    same = command("compare", whole_run, archive, "--csv", "--out", tmp_path / "t.md")
    assert "Settings, code and machines are the same." in (tmp_path / "t.md").read_text()
    assert set(pd.read_csv(io.StringIO(same.out)).exceeds) == {"no"}
    assert command("compare", whole_run, archive, "--out", tmp_path / "t.xls").code == 2


def test_results_without_descriptions_are_compared_by_their_numbers_only(whole_run, tmp_path):
    (tmp_path / "old").mkdir()
    shutil.copy(whole_run / "records.parquet", tmp_path / "old")
    said = command("compare", whole_run, tmp_path / "old")
    assert said.code == 0 and f"settings are not compared: no {FILE} in B" in said.out and "0 of " in said.out
