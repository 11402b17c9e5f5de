"""The data that each figure shows, worked out by hand, and which methods it shows."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from figure_results import MAGIC, TIMES, drawn
from pyarrow.parquet import read_table
from user_code import command

from fmbench.errors import DataError
from fmbench.report.figures import chosen, panels, write_figure
from fmbench.report.figures.nfe_distribution import shares
from fmbench.store.parquet import write_table
from fmbench.store.records import Row, read_rows, write_rows


def test_a_band_is_mean_and_range_over_seeds():
    x, values = pd.Series([10, 5, 10, 5]), pd.Series([4.0, 2.0, 1.0, 8.0])
    table = panels.band(x, values)
    assert table.index.tolist() == [5, 10] and table["mean"].tolist() == [5.0, 2.5]
    assert (table.low.tolist(), table.high.tolist(), table.seeds.tolist()) == ([2, 1], [8, 4], [2, 2])
    logs = panels.band(x, values, log=True)
    np.testing.assert_allclose(logs["mean"], [4, 2])
    np.testing.assert_allclose(logs[["low", "high"]], [[2, 8], [1, 4]])


def test_the_learning_curve_is_the_primary_distance_of_every_seed(whole, tmp_path):
    text, data = drawn("fig05", whole, tmp_path)
    assert set(data.metric) == {"energy_distance", "frechet"} and len(data) == 2 * 4 * 2 * 3
    mine = data[(data.dataset == "board") & (data.method == "ddpm")].sort_values(["step", "seed"])
    assert mine.value.tolist() == [4.0, 5.0, 2.0, 3.0, 1.0, 2.0] and mine.step.tolist() == [5, 5, 10, 10, 20, 20]
    table = panels.band(mine.step, mine.value)
    assert (table["mean"].tolist(), table.low.tolist(), table.high.tolist()) == ([4.5, 2.5, 1.5], [4, 2, 1], [5, 3, 2])
    for part in ("board", "tall", "energy distance", "Frechet distance", "iterations", "DDPM", "FM, OT path", "mine"):
        assert part in text
    assert "FID" not in text


def test_nfe_during_training(whole, tmp_path):
    text, data = drawn("fig10", whole, tmp_path)
    assert set(data.metric) == {"nfe"}  # and not its spread
    assert sorted(data[(data.method == "mine") & (data.dataset == "tall")].value) == [35, 36, 40, 41, 50, 51]
    assert "NFE (dopri5)" in text


def test_the_cost_of_a_snapshot_is_its_share_of_the_training(whole, tmp_path):
    text, data = drawn("cost", whole, tmp_path)
    rows = data[(data.dataset == "tall") & (data.method == "fm_ot") & (data.seed == 1)].set_index("step")
    assert rows.passes.to_dict() == {5: 480.0, 10: 960.0, 20: 1920.0}
    assert rows.seconds.to_dict() == {5: 2.75, 10: 5.5, 20: 11.0}
    for part in ("passes of the network in training", "seconds of training", "Frechet distance"):
        assert part in text


def test_quality_over_nfe_has_every_solver_and_the_adaptive_one_at_its_nfe(whole, tmp_path):
    text, data = drawn("fig07_quality", whole, tmp_path)
    mine = data[(data.dataset == "tall") & (data.method == "ddpm") & (data.seed == 1)]
    assert set(mine.metric) == {"frechet"}
    found = {(s, n): v for s, n, v in zip(mine.solver, mine.nfe, mine.value, strict=True)}
    assert found == {
        ("euler", 4.0): 0.5,
        ("euler", 8.0): 0.25,
        ("midpoint", 4.0): 0.5,
        ("midpoint", 8.0): 0.25,
        ("dopri5", 50.0): 0.1,
    }
    for part in ("Euler", "midpoint", "adaptive (dopri5)", "DDPM", "mine", "Frechet distance"):
        assert part in text


def test_work_and_precision_are_joined_cell_by_cell(whole, tmp_path):
    text, data = drawn("work_precision", whole, tmp_path)
    assert len(data) == 2 * 4 * 2 * 6
    cell = data[(data.method == "fm_ot") & (data.solver == "rk4") & (data.nfe == 8) & (data.dataset == "board")]
    np.testing.assert_allclose(cell.mse, 0.01 / 64)
    assert cell.seconds.tolist() == [0.008, 0.008]
    assert "seconds per sample" in text and "no seconds" not in text and "RK4" in text


def test_work_and_precision_of_results_that_have_no_seconds(whole, tmp_path):
    table = read_rows([whole / "records.parquet"])
    write_table(tmp_path / "records.parquet", table.filter(pa.compute.not_equal(table["metric"], "seconds")))
    text, data = drawn("work_precision", tmp_path, tmp_path / "out")
    assert "no seconds" in text and data.seconds.isna().all() and data.mse.notna().all()


def test_the_share_of_samples_by_nfe(whole, tmp_path):
    text, data = drawn("nfe_distribution", whole, tmp_path)
    mine = data[(data.dataset == "board") & (data.method == "mine")]
    assert mine["nfe"].tolist() == [20, 26, 32] * 2 and mine["count"].tolist() == [3] * 6
    counts = pd.DataFrame({"seed": [0, 0, 1], "nfe": [20, 32, 26], "count": [1, 3, 4]})
    table = shares(counts)
    assert table.index.tolist() == [19, 20, 26, 32]
    assert table["mean"].tolist() == [0, 0.125, 0.625, 1]
    assert (table.low.tolist(), table.high.tolist()) == ([0, 0, 0.25, 1], [0, 0.25, 1, 1])
    assert shares(counts.iloc[:0]).empty
    assert "share of samples" in text and list(data.method.unique()) == ["ddpm", "score_matching", "fm_ot", "mine"]


@pytest.mark.parametrize(
    ("name", "dataset", "methods"),
    [
        ("fig04_densities", "board", {"score_matching", "fm_ot", "mine"}),
        ("fig09", "board", {"ddpm", "mine"}),
        ("fig06", "tall", {"score_matching", "fm_ot", "mine"}),
    ],
)
def test_states_along_t_are_of_the_papers_methods_and_the_users(whole, tmp_path, name, dataset, methods):
    text, data = drawn(name, whole, tmp_path)
    assert set(data.dataset) == {dataset} and set(data.method) == {*methods, "data"}
    states = data[data.method != "data"]
    assert set(states.t) == set(TIMES) and len(states) == len(methods) * 3 * 8
    assert data[data.method == "data"].t.isna().all() and len(data[data.method == "data"]) == 40
    for part in ("t = 0", "t = 0.5", "t = 1", dataset, "mine"):
        assert part in text
    assert ("ScoreFlow" in text) is False and ("DDPM" in text) == (name == "fig09")


@pytest.mark.parametrize(("name", "dataset"), [("fig04_few_step", "board"), ("fig16", "tall")])
def test_samples_of_few_evaluations_are_by_midpoint_and_the_adaptive_solver(whole, tmp_path, name, dataset):
    text, data = drawn(name, whole, tmp_path)
    samples = data[data.method != "data"]
    assert set(data.dataset) == {dataset} and len(samples) == 4 * 3 * 8
    assert set(zip(samples.solver, samples.nfe, strict=True)) == {("midpoint", 4), ("midpoint", 8), ("dopri5", 0)}
    for part in ("NFE = 4", "NFE = 8", "adaptive", "midpoint steps", "DDPM"):
        assert part in text
    assert text.index("NFE = 8") < text.index("adaptive")


def test_without_midpoint_another_solver_is_shown(whole, tmp_path):
    table = read_table(whole / "few_step_previews.parquet")
    for name in ("previews", "records"):
        (tmp_path / f"{name}.parquet").write_bytes((whole / f"{name}.parquet").read_bytes())
    write_table(tmp_path / "few_step_previews.parquet", table.filter(pa.compute.not_equal(table["solver"], "midpoint")))
    text, data = drawn("fig16", tmp_path, tmp_path / "out")
    assert "Euler steps" in text and set(data.solver.dropna()) == {"euler", "dopri5"}


def test_the_sweep_names_data_solvers_methods_and_their_quality(whole, tmp_path):
    text, data = drawn("fig07", whole, tmp_path)
    for part in ("board", "tall", "Euler", "RK4", "NFE", "DDPM (NLL 2.50)", "FM, OT path (NLL 2.50)", "mine (NLL 2.50)"):
        assert part in text
    assert "midpoint at 1000 NFE" not in text  # the reference's own row is no solver of the sweep
    assert len(data[data.metric == "mse"]) == 2 * 4 * 2 * 2 * 3 and set(data.metric) == {"mse", "reference_mse"}
    assert {"dataset", "method", "seed", "solver", "nfe", "mse", "nll", "nll_unit"} <= set(data.columns)


def test_a_solver_on_two_grids_has_two_columns(tmp_path):
    rows = [
        Row("board", method, 0, "sweep", "mse", 0.1, "squared", solver=solver, nfe=nfe, n=8)
        for method in ("fm_ot", "oracle_ot")
        for solver in ("midpoint", "midpoint/karras", "ddim")
        for nfe in (4.0, 8.0)
    ]
    write_rows(tmp_path / "records.parquet", rows)
    lines = drawn("fig07", tmp_path, tmp_path)[0].splitlines()
    for text in (" midpoint ", " midpoint/karras ", " DDIM ", " Oracle, OT path (no NLL) "):
        assert text in lines


@pytest.mark.parametrize(("name", "dataset", "other"), [("fig04", "board", "tall"), ("fig11", "tall", "board")])
def test_the_sheets_have_a_column_for_the_data_and_each_method(whole, tmp_path, name, dataset, other):
    text, data = drawn(name, whole, tmp_path)
    for part in (dataset, "Data", "DDPM", "FM, OT path", "mine"):
        assert part in text
    assert other not in text and set(data.dataset) == {dataset}
    assert set(data[data.method != "data"].seed) == ({0, 1} if name == "fig04" else {0})


def test_methods_that_are_asked_for_are_shown_alone(whole, tmp_path):
    text, data = drawn("fig06", whole, tmp_path, methods=["ddpm"])
    assert set(data.method) == {"ddpm", "data"} and "DDPM" in text and "mine" not in text
    text, data = drawn("fig05", whole, tmp_path, methods=["mine", "fm_ot"])
    assert set(data.method) == {"mine", "fm_ot"} and "DDPM" not in text


def test_the_command_line_asks_for_methods_too(whole, tmp_path):
    where = ["--results", whole, "--out", tmp_path / "f.pdf", "--data", tmp_path / "f.parquet"]
    said = command("figure", "fig10", *where, "--method", "ddpm", "--method", "mine", "--progress", "lines")
    assert said.code == 0 and "f.pdf" in said.err
    assert (tmp_path / "f.pdf").read_bytes().startswith(MAGIC["pdf"])
    assert set(read_table(tmp_path / "f.parquet").column("method").to_pylist()) == {"ddpm", "mine"}
    said = command("figure", "fig10", *where, "--method", "ot")
    assert said.code == 3 and "has no data of ot" in said.err


def test_a_method_that_the_results_lack_is_an_error(whole, tmp_path, theory):
    with pytest.raises(DataError, match="has no data of vp; choose from ddpm, score_matching, fm_ot, mine"):
        write_figure("fig05", whole, [tmp_path / "f.png"], methods=["fm_ot", "vp"])
    with pytest.raises(DataError, match="does not show methods one by one"):
        write_figure("fig03", theory, [tmp_path / "f.png"], methods=["ddpm"])


def test_results_without_the_figures_default_methods_show_all_methods():
    data = pd.DataFrame({"method": ["oracle_ot", "mine", "data"]})
    assert chosen("fig06", data).method.tolist() == ["oracle_ot", "mine", "data"]
    more = pd.DataFrame({"method": ["oracle_ot", "fm_ot", "mine", "data"]})
    assert chosen("fig06", more).method.tolist() == ["fm_ot", "mine", "data"]
    assert chosen("fig05", more) is more
