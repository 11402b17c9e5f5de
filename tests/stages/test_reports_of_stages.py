"""Tables, claims and figures of the tiny benchmark, through the command line."""

import csv
import json

import pytest
from pyarrow.parquet import read_table
from tiny_benchmark import (
    METHODS,
    SEED,
    TRAINED,
)
from user_code import command

from fmbench.config.names import FIGURES
from fmbench.store.files import read_json
from fmbench.store.records import read_rows


def test_table_4_of_these_results(bench, tmp_path):
    """The diverged method has rows with its reason; oracles and points have no rows."""
    files = [bench.folder("dequantisation", "tall", method) / "rows.parquet" for method in TRAINED]
    gathered = tmp_path / "dequantisation.parquet"
    options = ["--out", tmp_path / "table4.csv", "--gathered", gathered]
    said = bench.whole("table4", *(x for file in files for x in ("--rows", file)), *options)
    assert said.code == 0, said.err
    assert read_rows([gathered]).equals(read_rows(files))
    table = list(csv.DictReader((tmp_path / "table4.csv").read_text().splitlines()))
    assert [(r["method"], r["estimator"], r["k"]) for r in table] == [
        (method, estimator, k) for method in TRAINED for estimator in ("averaged", "paper") for k in ("1", "3")
    ]
    for row in table:
        assert row["dataset"] == "tall" and row["paper_nll"] == ""
        if row["method"] == "ddpm":
            assert row["nll_mean"] == "" and row["seeds"] == "0" and row["status"].startswith(f"seed {SEED}: training diverged")
        else:
            values = {(r["metric"], str(r["draws"])): r["value"] for r in bench.rows("dequantisation", "tall", row["method"])}
            assert float(row["nll_mean"]) == pytest.approx(values[f"nll_{row['estimator']}", row["k"]], rel=1e-5)
    text = (tmp_path / "table4.md").read_text()
    assert "## tall" in text and " nan" not in text.replace("became nan", "")
    assert (tmp_path / "table4.tex").read_text().count(r"\toprule") == 1


def test_settings_and_table_3_are_of_what_was_trained(bench, tmp_path):
    """The config.json of every model is in settings.parquet, and the table is made from this file alone."""
    settings = read_table(bench.results / "settings.parquet").to_pandas()
    for dataset in bench.config.datasets:
        n = len(bench.data(dataset).train)
        for method in bench.config.methods:
            mine = settings[(settings.dataset == dataset) & (settings.method == method.name) & (settings.seed == SEED)]
            values = {key: json.loads(value) for key, value in zip(mine.key, mine.value, strict=True)}
            config = read_json(bench.folder("train", dataset, method.name) / "config.json")
            assert (values["parameters"], values["step"], values["data.train"]) == (config["parameters"], config["step"], n)
            training = {key: value for key, value in values.items() if key.startswith("training.")}
            assert training == {f"training.{k}": v for k, v in config["spec"].get("training", {}).items()}
    said = command("table3", "--settings", bench.results / "settings.parquet", "--out", tmp_path / "table3.csv")
    assert said.code == 0, said.err
    rows = {(r["dataset"], r["setting"]): r for r in csv.DictReader((tmp_path / "table3.csv").read_text().splitlines())}
    for dataset in bench.config.datasets:
        training = bench.config.dataset(dataset).training
        epochs = training.iterations * training.batch_size / len(bench.data(dataset).train)
        if not rows[dataset, "epochs"]["by_method"]:
            assert float(rows[dataset, "epochs"]["ours"]) == pytest.approx(epochs, rel=1e-3)
        assert str(training.batch_size) in rows[dataset, "effective_batch_size"]["ours"]


def test_claims_on_these_results(bench, tmp_path):
    """With one seed and a diverged method no claim is certain, and every verdict has its reason."""
    said = command("claims", "--results", bench.results, "--out", tmp_path / "claims.csv", "--progress", "lines")
    assert said.code == 0, said.err
    rows = list(csv.DictReader((tmp_path / "claims.csv").read_text().splitlines()))
    whole = {row["claim"]: row for row in rows if row["about"] == "overall"}
    assert [*whole] == [str(k) for k in range(1, 12)] and all(row["why"] for row in rows)
    assert whole["1"]["verdict"] == whole["4"]["verdict"] == "inconclusive" and whole["3"]["verdict"] != "holds"
    nfe = [row for row in rows if row["claim"] == "1" and row["part"] == "NFE" and row["about"] == "trained"]
    assert nfe and all(row["seeds"] in ("0", "1") for row in nfe)


def test_table_1_has_a_row_for_the_diverged_training(bench):
    table = list(csv.DictReader((bench.results / "table1.csv").read_text().splitlines()))
    assert [(r["dataset"], r["method"]) for r in table] == [(d, m) for d in ("board", "tall") for m in METHODS]
    for row in table:
        if row["method"] == "ddpm":
            assert row["status"].startswith(f"seed {SEED} diverged: the loss became")
            assert row["seeds"] == "0"
            assert row["nll_mean"] == row["fid_mean"] == row["nfe_mean"] == row["sample_std"] == ""
        else:
            assert (row["status"], row["seeds"]) == ("ok", "1")
            assert all(float(row[k]) for k in ("nll_mean", "nfe_mean", "sample_std"))
            assert bool(row["fid_mean"]) == (row["dataset"] == "tall")
        assert row["nll_unit"] == {"board": "nats", "tall": "bits/dim"}[row["dataset"]]
    assert all((bench.results / f"table1.{kind}").exists() for kind in ("md", "tex"))


def test_table_1_made_again_has_the_same_bytes(bench, tmp_path):
    bench.whole("table1", "--records", bench.results / "records.parquet", "--out", tmp_path / "t.csv")
    for kind in ("csv", "md", "tex"):
        assert (tmp_path / f"t.{kind}").read_bytes() == (bench.results / f"table1.{kind}").read_bytes()


@pytest.mark.parametrize("name", [name for name, files in FIGURES.items() if "theory" not in str(files)])
def test_every_figure_is_drawn_from_these_results(bench, tmp_path, name):
    said = command("figure", name, "--results", bench.results, "--out", tmp_path / "f.png", "--data", tmp_path / "f.parquet")
    assert said.code == 0, said.err
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    # These are of super-resolution, and of methods that make a grid.
    assert (read_table(tmp_path / "f.parquet").num_rows > 0) == (name not in ("fig14", "fig15", "grid3x3"))
