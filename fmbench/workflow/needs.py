"""The memory and the time that the rules ask a cluster for. They were counted by :mod:`fmbench.stages.plan.jobs`."""

from pathlib import Path

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

MOST_MINUTES = 7 * 24 * 60
"""Few clusters give a job more. A longer job continues from its checkpoint or cache."""


class Needs:
    """What the jobs of a config ask for."""

    def __init__(self, jobs: dict[str, dict[str, dict[str, list[int]]]]) -> None:
        self._jobs = jobs

    def memory(self, stage: str, dataset: str, method: str, attempt: int = 1) -> int:
        """MiB for one job of a model, more at each attempt."""
        return attempt * self._of(stage, dataset, method)[0]

    def minutes(self, stage: str, dataset: str, method: str, attempt: int = 1) -> int:
        """Minutes for one job of a model, more at each attempt, at most :data:`MOST_MINUTES`."""
        return min(attempt * self._of(stage, dataset, method)[1], MOST_MINUTES)

    def _of(self, stage: str, dataset: str, method: str) -> tuple[int, int]:
        memory, minutes = self._jobs.get(dataset, {}).get(method, {}).get(stage, UNKNOWN)
        return memory, minutes


def read_needs(config: Config) -> Needs | None:
    """What the jobs ask for; None if they were not counted yet, or for other settings or by other code."""
    try:
        found = read_document(Path(config.results_dir) / FILE, Counted)
    except DataError:
        return None
    return Needs(found["jobs"]) if found["key"] == _key(config) else None


def count_needs(config: Config) -> None:
    """Count what the jobs ask for and write it into the results folder. This imports torch."""
    from fmbench.stages.plan.jobs import needs

    jobs = needs(config, Path(config.results_dir))
    # Without its key the count is made again, when the data are there.
    key = _key(config) if len(jobs) == len(config.datasets) else ""
    write_document(Path(config.results_dir) / FILE, {"key": key, "jobs": jobs})


def _key(config: Config) -> str:
    return f"{settings_hash(written_out(config))}-{module_hash('fmbench.stages.plan.jobs')}"
