"""A running stage: its spec, device and processes, the rows it has measured, and the check that its data are the right ones."""

from dataclasses import dataclass, field
from typing import Any

import torch

from fmbench.config.hashing import settings_hash
from fmbench.data.prepared import DataSet
from fmbench.errors import DataError
from fmbench.store.provenance import commit, device_name, versions
from fmbench.store.records import DIVERGED, OK, SKIPPED, Row
from fmbench.system.distributed import ALONE, Group
from fmbench.system.progress import Console


@dataclass
class Job:
    """A running stage."""

    spec: dict[str, Any]
    console: Console  # where it prints messages and progress
    device: torch.device
    code_hash: str
    rows: list[Row] = field(default_factory=list)  # what it has measured so far
    group: Group = ALONE  # the processes that share the work. Only the first writes files

    def __post_init__(self) -> None:
        self.config_hash = settings_hash(self.spec)
        self.device_name = device_name(str(self.device))

    def add(self, metric: str, value: float | None, unit: str, **columns: Any) -> None:
        """Add a row with its provenance. A value that is not finite becomes a row with the status ``diverged``."""
        if columns.get("status", OK) == OK and (value is None or not abs(value) < float("inf")):
            columns |= {"status": DIVERGED, "reason": columns.get("reason") or f"{metric} is {value}"}
            value = None
        spec = self.spec
        defaults = {
            "dataset": spec["dataset"],
            "method": spec["method"] if isinstance(spec.get("method"), str) else spec.get("method", {}).get("name", ""),
            "seed": spec.get("seed"),
            "stage": spec["stage"],
            "config_hash": self.config_hash,
            "code_hash": self.code_hash,
            "commit": commit(),
            "versions": versions(),
            "device": self.device_name,
            "threads": torch.get_num_threads(),
        }
        self.rows.append(Row(metric=metric, value=value, unit=unit, **(defaults | columns)))

    def skip(self, metric: str, unit: str, reason: str, **columns: Any) -> None:
        """Add a row for a metric that could not be measured."""
        self.add(metric, None, unit, status=SKIPPED, reason=reason, **columns)


def check_data(spec: dict[str, Any], dataset: DataSet) -> None:
    """Check that a data set is the one that a spec was made for.

    Raises:
        DataError: it is another data set.
    """
    found = dataset.manifest["spec"]
    if settings_hash(found) != spec["data"]:
        raise DataError(
            f"{dataset.folder} holds {found['dataset']} prepared from {found['source']} with {found['parameters']}, which is not "
            f"what this job's spec was made for; give the folder of {spec['dataset']}, or prepare it again"
        )


def split_hashes(dataset: DataSet) -> list[str]:
    """The sha256 of each split's file, then those of the files that its condition is made from."""
    names = ["sha256", *(f"{name}_sha256" for name in dataset.condition.arrays)]
    return [split[name] for name in names for split in dataset.manifest["splits"].values()]
