"""Figures of results where methods, seeds or whole files of rows are missing."""

import re

import numpy as np
import pyarrow as pa
import pytest
from figure_results import DRAWN, REASON, drawn, results_folder, texts

from fmbench.errors import DataError
from fmbench.report.figures import write_figure
from fmbench.store.parquet import write_table
from fmbench.store.previews import previews
from fmbench.store.records import Row, write_rows


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_drawn_if_all_methods_of_the_only_seed_diverged(tmp_path, name):
    methods = ("ddpm", "score_matching", "fm_ot")
    results_folder(tmp_path, lost=methods, methods=methods, seeds=(3,))
    write_figure(name, tmp_path, [tmp_path / "f.svg"], tmp_path / "f.parquet")
    said = {
        "fig07": "diverged",
        "fig05": "1 of 1 seeds diverged",
        "fig07_quality": "5 of 5 diverged",
        "work_precision": "no errors",
        "solver_budget": "failed",
    }
    said |= {"fig04": "diverged", "fig11": "diverged", "nfe_distribution": "1 of 1 diverged", "fig10": "1 of 1 seeds div"}
    assert said.get(name, "") in texts(tmp_path / "f.svg")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fig05", "DDPM: 2 of 2 seeds diverged"),
        ("fig07", "DDPM (no NLL; 12 solves diverged)"),
        ("fig07_quality", "10 of 10 diverged"),
        ("work_precision", "12 of 12 diverged"),
        ("nfe_distribution", "DDPM: 2 of 2 diverged"),
        ("fig04", "diverged"),
        ("fig09", "diverged"),
        ("fig16", "diverged"),
        ("pareto", "DDPM: 10 of 10 diverged"),
    ],
)
def test_a_method_that_diverged_is_named(tmp_path, name, said):
    results = results_folder(tmp_path, lost=("ddpm",))
    text, data = drawn(name, results, tmp_path)
    assert said in text and "mine" in text and "ddpm" in set(data.method)
    assert data.method.iloc[0] == "ddpm"  # where it stands in the records


def test_a_method_is_shown_as_diverged_if_only_its_first_seed_did(tmp_path):
    """Pictures are of the first seed, so a method whose second seed went well has no picture."""
    rows = [
        Row("tall", "ddpm", 0, "train", "final_loss", None, "loss", "diverged", REASON),
        Row("tall", "ddpm", 1, "train", "final_loss", 1.0, "loss"),
        Row("tall", "fm_ot", 0, "train", "final_loss", 1.0, "loss"),
    ]
    write_rows(tmp_path / "records.parquet", rows)
    images = np.ones((4, 1, 2, 2))
    shown = [previews("tall", m, s, images, range(4)) for m, s in (("data", None), ("ddpm", 1), ("fm_ot", 0))]
    write_table(tmp_path / "previews.parquet", pa.concat_tables(shown))
    text, data = drawn("fig11", tmp_path, tmp_path)
    assert "diverged" in text and data[data.method == "ddpm"].reason.tolist() == [REASON]


def test_a_method_without_rows_on_a_data_set_is_named(tmp_path):
    rows = [Row("a", m, 0, "learning_curve", "nfe", 9.0, "evaluations", step=s, n=4) for m in ("ddpm", "fm_ot") for s in (1, 2)]
    rows += [Row("b", "fm_ot", 0, "learning_curve", "nfe", 9.0, "evaluations", step=s, n=4) for s in (1, 2)]
    rows[1] = Row("a", "ddpm", 0, "learning_curve", "nfe", None, "evaluations", "skipped", "dopri5 gave up", step=2, n=4)
    write_rows(tmp_path / "learning_curve.parquet", rows)
    text, _ = drawn("fig10", tmp_path, tmp_path)
    assert "DDPM: no rows" in text and "DDPM: 1 of 2 skipped" in text and "FM, OT path:" not in text


@pytest.mark.parametrize(("name", "datasets"), [(n, ("tall",)) for n in ("fig04", "fig09")] + [("fig16", ("board",))])
def test_a_figure_of_a_kind_of_data_that_the_config_lacks(tmp_path, name, datasets):
    """The default target draws every figure, for any data sets of the config."""
    assert "no samples" in drawn(name, results_folder(tmp_path, datasets=datasets), tmp_path)[0]


@pytest.mark.parametrize("name", [name for name in DRAWN if name != "fig07"])
def test_a_figure_of_files_without_rows_says_so(tmp_path, name):
    results_folder(tmp_path, datasets=())
    text, data = drawn(name, tmp_path, tmp_path)
    assert data.empty or name == "claims"  # the verdict on each claim is a row
    missing = ["samples", "learning curves", "sweep of solvers", "NFE of samples", "few-step samples", "line of evidence"]
    missing += ["upsampled images", "solver", "trained methods"]
    assert re.search(f"no ({'|'.join(missing)})", text)


def test_a_sweep_without_rows(tmp_path):
    write_rows(tmp_path / "records.parquet", [Row("digits", "ddpm", 0, "likelihood", "nll", 2.5, "bits/dim")])
    with pytest.raises(DataError, match=r"has no rows of the sweep; set evaluation\.sweep\.solvers"):
        write_figure("fig07", tmp_path, [tmp_path / "f.png"])


@pytest.mark.parametrize("dimensions", [1, 3])
def test_points_of_other_dimensions_are_not_drawn_on_the_plane(tmp_path, dimensions):
    points = np.random.default_rng(0).standard_normal((9, dimensions))
    shown = [previews("line", "data", None, points, range(9)), previews("line", "ddpm", 0, points, range(9))]
    write_table(tmp_path / "previews.parquet", pa.concat_tables(shown))
    write_rows(tmp_path / "records.parquet", [])
    assert "line" not in drawn("fig04", tmp_path, tmp_path)[0]
