"""MLflow's server over a real database: several trainings at once, and a restart of the server between."""

import multiprocessing
import time
from pathlib import Path

import pytest
from mlflow_server import free_port, served
from postgresql import database

from fmbench.store import tracker
from fmbench.store.tracker import Tracker
from fmbench.store.tracking import Mirror
from fmbench.store.tracking_runs import DataInput, training_identity

pytest.importorskip("psycopg2")
TRAININGS, STEPS = 5, 200
BEGAN = 1.7e9


def training(seed: int, uri: str, folder: Path) -> None:
    """A training that logs, waits in the middle until the server is gone, and goes on while it comes back."""
    said: list[str] = []
    spec = {"dataset": "shared", "method": {"name": "fm_ot"}, "seed": seed}
    identity = training_identity(spec, (f"spec{seed}", "code"), "c0ffee", spec, None)
    live = Tracker(folder, uri, identity, said.append)
    live.open(BEGAN + seed, 1234, DataInput("shared", "0123456789abcdef", "{}", "{}"))
    for step in range(STEPS):
        live.log(step, {"loss": seed + step / STEPS})
        if step % 10 == 9:
            live.flush()
        if step == STEPS // 2:
            (folder / f"half-{seed}").touch()
            wait_for(folder / "gone")
    wait_for(folder / "back")
    live.close("", BEGAN + seed + 60)
    (folder / f"said-{seed}").write_text("\n".join(said))


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 300
    while not file.exists():
        assert time.monotonic() < deadline, f"{file} does not appear"
        time.sleep(0.05)


def test_five_trainings_lose_nothing_when_the_server_restarts(tmp_path, monkeypatch):
    """And an experiment that was deleted on the server is restored, with its runs."""
    import mlflow  # noqa: F401  here, so that the forks need not import it

    monkeypatch.setattr(tracker, "PAUSE", 0.2)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    port, context = free_port(), multiprocessing.get_context("fork")
    with database() as store:
        with served(store, tmp_path / "first.log", port) as uri:
            crowd = [context.Process(target=training, args=(seed, uri, tmp_path)) for seed in range(TRAININGS)]
            for process in crowd:
                process.start()
            for seed in range(TRAININGS):
                wait_for(tmp_path / f"half-{seed}")
        (tmp_path / "gone").touch()
        with served(store, tmp_path / "second.log", port) as uri:
            (tmp_path / "back").touch()
            for process in crowd:
                process.join(300)
            assert [process.exitcode for process in crowd] == [0] * TRAININGS
            mirror = Mirror(tmp_path, uri)
            experiment = mirror.experiment("fmbench/shared")
            runs = {int(run.data.tags["seed"]): run for run in mirror.client.search_runs([experiment])}
            assert set(runs) == set(range(TRAININGS)) and len(mirror.client.search_runs([experiment])) == TRAININGS
            for seed, run in runs.items():
                curve = sorted((m.step, m.value) for m in mirror.client.get_metric_history(run.info.run_id, "loss"))
                assert curve == [(step, seed + step / STEPS) for step in range(STEPS)]
                began, ended = 1000 * (BEGAN + seed), 1000 * (BEGAN + seed + 60)
                assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", began, ended)
                assert [d.dataset.digest for d in run.inputs.dataset_inputs] == ["0123456789abcdef"]
                messages = (tmp_path / f"said-{seed}").read_text().splitlines()
                assert [line.split(" (")[0] for line in messages] == [
                    "warning: MLflow is not available",
                    "MLflow is available again; nothing of this training is missing there",
                ]
            mirror.client.delete_experiment(experiment)
            assert mirror.experiment("fmbench/shared") == experiment
            assert {run.info.run_id for run in mirror.client.search_runs([experiment])} == {r.info.run_id for r in runs.values()}
