"""MLflow behind one small interface: a copy of the records for browsing, never a source of results.

No rule of the workflow reads from MLflow, and no failure of MLflow fails a job: fmbench says so once, and the work goes on. The
tag ``fmbench.key`` and the start identify a run, so a resumed training reopens its run.

Logging a point again should add nothing. A point's time is therefore fixed, and MLflow's databases drop exact repeats. Its file
store keeps them, so :meth:`Mirror.news` leaves out the points that a run shows already.
"""

import importlib.util
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from fmbench.store.tracking_runs import KEY, DataInput, Point, RunIdentity
from fmbench.store.tracking_store import ARTIFACTS, DATABASE, adopt, make_usable, replace_broken

OFF = "off"
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Without this tag of an experiment, MLflow opens it with its pages for language models."""
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
        self._lock = FileLock(folder / "open.lock", timeout=300)  # a method that holds it may call another that takes it
        with self._lock:
            from mlflow import MlflowClient

            if self.local:
                if make_usable(folder, check_up_to, warn):
                    self._forget_connections()
                adopt(folder)
            self.client = MlflowClient(tracking_uri=self.uri)  # this opens the database
            self.client.search_experiments(max_results=1)

    def _forget_connections(self) -> None:
        """Close this process's connections to a database that is no longer in its place."""
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        if self.uri in SqlAlchemyStore._engine_map:
            SqlAlchemyStore._engine_map[self.uri].dispose()

    def replace(self, reason: str) -> None:
        """Set a local database aside with which MLflow fails although it passed all checks, and go on with a new one."""
        with self._lock:
            replace_broken(self.folder, reason, self.warn)
            self._forget_connections()

    def experiment(self, name: str) -> str:
        """The id of an experiment. It is created if it does not exist, and restored if it is in MLflow's trash."""
        with self._lock:
            found = self.client.get_experiment_by_name(name)
            if found is None:
                location = None if self.uri.startswith("http") else (self.folder / ARTIFACTS).as_uri()
                return str(self.client.create_experiment(name, artifact_location=location, tags=KIND))
            if found.lifecycle_stage != "active":
                self.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)

    def run(self, experiment: str, identity: RunIdentity) -> str:
        """The id of a run. The run is created if it does not exist, and restored if it is in MLflow's trash.

        A run that shows another value of one of the parameters goes to the trash, and a new one takes its place: MLflow never
        changes a parameter. A run with the same key and another start is another training, and stays as it is.
        """
        from mlflow.entities import ViewType

        with self._lock:  # two jobs must not both create it
            found = self.client.search_runs(
                [experiment], f"tags.`{KEY}` = '{identity.key}'", run_view_type=ViewType.ALL, max_results=100
            )
            wanted = _texts(identity.parameters)
            for run in sorted(found, key=lambda run: run.info.lifecycle_stage != "active"):
                if identity.start not in (None, run.info.start_time):
                    continue
                if any(wanted.get(name, value) != value for name, value in run.data.params.items()):
                    self._discard(run, identity.key)
                    continue
                if run.info.lifecycle_stage != "active":
                    self._restore(run.info.run_id)
                return str(run.info.run_id)
            start = int(time.time() * 1000) if identity.start is None else identity.start
            tags = dict(identity.tags) | {KEY: identity.key}
            return str(self.client.create_run(experiment, start, tags, run_name=identity.name).info.run_id)

    def _restore(self, run: str) -> None:
        with self._lock:
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

    def news(self, run: str, points: Sequence[Point]) -> list[Point]:
        """The points that the run does not show yet: new points, and new values at known steps, with a later time.

        Of several points at one step, MLflow shows the one with the latest time.
        """
        shown = self.client.get_run(run).data.metrics
        newest: dict[tuple[str, int], tuple[int, float]] = {}
        for name in {point.name for point in points} & set(shown):
            for m in self.client.get_metric_history(run, name):
                newest[name, m.step] = max(newest.get((name, m.step), (-1, 0.0)), (m.timestamp, m.value))
        found = []
        for point in points:
            then, value = newest.get((point.name, point.step), (-1, None))
            if value != point.value:
                found.append(point._replace(time=max(point.time, then + 1)))
        return found

    def log(
        self,
        run: str,
        points: Iterable[Point] = (),
        parameters: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log points, parameters and tags, in batches of the size that MLflow takes."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(point.name, point.value, point.time, point.step) for point in points]
        params = [Param(k, v) for k, v in _texts(parameters).items()]
        marks = [RunTag(k, str(v)[:8000]) for k, v in (tags or {}).items()]
        for i in range(0, max(len(metrics), 1), 1000):
            self.client.log_batch(run, metrics[i : i + 1000], params if i == 0 else (), marks if i == 0 else ())
        for i in range(100, len(params), 100):  # MLflow takes 100 parameters at a time
            self.client.log_batch(run, (), params[i : i + 100])

    def add_data(self, run: str, data: DataInput) -> None:
        """Show a data set as an input of a run. To repeat this adds nothing."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        shown = self.client.get_run(run).inputs
        if shown is not None and any((d.dataset.name, d.dataset.digest) == data[:2] for d in shown.dataset_inputs):
            return
        dataset = Dataset(data.name, data.digest, "fmbench", data.source, profile=data.profile)
        self.client.log_inputs(run, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def end(self, run: str, failed: bool, time: int | None) -> None:
        """Mark a run as finished or failed, at a time in ms since 1970; now if there is none and it has none yet."""
        self.client.set_terminated(run, "FAILED" if failed else "FINISHED", time or self.client.get_run(run).info.end_time)

    def monitor(self, run: str) -> Any:
        """Start MLflow's monitor of the machine, which writes metrics ``system/...`` until its ``finish()`` is called.

        Returns:
            The monitor; None if psutil is not installed, which it needs.
        """
        if importlib.util.find_spec("psutil") is None:
            return None
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(run, resume_logging=True, tracking_uri=self.uri)
        monitor.start()
        return monitor


def _texts(parameters: Mapping[str, Any] | None) -> dict[str, str]:
    """Parameters as MLflow keeps them."""
    return {name: str(value)[:6000] for name, value in (parameters or {}).items()}
