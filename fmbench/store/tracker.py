"""The MLflow run of one training, written while it trains."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fmbench.errors import first_line
from fmbench.store.flatten import flatten
from fmbench.store.tracking import OFF, Mirror
from fmbench.store.tracking_runs import DataInput, Point, RunIdentity, experiment_name, milliseconds

PAUSE = 60.0
"""Seconds after a failure of MLflow until it is tried again."""


class Tracker:
    """The MLflow run of one training. It does nothing if tracking is off.

    If MLflow fails, points are kept, and it is tried again after a pause. What it misses for good is written when the records are
    collected (:mod:`fmbench.stages.shared.mlflow_trainings`).

    Args:
        folder: the folder of the MLflow store.
        uri: a server's URI, ``off``, or None for the sqlite database in ``folder``.
        identity: of the training's run (:func:`fmbench.store.tracking_runs.training_identity`); its parameters are the spec.
        warn: called with a message the first time that something fails, and when MLflow works again.
        live_after: seconds of training before anything is written. Opening MLflow itself takes seconds. A training that ends
            sooner is left to :mod:`fmbench.stages.shared.mlflow_trainings`, which writes the same run with the same curve.
        system_metrics_after: seconds of training before MLflow also samples processor, memory, disk, network and GPUs.
    """

    def __init__(
        self,
        folder: Path,
        uri: str | None,
        identity: RunIdentity,
        warn: Callable[[str], None],
        live_after: float = 0.0,
        system_metrics_after: float = math.inf,
    ) -> None:
        self.folder, self.uri, self.identity, self.warn = folder, uri, identity, warn
        self.began, self.live_after, self.system_metrics_after = time.monotonic(), live_after, system_metrics_after
        self.data: DataInput | None = None
        self.mirror: Mirror | None = None
        self.run, self.start = "", 0
        self.values: list[tuple[str, float, int]] = []
        self.sent = False
        self.failed, self.again = False, 0.0
        self._monitor: Any = None

    def _try(self, action: Callable[[], None], patient: bool = True) -> None:
        if self.uri == OFF or (patient and time.monotonic() < self.again):
            return
        try:
            action()
        except Exception as error:  # MLflow may fail in any way; no result depends on it
            self.mirror, self.sent, self.again = None, False, time.monotonic() + PAUSE
            if not self.failed:
                self.warn(f"warning: MLflow is not available ({first_line(error)}); going on without it, and trying again later")
            self.failed = True

    def open(self, began: float, parameters: int, data: DataInput | None = None) -> None:
        """Remember what to log beside the spec. The run is opened when training has lasted ``live_after`` seconds.

        Args:
            began: when the training began, in seconds since 1970.
            parameters: of the network.
            data: the prepared data set.
        """
        self.start, self.data = milliseconds(round(began, 3)), data
        known = flatten(self.identity.parameters) | {"parameters": parameters}
        self.identity = replace(self.identity, parameters=known, start=self.start)
        self.flush()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Remember values of an iteration; :meth:`flush` sends them."""
        self.values += [(name, value, step) for name, value in values.items()]

    def flush(self) -> None:
        """Send the values if training has lasted ``live_after`` seconds."""

        def action() -> None:
            lasted = time.monotonic() - self.began
            if self.mirror is None and lasted >= self.live_after:
                self._open()
            if self.mirror is not None and self._monitor is None and lasted >= self.system_metrics_after:
                self._monitor = self.mirror.monitor(self.run)
            if self.mirror is not None and self.values:
                points = curve(self.values, self.start)
                # A resumed training first repeats the curve of its checkpoint.
                self.mirror.log(self.run, points if self.sent else self.mirror.news(self.run, points))
                self.values, self.sent = [], True

        self._try(action)

    def _open(self) -> None:
        mirror = Mirror(self.folder, self.uri, self.warn)
        experiment = mirror.experiment(experiment_name(self.identity.tags["dataset"]))
        self.run = mirror.run(experiment, self.identity)
        mirror.log(self.run, (), self.identity.parameters, self.identity.tags)
        if self.data is not None:
            mirror.add_data(self.run, self.data)
        mirror.client.update_run(self.run, status="RUNNING")
        if self._monitor is not None:  # it ended when it could not reach MLflow
            self._monitor.finish()
            self._monitor = None
        self.mirror = mirror
        if self.failed:
            self.warn("MLflow is available again; nothing of this training is missing there")
        self.failed = False

    def close(self, reason: str, ended: float) -> None:
        """Send the remaining values and mark the run as finished, or as failed for a reason, at a time in seconds since 1970."""

        def action() -> None:
            self.flush()
            if self.mirror is not None:
                self.mirror.log(self.run, (), None, {"fmbench.reason": reason})
                self.mirror.end(self.run, bool(reason), milliseconds(round(ended, 3)))

        self.system_metrics_after = math.inf
        if self._monitor is not None:
            self._monitor.finish()
        if self.run:
            self.again = 0.0  # the run is open on a server that may be there again
        self._try(action)


def curve(values: list[tuple[str, float, int]], start: int) -> list[Point]:
    """Values (name, value, step) of a curve as points of MLflow.

    Logging a point again must add nothing, whenever it is logged, so its time is the start of the run plus the step, in ms.
    """
    return [Point(name, value, step, start + step) for name, value, step in values]
