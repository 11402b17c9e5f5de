"""MLflow behind one small interface: a copy of the records for browsing, never a source of results.

No rule of the workflow reads from MLflow, and no failure of MLflow fails a job: fmbench says so once, and the work goes on. The
tag ``fmbench.key`` identifies a run, so a resumed or repeated training reopens its run.

Logging a point again should add nothing. A point's time stamp is therefore the run's start plus the step, in ms: MLflow's
databases drop exact repeats. Its file store keeps them, so :meth:`Mirror.news` leaves out the points that a run shows already.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock

from fmbench.store.flatten import flatten
from fmbench.store.tracking_check import first_line
from fmbench.store.tracking_store import ARTIFACTS, DATABASE, adopt, make_usable, replace_broken

OFF = "off"
KEY = "fmbench.key"
JOB_CHECK = 64 * 2**20
"""The largest database (bytes) that a job reads whole to check it: less than a second. `fmbench mlflow-rebuild` has no limit."""


class Mirror:
    """An MLflow store: a sqlite database in a folder, or a server.

    A file lock guards the opening, because several processes that open a new sqlite store at the same time destroy it. A broken
    database is set aside and made again, as :mod:`fmbench.store.tracking_store` describes.

    Args:
        folder: the folder of the database and of the lock.
        uri: a server's URI, or None for the database.
        warn: called with a message about each thing that was set aside.
        check_up_to: the largest database (bytes) that is read whole to check it. Of a larger one only the tables are checked.

    Raises:
        ValueError: the folder's path has a ``?`` and there is no server.
        Exception: the store cannot be opened.
    """

    def __init__(
        self, folder: Path, uri: str | None, warn: Callable[[str], None] = warnings.warn, check_up_to: float = 0
    ) -> None:
        # These variables must be set before mlflow is imported. DO_NOT_TRACK=1 does not stop its telemetry.
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        # MLflow's default is to retry a dead server for four minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        folder = folder.resolve()
        if uri is None and "?" in str(folder):
            raise ValueError(
                f"{folder} has a ?, which ends the file name in a database's URL; choose a path without it, or give a server"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.warn, self.local = folder, warn, uri is None
        self.uri = uri or f"sqlite:///{folder / DATABASE}"
        with self._locked():
            from mlflow import MlflowClient

            if self.local:
                if make_usable(folder, check_up_to, warn):
                    self._forget_connections()
                adopt(folder)
            self.client = MlflowClient(tracking_uri=self.uri)  # this opens the database
            self.client.search_experiments(max_results=1)

    def _locked(self) -> FileLock:
        return FileLock(self.folder / "open.lock", timeout=300)

    def _forget_connections(self) -> None:
        """Close this process's connections to a database that is no longer in its place."""
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        if self.uri in SqlAlchemyStore._engine_map:
            SqlAlchemyStore._engine_map[self.uri].dispose()

    def replace(self, reason: str) -> None:
        """Set a local database aside with which MLflow fails although it passed all checks, and go on with a new one."""
        with self._locked():
            replace_broken(self.folder, reason, self.warn)
            self._forget_connections()

    def experiment(self, name: str) -> str:
        """The id of an experiment. It is created if it does not exist, and restored if it is in MLflow's trash."""
        with self._locked():
            found = self.client.get_experiment_by_name(name)
            if found is None:
                location = None if self.uri.startswith("http") else (self.folder / ARTIFACTS).as_uri()
                return str(self.client.create_experiment(name, artifact_location=location))
            if found.lifecycle_stage != "active":
                self.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)

    def run(
        self, experiment: str, key: str, name: str, tags: dict[str, str], parameters: dict[str, Any] | None = None
    ) -> tuple[str, int]:
        """The id and the start time (ms) of the run tagged ``key``.

        The run is created if it does not exist, and restored if it is in MLflow's trash. A run that shows another value of one of
        the parameters goes to the trash, and a new one takes its place: MLflow never changes a parameter.
        """
        from mlflow.entities import ViewType

        found = self.client.search_runs([experiment], f"tags.`{KEY}` = '{key}'", run_view_type=ViewType.ALL, max_results=100)
        wanted = _texts(parameters)
        for run in sorted(found, key=lambda run: run.info.lifecycle_stage != "active"):
            if any(wanted.get(name, value) != value for name, value in run.data.params.items()):
                self._discard(run, key)
                continue
            if run.info.lifecycle_stage != "active":
                self._restore(run.info.run_id)
            return str(run.info.run_id), int(run.info.start_time)
        start = int(time.time() * 1000)
        run = self.client.create_run(experiment, start, tags | {KEY: key}, run_name=name)
        return str(run.info.run_id), int(run.info.start_time)

    def _restore(self, run: str) -> None:
        with self._locked():
            if self.client.get_run(run).info.lifecycle_stage != "active":
                self.client.restore_run(run)

    def _discard(self, run: Any, key: str) -> None:
        """Move a run to MLflow's trash, where it is not found by its key."""
        self._restore(run.info.run_id)  # MLflow sets no tags of a run in the trash
        self.client.set_tag(run.info.run_id, KEY, f"{key} (replaced)")
        self.client.delete_run(run.info.run_id)
        self.warn(
            f"warning: MLflow's run {run.info.run_name} ({run.info.run_id}) shows other settings than its training. "
            "It is in MLflow's trash now, and a new run takes its place"
        )

    def news(self, run: str, points: list[tuple[str, float, int]]) -> list[tuple[str, float, int]]:
        """The points (name, value, step) that the run does not show yet: new points, and new values at known steps."""
        shown = self.client.get_run(run).data.metrics
        newest: dict[tuple[str, int], tuple[int, float]] = {}
        for name in {name for name, _, _ in points} & set(shown):
            for m in self.client.get_metric_history(run, name):
                newest[name, m.step] = max(newest.get((name, m.step), (-1, 0.0)), (m.timestamp, m.value))
        return [(name, value, step) for name, value, step in points if newest.get((name, step), (0, None))[1] != value]

    def log(
        self,
        run: str,
        start: int,
        points: Iterable[tuple[str, float, int]] = (),
        parameters: dict[str, Any] | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        """Log points (name, value, step), parameters and tags, in batches of the size that MLflow takes."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(name, value, start + step, step) for name, value, step in points]
        params = [Param(k, v) for k, v in _texts(parameters).items()]
        marks = [RunTag(k, str(v)[:8000]) for k, v in (tags or {}).items()]
        for i in range(0, max(len(metrics), 1), 1000):
            self.client.log_batch(run, metrics[i : i + 1000], params if i == 0 else (), marks if i == 0 else ())
        for i in range(100, len(params), 100):  # MLflow takes 100 parameters at a time
            self.client.log_batch(run, (), params[i : i + 100])


def _texts(parameters: dict[str, Any] | None) -> dict[str, str]:
    """Parameters as MLflow keeps them."""
    return {name: str(value)[:6000] for name, value in (parameters or {}).items()}


class Tracker:
    """The MLflow run of one training, written while it trains. It does nothing if tracking is off or broken.

    Args:
        folder: the folder of the MLflow store.
        uri: a server's URI, ``off``, or None for the sqlite database in ``folder``.
        spec: the spec of the training.
        key: the tag that identifies the run (:func:`run_key`).
        tags: the run's tags (:func:`run_tags`).
        warn: called with a message the first time that something fails; from then on tracking is off.
        live_after: seconds of training before anything is written. Opening MLflow itself takes seconds. A training that ends
            sooner is left to :mod:`fmbench.stages.shared.mlflow_trainings`, which writes the same run with the same curve.
    """

    def __init__(
        self,
        folder: Path,
        uri: str | None,
        spec: dict[str, Any],
        key: str,
        tags: dict[str, str],
        warn: Callable[[str], None],
        live_after: float = 0.0,
    ) -> None:
        self.folder, self.uri, self.spec, self.key, self.tags, self.warn = folder, uri, spec, key, tags, warn
        self.began, self.live_after = time.monotonic(), live_after
        self.parameters: dict[str, Any] = {}
        self.mirror: Mirror | None = None
        self.run, self.start = "", 0
        self.points: list[tuple[str, float, int]] = []
        self.sent = False
        self.broken = uri == OFF

    def _try(self, action: Callable[[], None]) -> None:
        if self.broken:
            return
        try:
            action()
        except Exception as error:  # MLflow may fail in any way; no result depends on it
            self.broken = True
            self.warn(f"warning: MLflow is not available ({first_line(error)}); going on without it")

    def open(self, **parameters: Any) -> None:
        """Remember parameters to log beside the spec. The run is opened when training has lasted ``live_after`` seconds."""
        self.parameters = parameters
        self.flush()

    def log(self, step: int, values: dict[str, float]) -> None:
        """Remember points; :meth:`flush` sends them."""
        self.points += [(name, value, step) for name, value in values.items()]

    def flush(self) -> None:
        """Send the points if training has lasted ``live_after`` seconds."""

        def action() -> None:
            if self.mirror is None and time.monotonic() - self.began >= self.live_after:
                self._open()
            if self.mirror is not None and self.points:
                # A resumed training first repeats the curve of its checkpoint.
                self.mirror.log(self.run, self.start, self.points if self.sent else self.mirror.news(self.run, self.points))
                self.points, self.sent = [], True

        self._try(action)

    def _open(self) -> None:
        mirror = Mirror(self.folder, self.uri, self.warn)
        experiment = mirror.experiment(experiment_name(self.spec["dataset"]))
        parameters = flatten(self.spec) | self.parameters
        self.run, self.start = mirror.run(experiment, self.key, run_name(self.spec), self.tags, parameters)
        mirror.log(self.run, self.start, (), parameters, self.tags)
        mirror.client.update_run(self.run, status="RUNNING")
        self.mirror = mirror

    def close(self, failed: bool, tags: dict[str, str]) -> None:
        """Send the remaining points and mark the run as finished or failed."""

        def action() -> None:
            self.flush()
            if self.mirror is not None and not self.broken:
                self.mirror.log(self.run, self.start, (), None, tags)
                self.mirror.client.set_terminated(self.run, "FAILED" if failed else "FINISHED")

        self._try(action)


def experiment_name(dataset: str) -> str:
    """The name of a data set's experiment."""
    return f"fmbench/{dataset}"


def run_name(spec: dict[str, Any]) -> str:
    """The name of a training's run in MLflow's list."""
    method = spec["method"] if isinstance(spec["method"], str) else spec["method"]["name"]
    return f"{method}/{spec['seed']}"


def run_key(spec: dict[str, Any], spec_hash: str, code_hash: str) -> str:
    """The tag that identifies the run of a training."""
    return f"train/{spec['dataset']}/{run_name(spec)}/{spec_hash}-{code_hash}"


def run_tags(commit: str, spec: dict[str, Any]) -> dict[str, str]:
    """The tags of a training's run, apart from its key."""
    return {
        "fmbench.dataset": spec["dataset"],
        "fmbench.method": spec["method"]["name"],
        "fmbench.seed": str(spec["seed"]),
        "fmbench.commit": commit,
    }
