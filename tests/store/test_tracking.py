"""MLflow as a copy of the records. Most tests share one store, each with another data set: a new store costs seconds."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fmbench
from fmbench.config import specs
from fmbench.config.config import Config
from fmbench.config.hashing import settings_hash
from fmbench.config.reading import parse
from fmbench.stages.collect import write_models
from fmbench.stages.shared.mlflow_trainings import mirror
from fmbench.store.documents import write_document
from fmbench.store.flatten import flatten
from fmbench.store.parquet import table, write_table
from fmbench.store.records import Row, write_rows
from fmbench.store.tables import CURVE
from fmbench.store.tracker import PAUSE, Tracker, curve
from fmbench.store.tracking import OFF, Mirror
from fmbench.store.tracking_runs import Point, RunIdentity, described_data, experiment_name, training_identity
from fmbench.system.progress import Console

DEAD = "http://127.0.0.1:9"
BEGAN, ENDED = 1.7e9, 1.7e9 + 12.5
"""When a training began and ended, in seconds since 1970."""


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Mirror:
    return Mirror(tmp_path_factory.mktemp("store") / "mlflow", None)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """No retries, so that a dead server is an error at once."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")


def config(dataset: str) -> Config:
    return parse(
        {
            "seeds": [0],
            "datasets": [dataset],
            "methods": ["fm_ot", "ddpm"],
            "settings": {dataset: {"data": "checkerboard", "network": {"kind": "mlp"}}},
        }
    )


def train_spec(dataset: str, method: str = "fm_ot") -> dict[str, Any]:
    return specs.train(config(dataset), dataset, method, 0)


def tracker(store: Mirror, dataset: str, warnings: list[str], uri: str | None = None, **settings: Any) -> Tracker:
    spec = train_spec(dataset)
    identity = training_identity(spec, (settings_hash(spec), "c0de"), "c0ffee", spec, None)
    return Tracker(store.folder, uri, identity, warnings.append, **settings)


def all_runs(store: Mirror, dataset: str) -> list[Any]:
    found = store.client.get_experiment_by_name(experiment_name(dataset))
    return [] if found is None else list(store.client.search_runs([found.experiment_id]))


def runs(store: Mirror, dataset: str) -> list[Any]:
    """The runs of trainings."""
    return [run for run in all_runs(store, dataset) if run.data.tags["fmbench.key"].startswith("train/")]


def history(store: Mirror, run: Any, metric: str) -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in store.client.get_metric_history(run.info.run_id, metric))


def count_points(store: Mirror) -> int:
    """The number of points ever logged to the store, with duplicates."""
    with sqlite3.connect(store.folder / "mlflow.db") as connection:
        return int(connection.execute("select count(*) from metrics").fetchone()[0])


# The store


def test_telemetry_is_off_before_mlflow_is_imported(store):
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_the_store_is_a_sqlite_database_with_a_write_ahead_log(store):
    assert store.uri == f"sqlite:///{store.folder / 'mlflow.db'}"
    with sqlite3.connect(store.folder / "mlflow.db") as connection:
        assert connection.execute("pragma journal_mode").fetchone() == ("wal",)


def test_an_experiment_is_made_once(store):
    first = store.experiment("fmbench/once")
    assert store.experiment("fmbench/once") == first != store.experiment("fmbench/twice")
    location = store.client.get_experiment(first).artifact_location
    assert location == (store.folder / "artifacts").as_uri()


def test_a_run_is_found_again_by_its_key(store):
    experiment = store.experiment("fmbench/keys")
    run = store.run(experiment, RunIdentity("train/a", "a/0", {"x": "1"}))
    assert store.run(experiment, RunIdentity("train/a", "another name", {})) == run
    other = store.run(experiment, RunIdentity("train/b", "a/0", {}))
    assert other != run
    found = store.client.get_run(run)
    assert found.data.tags["fmbench.key"] == "train/a" and found.data.tags["x"] == "1"
    assert found.info.run_name == "a/0"


def test_a_training_that_began_at_another_time_is_another_run(store):
    """And neither is touched by the other: a server may show the trainings of several people."""
    experiment = store.experiment("fmbench/starts")
    first, second = (RunIdentity("train/a", "a/0", {}, {"width": 3}, start) for start in (1000, 2000))
    one, two = store.run(experiment, first), store.run(experiment, second)
    assert one != two and (store.run(experiment, first), store.run(experiment, second)) == (one, two)
    assert [store.client.get_run(run).info.start_time for run in (one, two)] == [1000, 2000]
    assert store.run(experiment, RunIdentity("train/a", "a/0", {})) in (one, two)  # records that do not say when


def test_logging_points_again_adds_nothing(store):
    """A curve of 1200 points, more than one batch, and 120 parameters, more than MLflow takes at once."""
    run = store.run(store.experiment("fmbench/again"), RunIdentity("k", "n", {}))
    points = curve([("loss", 1 / (step + 1), step) for step in range(1200)], 5000)
    parameters = {f"p{i}": i for i in range(120)}
    store.log(run, points, parameters, {"t": "x" * 9000})
    before = count_points(store)
    store.log(run, points, parameters, {"t": "x" * 9000})
    store.log(run, points[:10])
    assert count_points(store) == before
    assert history(store, store.client.get_run(run), "loss") == [(p.step, p.value) for p in points]
    assert store.client.get_run(run).data.params == {f"p{i}": str(i) for i in range(120)}
    store.log(run, curve([("loss", 0.5, 1200)], 5000))
    assert count_points(store) == before + 1


def test_a_new_value_at_a_known_step_is_the_one_that_is_shown(store):
    """MLflow shows the latest of several values at a step, whatever the time of the new one."""
    run = store.run(store.experiment("fmbench/changed"), RunIdentity("k", "n", {}))
    old, same, new = Point("nll", 2.5, 30, 9000), Point("nll", 2.5, 30, 1000), Point("nll", 2.25, 30, 1000)
    store.log(run, store.news(run, [old]))
    assert store.news(run, [same]) == []
    store.log(run, store.news(run, [new]))
    assert store.client.get_run(run).data.metrics["nll"] == 2.25 and store.news(run, [new]) == []


OPEN = """
import sys
from pathlib import Path
from fmbench.store.tracker import curve
from fmbench.store.tracking import Mirror
from fmbench.store.tracking_runs import RunIdentity
mirror = Mirror(Path(sys.argv[1]), None)
experiment = mirror.experiment("fmbench/crowd")
run = mirror.run(experiment, RunIdentity(sys.argv[2], sys.argv[2], {}))
mirror.log(run, curve([("loss", 1.0, step) for step in range(5)], 0))
from mlflow.telemetry.client import get_telemetry_client
assert get_telemetry_client() is None, "telemetry is on"
"""


def test_several_processes_open_a_new_store_at_once(tmp_path):
    """Without the lock this destroyed the store 15 times out of 15. The processes also check that telemetry is off."""
    # MLflow turns telemetry off by itself if it sees signs of a test or of CI.
    signs = ("MLFLOW_DISABLE_TELEMETRY", "PYTEST_CURRENT_TEST", "CI", "GITHUB_ACTIONS")
    environment = {k: v for k, v in os.environ.items() if k not in signs}
    environment["PYTHONPATH"] = str(Path(fmbench.__file__).parent.parent)
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, tmp_path / "mlflow", f"train/{i}"], env=environment, stderr=subprocess.PIPE, text=True
        )
        for i in range(4)
    ]
    errors = [process.communicate(timeout=120)[1] for process in crowd]
    assert [p.returncode for p in crowd] == [0] * 4, errors
    with sqlite3.connect(tmp_path / "mlflow" / "mlflow.db") as connection:
        count = connection.execute("select count(*) from experiments where name = 'fmbench/crowd'").fetchone()
        keys = connection.execute("select value from tags where key = 'fmbench.key'").fetchall()
        total = connection.execute("select count(*) from metrics").fetchone()
    assert (count, total) == ((1,), (20,))
    assert sorted(keys) == [(f"train/{i}",) for i in range(4)]


# A training, live


def test_a_training_is_one_run_with_its_settings_and_curve(store):
    warnings: list[str] = []
    live = tracker(store, "live", warnings)
    live.open(BEGAN, 1234)
    (run,) = runs(store, "live")
    assert run.info.status == "RUNNING"
    for step in (10, 20):
        live.log(step, {"loss": 1 / step, "learning_rate": 1e-3})
    assert history(store, run, "loss") == []  # kept back until the next flush
    live.flush()
    assert history(store, run, "loss") == [(10, 0.1), (20, 0.05)]
    live.log(30, {"loss": 0.25, "learning_rate": 1e-3})
    live.close("", ENDED)
    (run,) = runs(store, "live")
    assert run.info.status == "FINISHED" and run.info.run_name == "fm_ot/0"
    assert history(store, run, "loss") == [(10, 0.1), (20, 0.05), (30, 0.25)]
    assert run.data.params["parameters"] == "1234"
    assert run.data.params["training.learning_rate"] == "0.001" and run.data.params["method.path.name"] == "ot"
    tags = dict(run.data.tags)
    assert tags.pop("fmbench.key").startswith("train/live/fm_ot/0/")
    assert tags == {
        "dataset": "live",
        "method": "fm_ot",
        "seed": "0",
        "fmbench.commit": "c0ffee",
        "fmbench.reason": "",
        "mlflow.runName": "fm_ot/0",
        "mlflow.source.name": "fmbench",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": "c0ffee",
    }
    assert (run.info.start_time, run.info.end_time) == (1000 * BEGAN, 1000 * ENDED)
    assert warnings == []


def test_a_resumed_training_reopens_its_run_and_repeats_no_point(store):
    killed = tracker(store, "resumed", [])
    killed.open(BEGAN, 1)
    for step in (10, 20):
        killed.log(step, {"loss": float(step)})
    killed.flush()
    killed.log(30, {"loss": 30.0})  # lost with the process
    before = count_points(store)
    again = tracker(store, "resumed", [])
    again.open(BEGAN, 1)
    for step in (10, 20, 30, 40):  # the curve in the checkpoint is logged anew
        again.log(step, {"loss": float(step)})
    again.close("", ENDED)
    (run,) = runs(store, "resumed")
    assert history(store, run, "loss") == [(step, float(step)) for step in (10, 20, 30, 40)]
    assert count_points(store) == before + 2


def test_a_failed_training_is_marked(store):
    live = tracker(store, "failed", [])
    live.open(BEGAN, 1234)
    live.close("the loss became nan at iteration 3", ENDED)
    (run,) = runs(store, "failed")
    assert run.info.status == "FAILED"
    assert run.data.tags["fmbench.reason"] == "the loss became nan at iteration 3"


def test_a_short_training_writes_nothing_itself(store):
    live = tracker(store, "short", [], live_after=1000)
    live.open(BEGAN, 1234)
    live.log(10, {"loss": 1.0})
    live.flush()
    live.close("", ENDED)
    assert runs(store, "short") == []


def test_a_longer_training_is_written_from_its_start(store):
    live = tracker(store, "long", [], live_after=50)
    live.open(BEGAN, 1234)
    live.log(10, {"loss": 1.0})
    live.flush()
    assert runs(store, "long") == []
    live.began -= 60
    live.log(20, {"loss": 2.0})
    live.flush()
    (run,) = runs(store, "long")
    assert history(store, run, "loss") == [(10, 1.0), (20, 2.0)]
    live.close("", ENDED)


def test_off_does_nothing_at_all(tmp_path):
    spec = train_spec("off")
    live = Tracker(tmp_path / "mlflow", OFF, RunIdentity("key", "n", {"dataset": "off"}, spec), pytest.fail)
    live.open(BEGAN, 1234)
    live.log(1, {"loss": 1.0})
    live.flush()
    live.close("", ENDED)
    mirror(tmp_path / "no results", tmp_path / "mlflow", OFF, Console("collect", "none"))
    assert list(tmp_path.iterdir()) == []


def walk_through(live: Tracker) -> None:
    live.open(BEGAN, 1)
    live.log(10, {"loss": 1.0})
    live.flush()
    live.log(20, {"loss": 1.0})
    live.flush()
    live.close("", ENDED)


def test_a_dead_server_gives_one_warning(store):
    warnings: list[str] = []
    walk_through(tracker(store, "dead", warnings, uri=DEAD))
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: MLflow is not available (") and "and trying again later" in warnings[0]


def test_a_folder_that_cannot_be_written_gives_one_warning(tmp_path):
    (tmp_path / "file").write_text("in the way")
    warnings: list[str] = []
    walk_through(Tracker(tmp_path / "file" / "mlflow", None, RunIdentity("key", "n", {"dataset": "way"}), warnings.append))
    assert len(warnings) == 1 and "and trying again later" in warnings[0]


def test_an_invalid_database_gives_one_warning(tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database at all" * 100)
    warnings: list[str] = []
    walk_through(Tracker(tmp_path, None, RunIdentity("key", "n", {"dataset": "none"}), warnings.append))
    assert len(warnings) == 1


def test_a_training_shows_the_machine_if_it_is_asked_to_or_lasts_long(store, monkeypatch):
    """MLflow's monitor ends when it cannot reach its server. It goes on when the training does, and repeats no step."""
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    live, blind = tracker(store, "watched", [], system_metrics_after=0), tracker(store, "unwatched", [])
    later = tracker(store, "later", [], system_metrics_after=600)

    def steps() -> list[int]:
        return [step for step, _ in history(store, runs(store, "watched")[0], "system/cpu_utilization_percentage")]

    def runs_of_machine(name: str) -> bool:
        (run,) = runs(store, name)
        return any(metric.startswith("system/") for metric in run.data.metrics)

    def wait(ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not ready():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    for training in (live, blind, later):
        training.open(BEGAN, 1234)
    wait(lambda: len(steps()) > 0)

    def gone(*_: Any) -> None:
        raise ConnectionError("gone")

    with monkeypatch.context() as away:
        away.setattr(Mirror, "log", gone)
        away.setattr(type(store.client), "get_run", gone)
        live.log(10, {"loss": 1.0})
        live.flush()
        wait(lambda: "SystemMetricsMonitor" not in {thread.name for thread in threading.enumerate()})
    before = len(steps())
    live.again -= PAUSE
    live.flush()
    wait(lambda: len(steps()) > before)
    later.log(10, {"loss": 1.0})
    later.flush()
    assert not runs_of_machine("later")
    later.began -= 600
    later.flush()
    wait(lambda: runs_of_machine("later"))
    for training in (live, blind, later):
        training.close("", ENDED)
    assert steps() == list(range(len(steps()))) and "SystemMetricsMonitor" not in {t.name for t in threading.enumerate()}
    assert not runs_of_machine("unwatched")


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_server_that_dies_during_training_gives_one_warning(store, monkeypatch, after):
    warnings: list[str] = []
    live = tracker(store, f"dying{after}", warnings)
    live.open(BEGAN, 1234)
    original, calls = Mirror.log, 0

    def dying(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls >= after:
            raise ConnectionError("gone")
        original(*arguments)

    monkeypatch.setattr(Mirror, "log", dying)
    for step in (10, 20):
        live.log(step, {"loss": 1.0})
        if step == 10:
            live.flush()
    live.close("", ENDED)
    assert warnings == ["warning: MLflow is not available (gone); going on without it, and trying again later"]


def test_a_server_that_comes_back_shows_the_whole_training(store, monkeypatch):
    """Also what was logged while it was away. It is asked again only after a pause."""
    warnings: list[str] = []
    live = tracker(store, "back", warnings)
    live.open(BEGAN, 1234)
    live.log(10, {"loss": 1.0})
    live.flush()
    with monkeypatch.context() as away:
        away.setattr(Mirror, "log", lambda *_: (_ for _ in ()).throw(ConnectionError("gone")))
        live.log(20, {"loss": 2.0})
        live.flush()
    live.log(30, {"loss": 3.0})
    live.flush()
    (run,) = runs(store, "back")
    assert history(store, run, "loss") == [(10, 1.0)]
    live.again -= PAUSE
    live.log(40, {"loss": 4.0})
    live.flush()
    assert history(store, run, "loss") == [(step, step / 10) for step in (10, 20, 30, 40)]
    live.close("", ENDED)
    (run,) = runs(store, "back")
    assert run.info.status == "FINISHED" and [w.split(" (")[0] for w in warnings] == [
        "warning: MLflow is not available",
        "MLflow is available again; nothing of this training is missing there",
    ]


def test_a_dead_server_does_not_keep_a_training_waiting(tmp_path, monkeypatch):
    """MLflow's default is to retry for minutes. fmbench must lower that, unless the variables are set."""
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(name)
    seen: dict[str, int] = {}
    from mlflow.utils import rest_utils

    def request(method: str, url: str, max_retries: int, *_: Any, **__: Any) -> None:
        seen["retries"] = max_retries
        raise ConnectionError

    monkeypatch.setattr(rest_utils, "_get_http_response_with_retries", request)
    walk_through(Tracker(tmp_path, DEAD, RunIdentity("key", "n", {"dataset": "wait"}), lambda _: None))
    assert seen["retries"] <= 2


# Runs from the records


def results_folder(folder: Path, dataset: str, reason: str = "", seconds: float = 12.5) -> Path:
    """The files that ``collect`` leaves for two methods, of which the second may have diverged."""
    rows: list[Row] = [Row(dataset, "", 0, "features", "data_std", 1.0, "model units")]
    for method in ("fm_ot", "ddpm"):
        spec = train_spec(dataset, method)
        bad = reason if method == "ddpm" else ""
        model = folder / specs.model_folder("models", dataset, method, 0)
        curve = [{"step": s, "loss": 1 / s, "learning_rate": 1e-3} for s in (10, 20, 30)]
        write_table(model / "loss_curve.parquet", table(curve, CURVE))
        write_document(
            model / "config.json",
            {
                "spec": spec,
                "spec_hash": settings_hash(spec),
                "code_hash": "c0de",
                "shape": [2],
                "parameters": 1234,
                "step": 30,
                "reason": bad,
            },
        )
        times = {"began": BEGAN, "ended": ENDED}
        rows += [Row(dataset, method, 0, "train", name, at, "s", commit="c0ffee") for name, at in times.items()]
        if bad:
            rows += [
                Row(dataset, method, 0, "train", "final_loss", None, "loss", "diverged", bad, commit="c0ffee"),
                Row(dataset, method, 0, "likelihood", "nll", None, "nats", "skipped", f"training diverged: {bad}"),
            ]
            continue
        rows += [
            Row(dataset, method, 0, "train", "final_loss", 1 / 30, "loss", step=30, commit="c0ffee"),
            Row(dataset, method, 0, "train", "train_seconds", seconds, "s", step=30),
            Row(dataset, method, 0, "likelihood", "nll", 2.5, "nats", nfe=44.0),
            Row(dataset, method, 0, "sweep", "mse", 0.25, "squared", solver="euler", nfe=4.0),
            Row(dataset, method, 0, "sweep", "mse", 0.125, "squared", solver="euler", nfe=8.0),
            Row(dataset, method, 0, "sweep", "mse", 0.0625, "squared", solver="rk4", nfe=8.0),
            Row(dataset, method, 0, "sweep", "mse_stderr", 0.5, "squared", solver="rk4", nfe=4.0),
            Row(dataset, method, 0, "sweep", "mse_stderr", 0.75, "squared", solver="rk4", nfe=8.0),
        ]
    write_rows(folder / "records.parquet", rows)
    write_models(folder, [(dataset, method, 0) for method in ("fm_ot", "ddpm")])
    return folder


def test_every_training_has_one_run_and_no_point_twice(store, tmp_path, capsys):
    results = results_folder(tmp_path, "mirrored")
    mirror(results, store.folder, None, Console("collect", "lines"))
    assert "2 MLflow runs are up to date" in capsys.readouterr().err
    before, found = count_points(store), {r.info.run_name: r for r in runs(store, "mirrored")}
    assert set(found) == {"fm_ot/0", "ddpm/0"}
    run = found["fm_ot/0"]
    assert run.info.status == "FINISHED"
    assert history(store, run, "loss") == [(10, 0.1), (20, 0.05), (30, 1 / 30)]
    assert history(store, run, "likelihood/nll") == [(30, 2.5)]
    assert history(store, run, "sweep/mse/euler") == [(4, 0.25), (8, 0.125)]
    assert history(store, run, "sweep/mse/rk4") == [(8, 0.0625)]
    assert history(store, run, "sweep/mse_stderr/rk4") == [(4, 0.5), (8, 0.75)]
    assert run.data.params["parameters"] == "1234" and run.data.params["training.iterations"] == "5000"
    assert run.data.tags["fmbench.commit"] == "c0ffee"
    mirror(results, store.folder, None, Console("collect", "none"))
    assert count_points(store) == before
    assert len(runs(store, "mirrored")) == 2


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Iterator[Mirror]:
    """MLflow's store in files, which keeps a point twice if it is logged twice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        folder = tmp_path_factory.mktemp("files")
        yield Mirror(folder / "mlflow", (folder / "mlruns").as_uri())


def test_a_store_in_files_has_no_point_twice(files, tmp_path):
    """Neither from mirroring twice nor from a resumed training."""
    results = results_folder(tmp_path, "filed")
    for _ in range(2):
        mirror(results, files.folder, files.uri, Console("collect", "none"))
    found = {r.info.run_name: r for r in runs(files, "filed")}
    assert history(files, found["ddpm/0"], "loss") == [(10, 0.1), (20, 0.05), (30, 1 / 30)]
    live = tracker(files, "filed", warnings := [], files.uri)
    live.open(BEGAN, 1234)
    for step in (10, 20, 30):
        live.log(step, {"loss": 1 / step, "learning_rate": 1e-3})
    live.flush()
    live.log(40, {"loss": 0.025, "learning_rate": 1e-3})
    live.close("", ENDED)
    (run,) = [r for r in runs(files, "filed") if r.info.run_name == "fm_ot/0"]
    assert not warnings and history(files, run, "loss") == [(10, 0.1), (20, 0.05), (30, 1 / 30), (40, 0.025)]


def test_the_mirror_completes_the_run_that_a_training_wrote(store, tmp_path):
    live = tracker(store, "both", [])
    live.open(BEGAN, 1234)
    for step in (10, 20, 30):
        live.log(step, {"loss": 1 / step, "learning_rate": 1e-3})
    live.close("", ENDED)
    mirror(results_folder(tmp_path, "both"), store.folder, None, Console("collect", "none"))
    found = {r.info.run_name: r for r in runs(store, "both")}
    assert len(found) == len(runs(store, "both")) == 2
    assert history(store, found["fm_ot/0"], "loss") == [(10, 0.1), (20, 0.05), (30, 1 / 30)]
    assert history(store, found["fm_ot/0"], "likelihood/nll") == [(30, 2.5)]


def test_a_training_repeated_with_another_duration_adds_nothing(store, tmp_path):
    mirror(results_folder(tmp_path, "slower", seconds=12.5), store.folder, None, Console("collect", "none"))
    before = count_points(store)
    mirror(results_folder(tmp_path, "slower", seconds=13.5), store.folder, None, Console("collect", "none"))
    assert count_points(store) == before
    (run,) = [r for r in runs(store, "slower") if r.info.run_name == "fm_ot/0"]
    assert history(store, run, "train/train_seconds") == [(30, 12.5)]


def test_a_run_has_the_times_of_its_training_and_its_data_and_source(store, tmp_path):
    results = results_folder(tmp_path, "timed")
    described = {"data": {"timed": {"train.sha256": "0" * 64}}}
    wanted = {"source": "checkerboard", "parameters": {}}
    expected = described_data("timed", wanted, described["data"]["timed"], {"train": 300})
    mirror(results, store.folder, None, Console("collect", "none"))
    for run in runs(store, "timed"):
        assert (run.info.start_time, run.info.end_time) == (1000 * BEGAN, 1000 * ENDED)
        assert run.data.tags["mlflow.source.name"] == "fmbench" and run.data.tags["mlflow.source.git.commit"] == "c0ffee"
        assert not run.inputs.dataset_inputs  # nothing in this folder describes the data
        store.add_data(run.info.run_id, expected)
        store.add_data(run.info.run_id, expected)
        (shown,) = store.client.get_run(run.info.run_id).inputs.dataset_inputs
        assert (shown.dataset.name, shown.dataset.digest) == ("timed", settings_hash(described["data"]["timed"]))
        assert json.loads(shown.dataset.source) == wanted and json.loads(shown.dataset.profile) == {"train samples": 300}


def test_a_diverged_training_is_marked_with_its_reason(store, tmp_path):
    mirror(results_folder(tmp_path, "bad", "the loss became nan at iteration 3"), store.folder, None, Console("collect", "none"))
    found = {r.info.run_name: r for r in runs(store, "bad")}
    assert {name: r.info.status for name, r in found.items()} == {"fm_ot/0": "FINISHED", "ddpm/0": "FAILED"}
    assert "the loss became nan at iteration 3" in found["ddpm/0"].data.tags["fmbench.reason"]
    assert "likelihood/nll" not in found["ddpm/0"].data.metrics


def test_an_oracle_is_a_run_without_a_curve(store, tmp_path):
    """And a solver on another grid is another curve over NFE."""
    settings = {"known": {"data": "checkerboard", "network": {"kind": "mlp"}}}
    config_of = parse({"datasets": ["known"], "methods": ["oracle_ot"], "seeds": [0], "settings": settings})
    spec = specs.train(config_of, "known", "oracle_ot", 0)
    model = tmp_path / specs.model_folder("models", "known", "oracle_ot", 0)
    write_table(model / "loss_curve.parquet", table([], CURVE))
    config = {"spec": spec, "spec_hash": settings_hash(spec), "code_hash": "c0de", "shape": [2], "parameters": 0, "step": 0}
    write_document(model / "config.json", config | {"reason": ""})
    rows = [
        Row("known", "oracle_ot", 0, "train", "bandwidth", 0.25, "model units", step=0, commit="c0ffee"),
        Row("known", "oracle_ot", 0, "likelihood", "nll_own", 2.5, "nats", nfe=44.0),
        Row("known", "oracle_ot", 0, "sweep", "mse", 0.5, "squared", solver="midpoint", nfe=4.0),
        Row("known", "oracle_ot", 0, "sweep", "mse", 0.25, "squared", solver="midpoint/karras", nfe=4.0),
    ]
    write_rows(tmp_path / "records.parquet", rows)
    write_models(tmp_path, [("known", "oracle_ot", 0)])
    for _ in range(2):
        mirror(tmp_path, store.folder, None, Console("collect", "none"))
    (run,) = runs(store, "known")
    assert (run.info.run_name, run.info.status) == ("oracle_ot/0", "FINISHED")
    assert history(store, run, "loss") == history(store, run, "learning_rate") == []
    assert history(store, run, "train/bandwidth") == [(0, 0.25)]
    assert history(store, run, "likelihood/nll_own") == [(0, 2.5)]
    assert history(store, run, "sweep/mse/midpoint") == [(4, 0.5)]
    assert history(store, run, "sweep/mse/midpoint/karras") == [(4, 0.25)]
    assert run.data.params["method.oracle.points"] == str(spec["method"]["oracle"]["points"])
    assert run.data.params["parameters"] == "0" and not [name for name in run.data.params if name.startswith("training")]


def test_a_path_that_no_database_url_can_have_is_refused(tmp_path):
    """MLflow would silently create the database elsewhere."""
    with pytest.raises(ValueError, match=r"\?/mlflow has a \?, which ends the file name in a database's URL"):
        Mirror(tmp_path / "what?" / "mlflow", None)
    assert not list(tmp_path.iterdir())
    strange = Mirror(tmp_path / "a b#c%41ü" / "mlflow", None)
    run = strange.run(strange.experiment("e"), RunIdentity("k", "n", {}))
    strange.log(run, curve([("loss", 1.0, 1)], 0))
    assert [p.name for p in tmp_path.iterdir()] == ["a b#c%41ü"] and (strange.folder / "mlflow.db").exists()


@pytest.mark.parametrize("broken", ["server", "folder", "results"])
def test_a_failing_mirror_fails_no_job(tmp_path, capsys, broken):
    results = results_folder(tmp_path / "results", "never")
    folder, uri = tmp_path / "mlflow", DEAD if broken == "server" else None
    if broken == "folder":
        folder = results / "records.parquet" / "mlflow"
    if broken == "results":
        shutil.rmtree(results)
        uri = DEAD
    mirror(results, folder, uri, Console("collect", "lines"))
    assert "warning: MLflow is not available (" in (said := capsys.readouterr().err)
    assert "the records are complete without it" in said


def test_flatten():
    assert flatten({"a": 1, "b": {"c": None, "d": {"e": [1, 2]}}, "f": {}}) == {"a": 1, "b.c": None, "b.d.e": [1, 2]}
