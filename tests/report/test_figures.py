"""Figures: the data each selects, by hand; that each is drawn, whatever is missing; that it says what it shows."""

import re
import xml.etree.ElementTree
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.axes import Axes
from user_code import command

from fmbench.config import names
from fmbench.errors import DataError
from fmbench.report import curves, panels, pictures
from fmbench.report import theory as theory_figures
from fmbench.report.figures import FIGURES, chosen, write_figure
from fmbench.report.style import LABELS, colours, distance_label, label, markers, solver_label, wrap
from fmbench.store.records import PREVIEW, Row, previews, read_rows, read_table, write_rows, write_table

REASON = "the loss became nan at iteration 17 (learning rate 0.002)"
FEATURES = "classifier(tall, 64 features)"
DRAWN = [name for name, files in names.FIGURES.items() if "theory" not in files[0]]
MAGIC = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
TIMES, NFES = (0.0, 0.5, 1.0), (4, 8)

# A small results folder


def frame(table: pa.Table, **columns: Any) -> pa.Table:
    """The table with constant columns."""
    for name, value in columns.items():
        table = table.append_column(name, pa.array([value] * table.num_rows))
    return table


def model_rows(dataset: str, method: str, seed: int, scale: float, gone: bool) -> dict[str, list[Row]]:
    """Rows by file: those of a model that is the better the smaller ``scale``; ``gone``: its training diverged at the start."""
    primary, unit, features = ("energy_distance", "data units", "coordinates")
    if dataset == "tall":
        primary, unit, features = ("frechet", "squared features", FEATURES)
    skipped = {"status": "skipped", "reason": f"training diverged: {REASON}"}
    lost: dict[str, Any] = skipped if gone else {}

    def row(stage: str, metric: str, value: float, unit: str, **columns: Any) -> Row:
        return Row(dataset, method, seed, stage, metric, None if gone else value, unit, **columns, **lost)

    bad = {"status": "diverged", "reason": REASON} if gone else {}
    records = [
        Row(dataset, method, seed, "train", "final_loss", None if gone else 1.0, "loss", step=20, **bad),
        Row(dataset, method, seed, "train", "images_seen", 640.0, "samples", step=20),
        Row(dataset, method, seed, "train", "train_seconds", 10.0 + seed, "s", step=20),
        row("likelihood", "nll", 2.5, "bits/dim", n=9),
        row("sample", "nfe", 50.0 * scale, "evaluations", n=9, solver="dopri5"),
    ]
    for solver, nfe in product(("euler", "rk4"), (4.0, 8.0, 20.0)):
        columns: dict[str, Any] = {"solver": solver, "nfe": nfe, "n": 64}
        records.append(row("sweep", "mse", scale / nfe**2, "squared model units", reference="midpoint at 1000 NFE", **columns))
        records.append(row("sweep", "seconds", nfe / 1000, "s", **columns))
    reference = {"solver": "midpoint at 1000 NFE", "nfe": 300.0, "n": 16}
    records += [] if gone else [row("sweep", "reference_mse", 1e-12, "squared model units", **reference)]
    along, budget = [], []
    for step in (20,) if gone else (5, 10, 20):
        along.append(row("learning_curve", "nfe", 30 + step + seed, "evaluations", step=step, n=9, solver="dopri5"))
        along.append(row("learning_curve", "nfe_std_over_samples", 3.0, "evaluations", step=step, n=9, solver="dopri5"))
        along.append(row("learning_curve", primary, scale * (20 / step + seed), unit, step=step, n=9, features=features))
    for solver, budgeted in product(("euler", "midpoint"), NFES):
        where: dict[str, Any] = {"solver": solver, "nfe": float(budgeted), "n": 9}
        budget.append(row("few_step", primary, scale * (1 + seed) / budgeted, unit, features=features, **where))
        budget.append(row("few_step", "seconds", budgeted / 1000, "s", **where))
    nfe = {} if gone else {"nfe": 50.0 * scale}
    budget.append(row("few_step", primary, scale / 10, unit, features=features, solver="dopri5", n=9, **nfe))
    return {"records": records, "learning_curve": along, "few_step": budget}


def results_folder(
    folder: Path,
    lost: tuple[str, ...] = (),
    datasets: tuple[str, ...] = ("board", "tall"),
    methods: tuple[str, ...] = ("ddpm", "score_matching", "fm_ot", "mine"),
    seeds: tuple[int, ...] = (0, 1),
) -> Path:
    """All that figures of trained models are drawn from: points (board) and images of 5 levels (tall); ``lost`` diverged."""
    g = np.random.default_rng(0)
    rows: dict[str, list[Row]] = {"records": [], "learning_curve": [], "few_step": []}
    shown: dict[str, list[pa.Table]] = {"previews": [], "trajectory": [], "few_step_previews": [], "nfe": []}
    states = PREVIEW.append(pa.field("t", pa.float64()))
    few = PREVIEW.append(pa.field("solver", pa.string())).append(pa.field("nfe", pa.int64()))
    nfe = pa.schema([(n, pa.string()) for n in ("dataset", "method")] + [(n, pa.int64()) for n in ("seed", "index", "nfe")])

    for dataset in datasets:

        def draw(dataset: str = dataset) -> np.ndarray:
            return g.uniform(-2, 2, (40, 2)) if dataset == "board" else g.integers(0, 5, (40, 3, 6, 4))

        for (k, method), seed in product(enumerate(methods), seeds):
            for name, part in model_rows(dataset, method, seed, 10.0**-k, method in lost).items():
                rows[name] += part
            if method in lost:
                continue
            shown["previews"].append(previews(dataset, method, seed, draw(), range(40)))
            counts = [{"dataset": dataset, "method": method, "seed": seed, "index": i, "nfe": 20 + 6 * (i % 3)} for i in range(9)]
            shown["nfe"].append(pa.Table.from_pylist(counts, nfe))
            if seed == seeds[0]:
                for t in TIMES:
                    shown["trajectory"].append(frame(previews(dataset, method, seed, draw()[:8], range(8)), t=t))
                for solver, n in [*product(("euler", "midpoint"), NFES), ("dopri5", 0)]:
                    shown["few_step_previews"].append(
                        frame(previews(dataset, method, seed, draw()[:8], range(8)), solver=solver, nfe=n)
                    )
        shown["previews"].append(previews(dataset, "data", None, draw(), range(40)))
    for name, some in rows.items():
        write_rows(folder / f"{name}.parquet", some)
    empty = {"previews": PREVIEW, "trajectory": states, "few_step_previews": few, "nfe": nfe}
    for name, tables in shown.items():
        write_table(folder / f"{name}.parquet", pa.concat_tables([empty[name].empty_table(), *tables]))
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """With everything there, read only."""
    return results_folder(tmp_path_factory.mktemp("whole"))


def texts(path: Path) -> str:
    """The comments matplotlib leaves in an SVG: the text drawn."""
    parser = xml.etree.ElementTree.XMLParser(target=xml.etree.ElementTree.TreeBuilder(insert_comments=True))
    root = xml.etree.ElementTree.parse(path, parser).getroot()
    return "\n".join(e.text or "" for e in root.iter() if e.tag is xml.etree.ElementTree.Comment)


def drawn(name: str, results: Path, folder: Path, **options: Any) -> tuple[str, pd.DataFrame]:
    """The text on a figure and the data it shows, as written."""
    write_figure(name, results, [folder / "f.svg"], folder / "f.parquet", **options)
    return texts(folder / "f.svg"), read_table(folder / "f.parquet").to_pandas()


# Labels and colours


def test_every_known_method_has_a_label_and_a_colour_of_its_own():
    methods = [m for m in LABELS if m != "data"]
    assert methods == list(names.METHODS)
    assert len({label(m) for m in methods}) == len({tuple(c) for c in colours(methods).values()}) == 7
    assert len(set(markers(methods).values())) == 7


def test_every_known_solver_has_a_label_and_a_grid_is_said():
    labels = [solver_label(s) for s in names.STEP_COSTS]
    assert len(set(labels)) == len(names.STEP_COSTS) and labels[:2] == ["Euler", "midpoint"]
    assert (solver_label("rk4/karras"), solver_label("my.solver")) == ("RK4/karras", "my.solver")


def test_a_method_keeps_its_colour_and_marker_whatever_else_is_shown():
    for table in (colours, markers):
        alone = {m: table([m])[m] for m in ("fm_ot", "ddpm", "mine", "yours")}
        for others in (["mine", "ddpm"], ["ddpm", "mine", "scoreflow"]):
            assert {m: table(others)[m] for m in ("mine", "ddpm")} == {m: alone[m] for m in ("mine", "ddpm")}
        assert table(["yours", "mine", "fm_ot"]) == {m: table(["fm_ot", "mine", "yours"])[m] for m in ("yours", "mine", "fm_ot")}


def test_own_methods_differ_from_each_other_and_from_the_known_ones():
    own = ["mine", "yours", "a", "b", "c"]
    looks = panels.looks([*names.METHODS, *own])
    assert len({(look["color"], look["marker"]) for look in looks.values()}) == 12
    assert len({colours([*names.METHODS, *own[:3]])[m] for m in [*names.METHODS, *own[:3]]}) == 10
    assert label("mine") == "mine"


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [("DDPM", 11, ["DDPM"]), ("FM, OT path", 11, ["FM, OT path"]), ("FM, diffusion path", 11, ["FM,", "diffusion", "path"])],
)
def test_long_names_are_wrapped(text, width, lines):
    assert wrap(text, width).split("\n") == lines


def test_only_inceptions_frechet_distance_is_called_fid():
    assert distance_label("frechet", "pytorch-fid InceptionV3(2048, sha256 6726825d)") == "FID"
    assert distance_label("frechet", FEATURES) == "Frechet distance"
    assert distance_label("energy_distance", "coordinates") == "energy distance"


# What is selected, by hand


def test_a_band_is_mean_and_range_over_seeds():
    x, values = pd.Series([10, 5, 10, 5]), pd.Series([4.0, 2.0, 1.0, 8.0])
    table = panels.band(x, values)
    assert table.index.tolist() == [5, 10] and table["mean"].tolist() == [5.0, 2.5]
    assert (table.low.tolist(), table.high.tolist(), table.seeds.tolist()) == ([2, 1], [8, 4], [2, 2])
    logs = panels.band(x, values, log=True)
    np.testing.assert_allclose(logs["mean"], [4, 2])
    np.testing.assert_allclose(logs[["low", "high"]], [[2, 8], [1, 4]])


def test_the_distance_along_training_is_the_primary_one_of_every_seed(whole, tmp_path):
    text, data = drawn("fig05", whole, tmp_path)
    assert set(data.metric) == {"energy_distance", "frechet"} and len(data) == 2 * 4 * 2 * 3
    mine = data[(data.dataset == "board") & (data.method == "ddpm")].sort_values(["step", "seed"])
    assert mine.value.tolist() == [4.0, 5.0, 2.0, 3.0, 1.0, 2.0] and mine.step.tolist() == [5, 5, 10, 10, 20, 20]
    table = panels.band(mine.step, mine.value)
    assert (table["mean"].tolist(), table.low.tolist(), table.high.tolist()) == ([4.5, 2.5, 1.5], [4, 2, 1], [5, 3, 2])
    for part in ("board", "tall", "energy distance", "Frechet distance", "iterations", "DDPM", "FM, OT path", "mine"):
        assert part in text
    assert "FID" not in text


def test_nfe_along_training(whole, tmp_path):
    text, data = drawn("fig10", whole, tmp_path)
    assert set(data.metric) == {"nfe"}  # and not its spread
    assert sorted(data[(data.method == "mine") & (data.dataset == "tall")].value) == [35, 36, 40, 41, 50, 51]
    assert "NFE (dopri5)" in text


def test_the_cost_of_a_snapshot_is_its_share_of_the_training(whole, tmp_path):
    text, data = drawn("cost", whole, tmp_path)
    rows = data[(data.dataset == "tall") & (data.method == "fm_ot") & (data.seed == 1)].set_index("step")
    assert rows.images.to_dict() == {5: 160.0, 10: 320.0, 20: 640.0}
    assert rows.seconds.to_dict() == {5: 2.75, 10: 5.5, 20: 11.0}
    for part in ("training images", "training seconds", "Frechet distance"):
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
    assert "seconds a sample" in text and "no seconds" not in text and "RK4" in text


def test_work_and_precision_of_results_that_have_no_seconds(whole, tmp_path):
    table = read_rows([whole / "records.parquet"])
    write_table(tmp_path / "records.parquet", table.filter(pa.compute.not_equal(table["metric"], "seconds")))
    text, data = drawn("work_precision", tmp_path, tmp_path / "out")
    assert "no seconds" in text and data.seconds.isna().all() and data.mse.notna().all()


def test_the_share_of_samples_by_nfe_is_the_one_by_hand(whole, tmp_path):
    text, data = drawn("nfe_distribution", whole, tmp_path)
    mine = data[(data.dataset == "board") & (data.method == "mine")]
    assert mine["nfe"].tolist() == [20, 26, 32] * 2 and mine["count"].tolist() == [3] * 6
    counts = pd.DataFrame({"seed": [0, 0, 1], "nfe": [20, 32, 26], "count": [1, 3, 4]})
    table = curves.shares(counts)
    assert table.index.tolist() == [19, 20, 26, 32]
    assert table["mean"].tolist() == [0, 0.125, 0.625, 1]
    assert (table.low.tolist(), table.high.tolist()) == ([0, 0, 0.25, 1], [0, 0.25, 1, 1])
    assert curves.shares(counts.iloc[:0]).empty
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


def test_two_methods_on_two_grids_are_columns_of_their_own(tmp_path):
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


# Which methods


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
    assert said.code == 3 and "has nothing of ot" in said.err


def test_a_method_that_is_not_there_cannot_be_asked_for(whole, tmp_path, theory):
    with pytest.raises(DataError, match="has nothing of vp; methods there: ddpm, score_matching, fm_ot, mine"):
        write_figure("fig05", whole, [tmp_path / "f.png"], methods=["fm_ot", "vp"])
    with pytest.raises(DataError, match="does not show methods one by one"):
        write_figure("fig03", theory, [tmp_path / "f.png"], methods=["ddpm"])


def test_results_without_the_figures_own_choice_show_what_there_is():
    data = pd.DataFrame({"method": ["oracle_ot", "mine", "data"]})
    assert chosen("fig06", data).method.tolist() == ["oracle_ot", "mine", "data"]
    more = pd.DataFrame({"method": ["oracle_ot", "fm_ot", "mine", "data"]})
    assert chosen("fig06", more).method.tolist() == ["fm_ot", "mine", "data"]
    assert chosen("fig05", more) is more


# What is missing is said


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_survives_that_all_have_diverged_and_of_one_seed(tmp_path, name):
    methods = ("ddpm", "score_matching", "fm_ot")
    results_folder(tmp_path, lost=methods, methods=methods, seeds=(3,))
    write_figure(name, tmp_path, [tmp_path / "f.svg"], tmp_path / "f.parquet")
    said = {
        "fig07": "diverged",
        "fig05": "1 of 1 seeds diverged",
        "fig07_quality": "5 of 5 diverged",
        "work_precision": "no errors",
    }
    said |= {"fig04": "diverged", "fig11": "diverged", "nfe_distribution": "1 of 1 diverged", "fig10": "1 of 1 seeds div"}
    assert said.get(name, "") in texts(tmp_path / "f.svg")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fig05", "DDPM: 2 of 2 seeds diverged"),
        ("fig07", "DDPM (no NLL; 12 cells diverged)"),
        ("fig07_quality", "10 of 10 diverged"),
        ("work_precision", "12 of 12 diverged"),
        ("nfe_distribution", "DDPM: 2 of 2 diverged"),
        ("fig04", "diverged"),
        ("fig09", "diverged"),
        ("fig16", "diverged"),
    ],
)
def test_a_method_that_diverged_is_named(tmp_path, name, said):
    results = results_folder(tmp_path, lost=("ddpm",))
    text, data = drawn(name, results, tmp_path)
    assert said in text and "mine" in text and "ddpm" in set(data.method)
    assert data.method.iloc[0] == "ddpm"  # where it stands in the records


def test_the_first_seed_lost_is_not_the_whole_method(tmp_path):
    """Pictures are of the first seed: a method whose second seed went well has none, and is there."""
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


def test_a_data_set_without_a_methods_rows_says_so(tmp_path):
    rows = [Row("a", m, 0, "learning_curve", "nfe", 9.0, "evaluations", step=s, n=4) for m in ("ddpm", "fm_ot") for s in (1, 2)]
    rows += [Row("b", "fm_ot", 0, "learning_curve", "nfe", 9.0, "evaluations", step=s, n=4) for s in (1, 2)]
    rows[1] = Row("a", "ddpm", 0, "learning_curve", "nfe", None, "evaluations", "skipped", "dopri5 gave up", step=2, n=4)
    write_rows(tmp_path / "learning_curve.parquet", rows)
    text, _ = drawn("fig10", tmp_path, tmp_path)
    assert "DDPM: no rows" in text and "DDPM: 1 of 2 skipped" in text and "FM, OT path:" not in text


@pytest.mark.parametrize(("name", "datasets"), [(n, ("tall",)) for n in ("fig04", "fig09")] + [("fig16", ("board",))])
def test_a_figure_of_a_kind_of_data_that_is_not_there(tmp_path, name, datasets):
    """The default target draws every figure, whatever the config's data sets are."""
    assert "no samples" in drawn(name, results_folder(tmp_path, datasets=datasets), tmp_path)[0]


@pytest.mark.parametrize("name", [name for name in DRAWN if name != "fig07"])
def test_a_figure_of_files_without_rows_says_so(tmp_path, name):
    results_folder(tmp_path, datasets=())
    text, data = drawn(name, tmp_path, tmp_path)
    assert data.empty and re.search(r"no samples|nothing measured|no solver|no sample's|no samples of few", text)


def test_a_sweep_without_rows(tmp_path):
    write_rows(tmp_path / "records.parquet", [Row("digits", "ddpm", 0, "likelihood", "nll", 2.5, "bits/dim")])
    with pytest.raises(DataError, match="has no rows of a sweep"):
        write_figure("fig07", tmp_path, [tmp_path / "f.png"])


@pytest.mark.parametrize("dimensions", [1, 3])
def test_points_that_are_not_on_the_plane_have_no_density_on_it(tmp_path, dimensions):
    points = np.random.default_rng(0).standard_normal((9, dimensions))
    shown = [previews("line", "data", None, points, range(9)), previews("line", "ddpm", 0, points, range(9))]
    write_table(tmp_path / "previews.parquet", pa.concat_tables(shown))
    write_rows(tmp_path / "records.parquet", [])
    assert "line" not in drawn("fig04", tmp_path, tmp_path)[0]


# How it is drawn


def test_a_density_is_the_share_of_points_whatever_their_number():
    points = np.array([[0.5, 1.5], [0.5, 1.5], [-1.5, 0.5], [9.0, 0.0]])
    shades = pictures.density(points, reach=2.0, bins=4)
    expected = np.zeros((4, 4))
    expected[3, 2], expected[2, 0] = 0.5, 0.25  # rows are y, from low to high; what is outside counts for the share
    np.testing.assert_array_equal(shades, expected)
    np.testing.assert_array_equal(pictures.density(np.repeat(points, 3, axis=0), 2.0, 4), expected)


def test_many_points_are_drawn_as_a_density_and_few_as_points(monkeypatch):
    used = []
    monkeypatch.setattr(Axes, "imshow", lambda self, values, **_: used.append(("density", len(values))))
    monkeypatch.setattr(Axes, "scatter", lambda self, x, y, **_: used.append(("points", len(x))))
    real = pd.DataFrame({"values": list(np.ones((5, 2))), "shape": [[2]] * 5})
    axis = plt.figure().add_subplot()
    for n in (pictures.DENSE - 1, pictures.DENSE):
        pictures.plane(axis, pd.DataFrame({"values": list(np.zeros((n, 2))), "shape": [[2]] * n}), real)
    plt.close()
    assert used == [("points", pictures.DENSE - 1), ("density", 60)]


def test_points_outside_of_the_frame_are_counted_in_it():
    real = pd.DataFrame({"values": list(np.ones((5, 2))), "shape": [[2]] * 5})  # a frame of 1.25
    figure, (few, more) = plt.subplots(1, 2)
    for axis, n in ((few, 5), (more, 6)):
        points = np.zeros((100, 2))
        points[:n, n % 2] = -1.3
        pictures.plane(axis, pd.DataFrame({"values": list(points), "shape": [[2]] * 100}), real)
    assert [t.get_text() for t in few.texts] == [] and [t.get_text() for t in more.texts] == ["6% outside"]
    plt.close(figure)


def test_a_sheet_is_in_the_order_of_the_noise_row_by_row():
    images = np.arange(4).reshape(4, 1, 1, 1) * np.ones((4, 3, 2, 1))
    sheet = pictures.tiled(images, 2, 2, brightest=4.0)
    assert sheet.shape == (5, 3, 3)
    np.testing.assert_array_equal(sheet[::3, ::2, 0], [[0, 0.25], [0.5, 0.75]])
    assert (sheet[2] == 1).all() and (sheet[:, 1] == 1).all()  # paper between
    assert pictures.tiled(images[:, :1], 2, 2, 4.0)[0, 0, 0] == 1  # one channel is ink on paper


def test_a_distance_below_zero_is_drawn_and_not_dropped():
    figure, (left, right) = plt.subplots(1, 2)
    panels.log_or_signed(left, pd.Series([0.001, 0.1]))
    panels.log_or_signed(right, pd.Series([-0.001, 0.1]))
    assert (left.get_yscale(), right.get_yscale()) == ("log", "symlog")
    low, high = panels.limits(pd.Series([-0.001, 0.1]))
    assert low < -0.001 and high > 0.1
    plt.close(figure)


@pytest.mark.parametrize(
    ("values", "scale", "texts"),
    [
        ([-0.0013, 0.0025], "linear", None),  # no power of ten between
        ([-0.4, -0.1], "linear", None),
        ([0.0, 0.0], "linear", None),
        ([-0.001, 0.011], "symlog", ["0", "0.002", "0.005", "0.01"]),
        ([-0.0013, 0.06], "symlog", ["0", "0.005", "0.01", "0.02", "0.05"]),
        ([-0.0013, 2.0], "symlog", ["0", "$10^{-2}$", "$10^{-1}$", "$10^{0}$"]),
    ],
)
def test_an_axis_around_zero_can_be_read(values, scale, texts):
    figure, axis = plt.subplots(figsize=(3.4, 2.2))
    axis.plot(range(2), values)
    panels.log_or_signed(axis, pd.Series(values))
    low, high = panels.limits(pd.Series(values))
    assert axis.get_yscale() == scale and low < min(values) and high > max(values)
    axis.set_ylim(low, high)
    shown = [t for t in axis.get_yticks() if low <= t <= high]
    assert len(shown) >= 3 and 0 in shown
    if texts:
        assert [t.get_text() for t in axis.get_yticklabels()] == texts
        named = dict(zip(axis.get_yticks(), texts, strict=True))
        assert all(float(text) == tick for tick, text in named.items() if "^" not in text)
    plt.close(figure)


def test_ticks_of_x_leave_those_of_y():
    figure, axis = plt.subplots()
    axis.plot([4, 40], [20, 90])
    axis.set_xscale("log")
    panels.log_or_signed(axis, pd.Series([20, 90]))
    panels.ticks_at(axis, [4, 40])
    figure.canvas.draw()
    assert [t.get_text() for t in axis.get_yticklabels(minor=True) if t.get_text()] and not axis.get_xticks(minor=True).size
    plt.close(figure)


def test_ticks_go_on_to_what_is_beyond_them():
    assert panels.beyond([4, 8, 40], 240) == [100, 200]
    assert panels.beyond([4, 8], 50) == [20, 50]
    assert panels.beyond([4, 8, 40], 60) == panels.beyond([4, 100], 50) == panels.beyond([], 50) == []


def test_the_lines_of_the_sweep_are_geometric_means_and_the_references_error_is_drawn_where_it_matters():
    """Two seeds a factor of 100 apart; the reference's own error is a tenth of the best of a, a hundredth of the best of b."""
    rows = [
        {"dataset": "d", "method": m, "seed": s, "metric": "mse", "solver": "euler", "nfe": nfe, "mse": 10.0 ** (2 * s) / nfe}
        for m, s, nfe in product(("a", "b"), (0, 1), (4.0, 10.0))
    ]
    rows += [rows[0] | {"method": m, "metric": "reference_mse", "mse": own} for m, own in (("a", 0.1), ("b", 0.01))]
    figure = curves.fig07(pd.DataFrame(rows).assign(status="ok", n=9, reference="r", nll=1.0, nll_unit="nats"))
    lines = [np.asarray(line.get_ydata(), float) for line in figure.axes[0].get_lines()]
    assert [line.tolist() for line in lines if len(set(line)) > 1] == [pytest.approx([2.5, 1.0])] * 2
    assert [line[0] for line in lines if len(set(line)) == 1] == [0.1]
    plt.close(figure)


def test_an_estimate_below_zero_is_drawn_hollow():
    rows = [
        {"path": "ot", "sampler": "Euler", "kind": "ode", "nfe": nfe, "energy_distance": v, "floor": 1e-4}
        for nfe, v in ((6, 0.1), (12, -0.01), (24, 0.001))
    ]
    figure = theory_figures.samplers(pd.DataFrame(rows))
    hollow = [line for line in figure.axes[0].get_lines() if line.get_markerfacecolor() == "white"]
    assert [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in hollow] == [([12], [0.01])]
    plt.close(figure)


def test_crosses_of_the_adaptive_solver_have_ticks(whole):
    figure = curves.fig07_quality(curves.fig07_quality_data(whole))
    for axis in figure.axes:
        assert [t.get_text() for t in axis.get_xticklabels()] == ["50", "20", "8", "4"]
    plt.close(figure)


def test_ticks_that_would_touch_are_left_out():
    figure, axis = plt.subplots()
    axis.set_xscale("log")
    panels.ticks_at(axis, [4, 8, 12, 20, 40, 60, 100])
    assert [t.get_text() for t in axis.get_xticklabels()] == ["100", "40", "20", "8", "4"]
    plt.close(figure)


# The files


@pytest.mark.parametrize("name", ["fig06", "fig07", "cost"])
def test_a_figure_is_drawn_into_every_format_the_same_each_time(whole, tmp_path, name):
    for turn in ("a", "b"):
        outputs = [tmp_path / turn / f"f.{kind}" for kind in MAGIC]
        write_figure(name, whole, outputs, tmp_path / turn / "f.parquet")
    for kind, magic in MAGIC.items():
        content = (tmp_path / "a" / f"f.{kind}").read_bytes()
        assert content.startswith(magic) and len(content) > 3000
        assert content == (tmp_path / "b" / f"f.{kind}").read_bytes()
    assert (tmp_path / "a" / "f.parquet").read_bytes() == (tmp_path / "b" / "f.parquet").read_bytes()


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_needs_the_files_it_names_and_no_other(whole, tmp_path, name):
    """Somebody else's results may hold just these."""
    for file in names.FIGURES[name]:
        (tmp_path / file).write_bytes((whole / file).read_bytes())
    data = FIGURES[name].select(tmp_path)
    assert len(data) > 0
    for file in names.FIGURES[name]:
        (tmp_path / file).rename(tmp_path / "away")
        with pytest.raises(DataError, match=rf"{re.escape(file)} is missing"):
            FIGURES[name].select(tmp_path)
        (tmp_path / "away").rename(tmp_path / file)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_of_no_results(tmp_path, name):
    with pytest.raises(DataError, match=r"\.parquet is missing"):
        write_figure(name, tmp_path, [tmp_path / "f.png"])


def test_a_figure_that_is_not_known(tmp_path):
    with pytest.raises(DataError, match=f"unknown figure 'fig99'; known: {', '.join(FIGURES)}"):
        write_figure("fig99", tmp_path, [tmp_path / "f.png"])


@pytest.mark.parametrize("name", ["f.jpg", "f", "f.txt"])
def test_a_format_that_cannot_be_drawn(whole, tmp_path, name):
    with pytest.raises(DataError, match=rf"cannot draw .*{re.escape(name)}: give a file that ends in \.png, \.svg or \.pdf"):
        write_figure("fig07", whole, [tmp_path / name])
    assert not (tmp_path / name).exists()


def test_figures_are_closed(whole, tmp_path):
    """A hundred of them must not stay in memory."""
    before = plt.get_fignums()
    write_figure("fig11", whole, [tmp_path / "f.png"])
    with pytest.raises(DataError):
        write_figure("fig11", whole, [tmp_path / "f.gif"])
    assert plt.get_fignums() == before


# Of the theory


@pytest.mark.parametrize(
    ("name", "shown_texts"),
    [
        ("fig02", ["diffusion path:", "conditional score", "OT path:", "t = 0", "t = 0.33", "t = 0.67", "t = 1", "magnitude"]),
        ("fig08", ["diffusion path:", "conditional field", "t = 1"]),
        ("fig03", ["VP diffusion path", "OT path"]),
        ("densities", ["OT path", "VP diffusion path", "cosine VP path", "VE diffusion path"]),
        ("samplers", ["energy distance to the data", "Euler", "DDIM", "Heun with churn", "adaptive, 1e-5", "OT path"]),
        ("noise_levels", ["DDPM", "ScoreFlow", "FM, OT path", "mine", "log SNR", "training times"]),
        (
            "equivalence",
            ["DDIM = Euler on the velocity", "Euler under rescaling", "vp as ve", "DDIM, form u", "order 2"],
        ),
    ],
)
def test_a_figure_of_the_theory_shows_its_parquet_and_names_what_it_shows(theory, tmp_path, name, shown_texts):
    """In every format, and the same each time. fig02 and fig08 are two parts of one table."""
    write_figure(name, theory, [tmp_path / f"f.{kind}" for kind in MAGIC], tmp_path / "f.parquet")
    for kind, magic in MAGIC.items():
        assert (tmp_path / f"f.{kind}").read_bytes().startswith(magic)
    write_figure(name, theory, [tmp_path / "again.svg"])
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "f.svg").read_bytes()
    found = texts(tmp_path / "f.svg")
    for text in shown_texts:
        assert text in found
    assert "Oracle" not in found
    (file,) = names.FIGURES[name]
    whole, shown = read_table(theory / file).to_pandas(), read_table(tmp_path / "f.parquet").to_pandas()
    expected = whole[whole.figure == name].reset_index(drop=True) if "figure" in whole else whole
    pd.testing.assert_frame_equal(shown, expected)
    assert len(shown) > 0
