"""The memory and the time that the rules ask a cluster for. They were counted by :mod:`fmbench.stages.plan.jobs`."""

from pathlib import Path
from typing import Any

from fmbench.config.config import Config
from fmbench.config.hashing import settings_hash
from fmbench.config.written_out import written_out
from fmbench.errors import DataError
from fmbench.store.codehash import module_hash
from fmbench.store.documents import read_document, write_document
from fmbench.store.shapes import Counted

FILE = "resources.json"
UNKNOWN = (16000, 1440)
"""MiB and minutes for a job that could not be counted, because its data must be prepared first."""
SMALL = (3000, 60)
"""MiB and minutes for a job of the whole run: theory, gathered files, tables, figures, the page and MLflow."""
MOST_MINUTES = 7 * 24 * 60
"""Few clusters give a job more. A longer job continues from its checkpoint or cache."""


class Needs:
    """What the jobs of a config ask for. A job of a data set has no method, and a job of the whole run has no data set either."""

    def __init__(self, datasets: dict[str, Any], models: dict[str, Any]) -> None:
        self._datasets, self._models = datasets, models

    def memory(self, stage: str, dataset: str = "", method: str = "", attempt: int = 1) -> int:
        """MiB for one job, more at each attempt."""
        asked = self._of(stage, dataset, method)
        return attempt * (asked["memory_mib"] if asked else self._default(dataset)[0])

    def minutes(self, stage: str, dataset: str = "", method: str = "", attempt: int = 1) -> int:
        """Minutes for one job, more at each attempt, at most :data:`MOST_MINUTES`."""
        asked = self._of(stage, dataset, method)
        return min(attempt * (asked["minutes"] if asked else self._default(dataset)[1]), MOST_MINUTES)

    def seconds(self, stage: str, dataset: str = "", method: str = "") -> int | None:
        """The seconds that were counted for one job; None for a job that was not counted."""
        asked = self._of(stage, dataset, method)
        return asked["seconds"] if asked else None

    def _of(self, stage: str, dataset: str, method: str) -> dict[str, int] | None:
        jobs = self._models.get(dataset, {}).get(method, {}) if method else self._datasets.get(dataset, {})
        found: dict[str, int] | None = jobs.get(stage)
        return found

    def _default(self, dataset: str) -> tuple[int, int]:
        return UNKNOWN if dataset else SMALL


def read_needs(config: Config) -> Needs | None:
    """What the jobs ask for; None if they were not counted yet, or for other settings or by other code."""
    try:
        found = read_document(Path(config.results_dir) / FILE, Counted)
    except DataError:
        return None
    return Needs(found["datasets"], found["models"]) if found["key"] == _key(config) else None


def count_needs(config: Config) -> None:
    """Count what the jobs ask for and write it into the results folder. This imports torch."""
    from fmbench.stages.plan.jobs import needs

    found = needs(config, Path(config.results_dir))
    # Without its key the count is made again, when the data are there.
    key = _key(config) if len(found["datasets"]) == len(config.datasets) else ""
    write_document(Path(config.results_dir) / FILE, {"key": key, **found})


def _key(config: Config) -> str:
    return f"{settings_hash(written_out(config))}-{module_hash('fmbench.stages.plan.jobs')}"
