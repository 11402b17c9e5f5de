"""The stage `few_step`: quality, time and pictures of samples with few evaluations."""

from typing import Any

import numpy as np
import pytest
import torch
from pyarrow.parquet import read_table
from tiny_benchmark import CPU, SEED, noise
from user_code import command

from fmbench.config.cells import Cell, pictured
from fmbench.config.hashing import canonical
from fmbench.flow.solvers.fixed import integrate
from fmbench.flow.solvers.grids import GRIDS
from fmbench.flow.solvers.tableaux import FIXED
from fmbench.stages.evaluators.loading import load_evaluator
from fmbench.store.previews import FEW_STEP_PREVIEWS
from fmbench.store.records import read_rows
from fmbench.store.weights import read_tensors, write_tensors


def test_no_previews_are_kept_if_none_are_wanted(bench, tmp_path):
    spec = bench.spec("few_step", "tall", "fm_ot")
    spec["settings"]["shown"] = 0
    folders = ["--data", bench.results / "data" / "tall", "--model", bench.folder("train", "tall", "fm_ot"), "--out", tmp_path]
    folders += ["--samples", bench.folder("sample", "tall", "fm_ot"), "--features", bench.results / "features" / "tall"]
    said = command("few-step", "--spec", canonical(spec), "--progress", "lines", "--cache", tmp_path / "cache", *folders)
    assert said.code == 0, said.err
    assert read_table(tmp_path / "previews.parquet").num_rows == 0
    assert read_rows([tmp_path / "rows.parquet"]).num_rows == len(bench.rows("few_step", "tall", "fm_ot"))


@pytest.mark.parametrize(("dataset", "method"), [("board", "fm_ot"), ("board", "near"), ("tall", "mine")])
def test_cells_of_few_step_equal_those_by_hand(bench, dataset, method):
    """From the noise of the stage ``sample``."""
    data, model = bench.data(dataset), bench.model(dataset, method)
    settings = bench.config.settings[dataset].evaluation.few_step
    judge = load_evaluator(bench.results / "features" / dataset, data, CPU)
    rows = [r for r in bench.rows("few_step", dataset, method) if r["solver"] != "dopri5"]
    cells = [(c.label, c.nfe) for c in settings.cells()]
    distances = {(r["solver"], r["nfe"]): r for r in rows if r["metric"] == judge.primary}
    errors = {(r["solver"], r["nfe"]): r for r in rows if r["metric"] == f"{judge.primary}_stderr"}
    seconds = {(r["solver"], r["nfe"]): r for r in rows if r["metric"] == "seconds"}
    assert list(distances) == list(errors) == list(seconds) == cells and len(rows) == 3 * len(cells)
    assert all(r["value"] > 0 and (r["unit"], r["n"]) == ("s", settings.n) for r in seconds.values())
    table = read_table(bench.folder("few_step", dataset, method) / "previews.parquet")
    assert table.schema.equals(FEW_STEP_PREVIEWS)
    shown = settings.shown or settings.n
    for cell in settings.cells():
        tableau = FIXED[cell.solver]
        objective = model.objective
        grid = GRIDS[cell.grid](objective.path, objective.t_min, objective.t_max, cell.nfe // tableau.stages)
        with torch.no_grad():
            samples = integrate(model.field(), noise(data, model, settings.n), grid, tableau).numpy()
        row = distances[cell.label, cell.nfe]
        expected, error = judge.measure_primary(samples)
        assert row["value"] == pytest.approx(expected.value, rel=1e-3, abs=1e-6)
        assert errors[cell.label, cell.nfe]["value"] == pytest.approx(error, rel=1e-2)
        assert (row["n"], row["batch"]) == (settings.n, min(settings.batch, settings.n))
        assert (row["features"], row["reference"], row["unit"]) == (expected.features, expected.reference, expected.unit)
        pictures = [r for r in table.to_pylist() if (r["solver"], r["nfe"]) == (cell.label, cell.nfe)]
        if cell not in pictured(settings.cells()):
            assert not pictures
            continue
        assert [r["index"] for r in pictures] == list(range(shown))
        np.testing.assert_allclose([r["values"] for r in pictures], data.to_data(samples[:shown]).reshape(shown, -1), atol=1e-3)
        assert all((r["shape"], r["seed"]) == (list(data.shape), SEED) for r in pictures)


@pytest.mark.parametrize("method", ["fm_ot", "oracle_ot"])
def test_many_evaluations_agree_with_the_adaptive_solve(bench, method):
    """At 200 NFE solvers reach the samples, at 4 they do not. The distance of the adaptive solve is over as many samples."""
    data = bench.data("board")
    judge = load_evaluator(bench.results / "features" / "board", data, CPU)
    samples = np.load(bench.folder("sample", "board", method) / "samples.npy")[:20]
    rows = {(r["solver"], r["nfe"]): r["value"] for r in bench.rows("few_step", "board", method) if r["metric"] == judge.primary}
    adaptive, its_error = [r for r in bench.rows("few_step", "board", method) if r["solver"] == "dopri5"]
    expected, error = judge.measure_primary(samples)
    assert (its_error["metric"], its_error["value"]) == ("energy_distance_stderr", error)
    assert (adaptive["value"], adaptive["n"], adaptive["rtol"]) == (expected.value, 20, 1e-3)
    spent = read_table(bench.folder("sample", "board", method) / "nfe.parquet").column("nfe").to_pylist()
    assert adaptive["nfe"] == np.mean(spent[:20])
    assert abs(rows["rk4", 200] - expected.value) < 0.2 * abs(rows["euler", 4] - expected.value)
    pictures: dict[tuple[str, int], list[Any]] = {}
    for row in read_table(bench.folder("few_step", "board", method) / "previews.parquet").to_pylist():
        pictures.setdefault((row["solver"], row["nfe"]), []).append(row["values"])
    np.testing.assert_array_equal(pictures["dopri5", 0], data.to_data(samples))
    far, near = (np.abs(np.subtract(pictures[k], pictures["dopri5", 0])).mean() for k in (("euler", 4), ("euler", 200)))
    assert near < 0.1 * far and far > 0.02


def test_samples_of_one_solver_are_kept():
    """Those of the midpoint method on the uniform grid, wherever it is in the list, or else of the first solver."""
    euler, karras, midpoint = (Cell("euler", "uniform", 4), Cell("midpoint", "karras", 4), Cell("midpoint", "uniform", 4))
    later = Cell("midpoint", "uniform", 8)
    assert pictured([euler, karras, midpoint, later]) == [midpoint, later]
    assert pictured([karras, euler]) == [karras]


def test_too_few_adaptive_samples_are_a_skipped_row(bench):
    rows = [r for r in bench.rows("few_step", "tall", "fm_ot") if r["solver"] == "dopri5"]
    assert [r["metric"] for r in rows] == ["frechet", "frechet_stderr"]
    for row in rows:
        assert row["status"] == "skipped" and row["reason"] == "the stage sample made 16 samples, and 20 are compared"


def test_a_solve_that_overflows_is_a_diverged_row(spoilable):
    """One step of Euler on a field that is far too large."""
    path = spoilable.folder("train", "board", "fm_ot") / "model.safetensors"
    weights = read_tensors(path)
    write_tensors(path, {name: value * 1e30 for name, value in weights.tensors.items()}, weights.metadata)
    assert spoilable.run("few_step", "board", "fm_ot").code == 0
    rows = [
        r for r in spoilable.rows("few_step", "board", "fm_ot") if r["metric"] == "energy_distance" and r["solver"] != "dopri5"
    ]
    assert {r["status"] for r in rows} == {"diverged"}
    assert rows[0]["reason"] == "the samples of euler at 4 NFE, or their distance, are not finite"


def test_only_new_cells_of_few_step_are_computed(spoilable):
    def said(**changes: Any) -> str:
        settings = spoilable.spec("few_step", "board", "fm_ot")["settings"] | changes
        done = spoilable.run("few_step", "board", "fm_ot", settings=settings)
        assert done.code == 0, done.err
        return done.err

    before = spoilable.rows("few_step", "board", "fm_ot")
    assert "0 cells computed, 4 from the cache" in said()
    assert spoilable.rows("few_step", "board", "fm_ot") == before  # seconds included
    assert "2 cells computed, 4 from the cache" in said(nfe=[4, 8, 200])
    previews = spoilable.folder("few_step", "board", "fm_ot") / "previews.parquet"
    many = read_table(previews).to_pylist()
    assert "0 cells computed, 4 from the cache" in said(shown=2)
    assert read_table(previews).to_pylist() == [row for row in many if row["index"] < 2 and row["nfe"] != 8]
    assert "4 cells computed, 0 from the cache" in said(n=19, shown=2)
    assert "4 cells computed, 0 from the cache" in said(n=19, shown=5)
    assert "0 cells computed, 4 from the cache" in said(n=19, shown=4)
