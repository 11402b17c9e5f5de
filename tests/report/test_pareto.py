"""Quality and cost of every trained method: the cost of trainings, the table and the picture."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from figure_results import drawn, results_folder, write_models
from pyarrow import concat_tables
from user_code import command

from fmbench.config.methods import METHODS
from fmbench.errors import DataError
from fmbench.report.claims.student import student
from fmbench.report.figures.pareto import frontier
from fmbench.report.pareto import pareto_table, write_pareto
from fmbench.report.training_cost import training_costs
from fmbench.store.parquet import write_table
from fmbench.store.records import Row, read_rows, write_rows


def taught(name, teacher):
    """A method that a teacher teaches."""
    student = METHODS["rectified_flow_2"]
    return dataclasses.replace(student, name=name, teacher=dataclasses.replace(student.teacher, name=teacher))


def trained(method, seed, images, seconds):
    yield Row("board", method, seed, "train", "images_seen", images, "samples", step=10)
    yield Row("board", method, seed, "train", "train_seconds", seconds, "s", step=10)


def paired(method, seed, evaluations, seconds):
    yield Row("board", method, seed, "pairs", "pair_evaluations", evaluations, "evaluations")
    yield Row("board", method, seed, "pairs", "pair_seconds", seconds, "s")


@pytest.fixture
def students(tmp_path):
    rows = [*trained("fm_ot", 0, 100.0, 7.0), *trained("mean_flow", 0, 100.0, 9.0), *trained("oracle_ot", 0, 50.0, 1.0)]
    rows += [*trained("rectified_flow_2", 0, 100.0, 8.0), *paired("rectified_flow_2", 0, 4000.0, 3.0)]
    rows += [*trained("twice", 0, 100.0, 6.0), *paired("twice", 0, 2000.0, 2.0)]
    rows += [*trained("of_oracle", 0, 100.0, 5.0), *paired("of_oracle", 0, 1000.0, 1.0)]
    write_rows(tmp_path / "records.parquet", rows)
    methods = [*(METHODS[name] for name in ("fm_ot", "mean_flow", "oracle_ot", "rectified_flow_2"))]
    methods += [taught("twice", "rectified_flow_2"), taught("of_oracle", "oracle_ot")]
    write_models(tmp_path, (("board", method, 0) for method in methods))
    return tmp_path


def test_a_student_costs_its_teachers_too_and_a_loss_with_a_derivative_costs_two_passes_more(students):
    costs = training_costs(students).set_index("method")
    assert costs.passes.to_dict() == {
        **dict.fromkeys(("fm_ot", "rectified_flow_2", "twice", "of_oracle"), 300.0),
        "mean_flow": 500.0,
    }
    assert costs.before_passes.to_dict() == {
        **dict.fromkeys(("fm_ot", "mean_flow"), 0.0),
        "rectified_flow_2": 300.0 + 4000.0,
        "twice": 300.0 + 4000.0 + 300.0 + 2000.0,
        "of_oracle": 1000.0,
    }
    assert costs.before_seconds.to_dict() == {
        **dict.fromkeys(("fm_ot", "mean_flow"), 0.0),
        "rectified_flow_2": 7.0 + 3.0,
        "twice": 7.0 + 3.0 + 8.0 + 2.0,
        "of_oracle": 1.0,
    }


@pytest.mark.parametrize("gone", ["fm_ot", "pair_evaluations"])
def test_the_cost_of_a_student_is_not_known_without_that_of_its_teacher(students, gone):
    rows = read_rows([students / "records.parquet"]).to_pylist()
    kept = [Row(**row) for row in rows if gone not in (row["method"], row["metric"])]
    write_rows(students / "records.parquet", kept)
    costs = training_costs(students).set_index("method").before_passes
    assert np.isnan(costs["rectified_flow_2"]) and np.isnan(costs["twice"]) and costs["mean_flow"] == 0


def test_the_snapshots_of_a_student_are_drawn_after_the_cost_of_its_teacher(students, tmp_path):
    columns = {"n": 9, "features": "coordinates"}
    rows = [
        Row("board", method, 0, "learning_curve", "energy_distance", 1.0 / step, "data units", step=step, **columns)
        for method in ("fm_ot", "rectified_flow_2")
        for step in (5, 10)
    ]
    write_rows(students / "learning_curve.parquet", rows)
    data = drawn("cost", students, tmp_path)[1].set_index(["method", "step"])
    assert data.passes.tolist() == [150.0, 300.0, 4450.0, 4600.0] and data.seconds.tolist() == [3.5, 7.0, 14.0, 18.0]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results of four methods, with a distance of their samples, and samples of two of them by one evaluation."""
    folder = results_folder(tmp_path_factory.mktemp("pareto"))
    records, few = [], []
    for k, method in enumerate(("ddpm", "score_matching", "fm_ot", "mine")):
        for dataset, metric, features in (("board", "energy_distance", "coordinates"), ("tall", "frechet", "classifier")):
            for seed in (0, 1):
                at, columns = 10.0**-k * (1 + seed), {"features": features, "n": 9}
                records.append(Row(dataset, method, seed, "sample_quality", metric, at, "squared", **columns))
                records.append(Row(dataset, method, seed, "sweep", "straightness", 0.5 * at, "squared", n=9))
                for solver, factor in (("euler", 5.0), ("ddim", 4.0 if method == "mine" else 6.0)):
                    if method in ("ddpm", "mine"):
                        row = Row(
                            dataset, method, seed, "few_step", metric, factor * at, "squared", solver=solver, nfe=1.0, **columns
                        )
                        few.append(row)
    for name, more in (("records", records), ("few_step", few)):
        write_rows(folder / "more.parquet", more)
        files = [folder / f"{name}.parquet", folder / "more.parquet"]
        write_table(files[0], concat_tables([read_rows([file]) for file in files]))
    (folder / "more.parquet").unlink()
    return folder


def test_a_row_has_every_measure_with_its_interval_over_seeds(results):
    table = pareto_table(results).set_index(["dataset", "method"])
    assert len(table) == 8 and set(table.seeds) == {2}
    for (dataset, method), row in table.iterrows():
        scale = {"ddpm": 1.0, "score_matching": 0.1, "fm_ot": 0.01, "mine": 0.001}[method]
        expected = {"quality": [scale, 2 * scale], "nll": [2.5, 2.5], "nfe": [50 * scale] * 2, "passes": [1920.0] * 2}
        expected |= {"straightness": [0.5 * scale, scale]}
        if method in ("ddpm", "mine"):
            factor = 4.0 if method == "mine" else 5.0
            expected["one_step"] = [factor * scale, 2 * factor * scale]
            assert row.one_step_solver == ("ddim" if method == "mine" else "euler") and row.one_step_n == 9
        for name, values in expected.items():
            found = [row[f"{name}_{what}"] for what in ("mean", "low", "high")]
            np.testing.assert_allclose(found, [np.mean(values), *student(values)], err_msg=name)
        assert pd.isna(row.one_step_mean) == (method not in ("ddpm", "mine"))
        assert row.metric == ("energy distance" if dataset == "board" else "Frechet distance")


def test_the_text_names_units_and_what_is_lowest(results, tmp_path):
    write_pareto(results, tmp_path / "pareto.csv")
    board, tall = (tmp_path / "pareto.md").read_text().split("## ")[1:]
    header = "| Method | Energy distance (1e-4) | By one evaluation (1e-4) | NLL (bits/dim) | NFE | Straightness |"
    assert header in board and "| Method | Frechet distance | By one evaluation |" in tall
    (mine,) = [line for line in tall.splitlines() if line.startswith("| mine |")]
    cells = [cell.strip() for cell in mine.split("|")[2:-1]]
    half = student([0.001, 0.002])[1] - 0.0015
    assert cells[0] == f"**0.00 ± {half:.2f}**" and cells[4].startswith("**0.001 ±") and cells[5] == "0.002"
    (shown,) = [line for line in board.splitlines() if line.startswith("| mine |")]
    assert shown.split("|")[2].strip().startswith("15.0 ±")  # an energy distance is not bold
    assert "9 samples of the solver with the lowest mean (Euler: DDPM; DDIM: mine)" in board
    assert (tmp_path / "pareto.tex").read_text().count(r"\begin{tabular}{lrrrrrr}") == 2


def test_the_frontier_is_what_no_other_point_beats():
    cost, value = np.array([1.0, 2.0, 2.0, 3.0, 4.0, 5.0]), np.array([9.0, 5.0, 6.0, 5.0, 7.0, 1.0])
    assert frontier(cost, value).tolist() == [True, True, False, False, False, True]
    assert frontier(np.array([1.0, 2.0, np.nan]), np.array([np.nan, 3.0, 1.0])).tolist() == [False, True, False]
    assert frontier(np.ones(2), np.ones(2)).tolist() == [True, True]


def test_the_picture_has_the_best_solver_at_each_nfe_and_the_snapshots(results, tmp_path):
    text, data = drawn("pareto", results, tmp_path)
    for part in ("NFE", "passes of the network in training", "energy distance", "Frechet distance", "DDPM", "mine"):
        assert part in text
    mine = data[(data.dataset == "tall") & (data.method == "mine")]
    of_nfe = mine[mine.cost == "nfe"].set_index("at")
    assert of_nfe.solver.to_dict() == {1.0: "ddim", 4.0: "euler", 8.0: "euler", 0.05: "dopri5"}
    assert of_nfe.loc[4.0, ["mean", "low", "high"]].tolist() == pytest.approx([0.375e-3, *student([0.25e-3, 0.5e-3])])
    assert of_nfe.best.to_dict() == {0.05: True, 1.0: False, 4.0: False, 8.0: False}
    during = mine[mine.cost == "passes"].set_index("at")
    assert during["mean"].to_dict() == pytest.approx({480.0: 4.5e-3, 960.0: 2.5e-3, 1920.0: 1.5e-3})
    assert during.best.all() and not data[(data.method == "ddpm") & (data.cost == "passes")].best.any()


def test_oracles_are_not_trained_and_have_no_row(tmp_path):
    folder = results_folder(tmp_path, methods=("fm_ot", "oracle_ot"))
    assert set(pareto_table(folder).method) == {"fm_ot"} and set(drawn("pareto", folder, tmp_path)[1].method) == {"fm_ot"}
    only = results_folder(tmp_path / "only", methods=("oracle_ot",))
    assert pareto_table(only).empty and "no trained methods" in drawn("pareto", only, tmp_path)[0]


def test_the_command_says_how_many_rows_are_whole(results, tmp_path):
    said = command("pareto", "--results", results, "--out", tmp_path / "pareto.csv")
    assert said.code == 0 and "8 rows, 8 ok -> " in said.err
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"parquet is missing"):
        pareto_table(tmp_path / "empty")
