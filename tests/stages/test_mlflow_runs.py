"""MLflow after a whole benchmark: what its trainings, the records and a rebuild write, and what a user finds there."""

import json
import shutil
from collections.abc import Iterator
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from browser import chromium
from mlflow_server import served
from tiny_benchmark import CPU, METHODS, SEED, TRAINED, Bench
from user_code import command

from fmbench.config.hashing import canonical, settings_hash
from fmbench.config.stages import GATHERED
from fmbench.config.written_out import written_out
from fmbench.data.prepared import read
from fmbench.stages.shared.mlflow_parents import over_seeds
from fmbench.stages.shared.mlflow_sheets import sheet
from fmbench.stages.shared.models import load_model
from fmbench.store.benchmark import split_hashes
from fmbench.store.records import read_rows
from fmbench.store.tracking import Mirror
from fmbench.store.tracking_runs import Point


class Tracked(NamedTuple):
    """A benchmark whose trainings, records and summary went to MLflow as they were made."""

    bench: Bench
    store: Mirror


@pytest.fixture(scope="module")
def tracked(bench, tmp_path_factory) -> Tracked:
    copy = Bench.__new__(Bench)
    copy.results, copy.config = tmp_path_factory.mktemp("tracked") / "results", bench.config
    shutil.copytree(bench.results, copy.results)
    where = ["--tracking", copy.results / "mlflow", "--progress", "lines"]
    said = []
    for dataset in copy.config.datasets:
        for method in TRAINED:
            folders = ["--data", copy.results / "data" / dataset, "--out", copy.folder("train", dataset, method)]
            folders += ["--checkpoints", copy.results / "checkpoints", "--live-after", "0"]
            said.append(command("train", "--spec", canonical(copy.spec("train", dataset, method)), *folders, *where))
    described = canonical(written_out(copy.config))
    said.append(copy.whole("collect", "--results", copy.results, "--config", described, *where[:2]))
    said += [copy.gather(kind) for kind in GATHERED]
    said.append(command("mlflow-summary", "--results", copy.results, "--models", *where))
    assert not [s.err for s in said if s.code or "warning: MLflow" in s.err]
    return Tracked(copy, Mirror(copy.results / "mlflow", None))


def everything(store: Mirror) -> dict[str, dict[str, Any]]:
    """What a store shows of each run, by its experiment and key."""
    experiments = {e.experiment_id: e.name for e in store.client.search_experiments()}
    runs = list(store.client.search_runs(list(experiments), max_results=1000))
    keys = {run.info.run_id: run.data.tags["fmbench.key"] for run in runs}
    found = {}
    for run in runs:
        name, info = run.info.run_id, run.info
        tags = {k: keys.get(v, v) for k, v in run.data.tags.items() if k != "mlflow.log-model.history"}
        curves = {k: [(m.step, m.timestamp, m.value) for m in store.client.get_metric_history(name, k)] for k in run.data.metrics}
        inputs = [(d.dataset.to_dictionary(), [(t.key, t.value) for t in d.tags]) for d in run.inputs.dataset_inputs]
        models = [m.name for m in store.client.search_logged_models([info.experiment_id]) if m.source_run_id == name]
        found[f"{experiments[info.experiment_id]} {keys[name]}"] = {
            "info": (info.run_name, info.status, info.start_time, info.end_time, info.lifecycle_stage),
            "parameters": run.data.params,
            "tags": tags,
            "curves": {k: sorted(points) for k, points in curves.items()},
            "inputs": inputs,
            "files": sorted((_plain(path), size) for path, size in _files(store, name)),
            "models": models,
        }
    return found


def _files(store: Mirror, run: str, folder: str | None = None) -> Iterator[tuple[str, int]]:
    for entry in store.client.list_artifacts(run, folder):
        if entry.is_dir:
            yield from _files(store, run, entry.path)
        else:
            yield entry.path, entry.file_size


def _plain(path: str) -> str:
    """The path of a step image without the random part of its name."""
    return "+".join(part for part in path.split("+") if len(part.split(".")[0]) != 36)


def test_a_rebuild_gives_the_store_that_the_run_made(tracked, tmp_path):
    """Run by run, also after experiments and runs were deleted in MLflow."""
    arguments = ["mlflow-rebuild", "--results", tracked.bench.results, "--tracking", tmp_path / "again", "--models"]
    assert command(*arguments).code == 0
    again, wanted = Mirror(tmp_path / "again", None), everything(tracked.store)
    assert len(wanted) == 2 * 5 * 2 + 1 and everything(again) == wanted  # trainings, their parents, the summary
    again.client.delete_experiment(again.experiment("fmbench/tall"))
    (one,) = again.client.search_runs([again.experiment("fmbench/board")], "tags.method = 'fm_ot' and tags.seed = '3'")
    again.client.delete_run(one.info.run_id)
    assert command(*arguments).code == 0 and everything(again) == wanted


def test_runs_have_times_data_source_and_tags(tracked):
    bench, store = tracked
    for dataset in bench.config.datasets:
        manifest = read(bench.results / "data" / dataset).manifest
        for run in store.client.search_runs([store.experiment(f"fmbench/{dataset}")], "tags.seed = '3'"):
            method = run.data.tags["method"]
            rows = {r["metric"]: r["value"] for r in bench.rows("train", dataset, method)}
            assert (run.info.start_time, run.info.end_time) == (round(1000 * rows["began"]), round(1000 * rows["ended"]))
            assert run.info.status == ("FAILED" if method == "ddpm" else "FINISHED")
            assert run.data.tags["dataset"] == dataset and run.data.tags["mlflow.source.name"] == "fmbench"
            (shown,) = run.inputs.dataset_inputs
            assert (shown.dataset.name, shown.dataset.digest) == (dataset, settings_hash(split_hashes(manifest)))
            assert json.loads(shown.dataset.source)["source"] == manifest["spec"]["source"]
            counts = {f"{split} samples": entry["n"] for split, entry in manifest["splits"].items()}
            assert json.loads(shown.dataset.profile) == counts


def test_distance_and_nfe_are_curves_over_the_iterations(tracked):
    bench, store = tracked
    for dataset, metric in (("board", "energy_distance"), ("tall", "frechet")):
        (run,) = store.client.search_runs([store.experiment(f"fmbench/{dataset}")], "tags.method = 'fm_ot' and tags.seed = '3'")
        rows = read_rows([bench.folder("learning_curve", dataset, "fm_ot") / "rows.parquet"]).to_pylist()
        for name in (metric, "nfe"):
            curve = {m.step: m.value for m in store.client.get_metric_history(run.info.run_id, f"learning_curve/{name}")}
            assert curve == {r["step"]: r["value"] for r in rows if r["metric"] == name} and len(curve) > 2


def test_a_method_has_a_parent_run(tracked):
    store = tracked.store
    experiment = store.experiment("fmbench/board")
    (child,) = store.client.search_runs([experiment], "tags.method = 'fm_ot' and tags.seed = '3'")
    parent = store.client.get_run(child.data.tags["mlflow.parentRunId"])
    assert parent.info.run_name == "fm_ot" and parent.data.tags["seeds"] == str(SEED)
    assert parent.data.metrics["likelihood/nll"] == child.data.metrics["likelihood/nll"]
    sheets = {_plain(path) for path, _ in _files(store, parent.info.run_id)}
    assert f"images/samples+step+60+timestamp+{child.info.end_time}" in sheets
    assert "seed" not in parent.data.params and parent.data.params["training.iterations"] == "60"
    (lost,) = store.client.search_runs([experiment], "tags.method = 'ddpm' and tags.seeds = '3'")
    assert lost.info.status == "FAILED" and lost.data.tags["fmbench.reason"].startswith("seed 3: the loss became")


def test_a_parent_shows_mean_and_standard_deviation_over_seeds():
    seeds = [[Point("nll", 2.0, 9, 1), Point("loss", 4.0, 5, 1)], [Point("nll", 5.0, 9, 2)], [Point("nll", 8.0, 9, 3)]]
    assert over_seeds(seeds, 7) == [
        Point("nll", fmean([2, 5, 8]), 9, 7),
        Point("nll_std", stdev([2, 5, 8]), 9, 7),
        Point("loss", 4.0, 5, 7),  # one seed has no deviation
    ]


def test_sheets_are_images_with_steps(tracked):
    store = tracked.store
    (run,) = store.client.search_runs([store.experiment("fmbench/tall")], "tags.method = 'fm_ot' and tags.seed = '3'")
    names = {_plain(entry.path) for entry in store.client.list_artifacts(run.info.run_id, "images")}
    steps = {tuple(name.split("/")[1].split("+")[:3]) for name in names}
    assert steps == {("samples", "step", "12"), ("few_step~midpoint", "step", "4")}


def test_a_sheet_of_images_is_a_grid_from_black_to_white():
    images = np.stack([np.full((1, 2, 3), value) for value in (0.0, 16.0, 8.0)] + [np.full((1, 2, 3), np.nan)])
    grid = sheet(images, 0.0, 16.0)
    scale = 256 // (8 * 4)
    assert grid.shape == (3 * scale, 32 * scale) and grid.dtype == np.uint8
    assert [grid[0, 4 * i * scale] for i in range(5)] == [0, 255, 128, 0, 0]
    colour = sheet(np.zeros((9, 3, 2, 2)), 0.0, 1.0)
    assert colour.shape == (2 * 3 * 10, 8 * 3 * 10, 3)


def test_a_sheet_of_points_is_a_histogram_with_the_second_coordinate_upwards():
    points = np.array([[-0.9, 0.9], [-0.9, 0.9], [0.9, -0.9], [50.0, 0.0]])
    picture = sheet(points, -1.0, 1.0)
    assert picture.shape == (256, 256)
    dark = np.argwhere(picture < 255) // 4
    (row, column), (low, right) = sorted({tuple(cell) for cell in dark})
    assert row < 32 < low and column < 32 < right
    assert picture[4 * row, 4 * column] == 0 and picture[4 * low, 4 * right] == 255 - round(255 * 0.5**0.5)


def test_a_finished_network_is_a_model_that_gives_the_velocity(tracked, monkeypatch):
    import mlflow

    bench, store = tracked
    models = store.client.search_logged_models([store.experiment("fmbench/tall")])
    assert {model.name for model in models} == {"fm_ot-3", "mine-3"}  # no oracle, and nothing of a diverged training
    (model,) = [model for model in models if model.name == "fm_ot-3"]
    (run,) = store.client.search_runs([store.experiment("fmbench/tall")], "tags.method = 'fm_ot' and tags.seed = '3'")
    assert model.source_run_id == run.info.run_id and [o.model_id for o in run.outputs.model_outputs] == [model.model_id]
    linked = {m.key: (m.value, m.dataset_name) for m in store.client.get_logged_model(model.model_id).metrics}
    assert linked["likelihood/nll"] == (run.data.metrics["likelihood/nll"], "tall")
    mlflow.set_tracking_uri(store.uri)
    loaded = mlflow.pyfunc.load_model(f"models:/{model.model_id}")
    dataset = bench.data("tall")
    x, t = (
        np.random.default_rng(0).normal(size=(4, *dataset.shape)).astype(np.float32),
        np.linspace(0.1, 0.9, 4, dtype=np.float32),
    )
    assert loaded.metadata.signature.inputs.to_dict()[0]["tensor-spec"]["shape"] == (-1, *dataset.shape)
    ours = load_model(bench.folder("train", "tall", "fm_ot"), dataset, CPU)
    expected = torch.cat([ours.velocity(torch.tensor(t[i]), torch.from_numpy(x[i : i + 1])) for i in range(4)])
    np.testing.assert_allclose(loaded.predict({"x": x, "t": t}), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_a_browser_shows_the_runs_a_comparison_and_a_sheet(tracked, tmp_path):
    """What a user sees: methods with their data and source, two methods side by side, and an image that is loaded."""
    from playwright.sync_api import sync_playwright

    store, path = tracked.store, chromium()
    experiment = store.experiment("fmbench/tall")
    ids = {run.info.run_name: run.info.run_id for run in store.client.search_runs([experiment])}
    with served(store.uri, tmp_path / "server.log") as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path)
        page = browser.new_page(viewport={"width": 1600, "height": 1200})
        page.set_default_timeout(300_000)  # the pages are large programs
        page.goto(f"{address}/#/experiments/{experiment}/runs")
        page.get_by_role("link", name="fm_ot", exact=True).wait_for()
        text = page.inner_text("body")
        assert all(method in text for method in METHODS) and "fm_ot/3" not in text  # trainings are folded below their parents
        assert "tall (" in text and "fmbench" in text

        runs = json.dumps([ids["fm_ot"], ids["mine"]]).replace('"', "%22")
        page.goto(f"{address}/#/compare-runs?runs={runs}&experiments=[%22{experiment}%22]")
        page.get_by_text("Comparing 2 Runs from 1 Experiment").wait_for()
        page.get_by_text("method.path.name").first.wait_for()
        assert {"ot", "cosine_vp"} <= set(page.inner_text("body").split())

        page.goto(f"{address}/#/experiments/{experiment}/runs?compareRunsMode=CHART")
        page.wait_for_function("[...document.images].some(i => i.src.includes('path=images') && i.naturalWidth > 100)")
        page.screenshot(path=tmp_path / "sheets.png")
        browser.close()
