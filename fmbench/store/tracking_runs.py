"""What a run of MLflow is called, how it is found again, and what it says about itself: tags, times and data set."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fmbench.config.hashing import settings_hash
from fmbench.store.benchmark import split_hashes

KEY = "fmbench.key"
"""The tag that identifies a run."""
SUMMARY = "fmbench/summary"
"""The experiment of the summary runs."""


class Point(NamedTuple):
    """A value of a metric, as MLflow keeps it."""

    name: str
    value: float
    step: int
    time: int  # ms since 1970


class DataInput(NamedTuple):
    """A prepared data set, as MLflow shows it."""

    name: str
    digest: str
    source: str  # JSON: the data source and its parameters
    profile: str  # JSON: the number of samples of each split


@dataclass(frozen=True)
class RunIdentity:
    """What identifies a run, and what MLflow's list shows of it.

    Attributes:
        key: the run's tag :data:`KEY`. A resumed training has the same key and the same start, and so the same run.
        tags: its other tags.
        parameters: the settings behind it.
        start: when the training began, in ms since 1970; None if that is not known. A training that was repeated from its first
            iteration is another run.
    """

    key: str
    name: str
    tags: Mapping[str, str]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    start: int | None = None


def milliseconds(seconds: float) -> int:
    """A time in seconds since 1970 as MLflow writes it."""
    return round(1000 * seconds)


def experiment_name(dataset: str) -> str:
    """The name of a data set's experiment."""
    return f"fmbench/{dataset}"


def run_key(spec: Mapping[str, Any], spec_hash: str, code_hash: str) -> str:
    """The tag that identifies the run of a training."""
    return f"train/{spec['dataset']}/{_run_name(spec)}/{spec_hash}-{code_hash}"


def training_identity(
    spec: Mapping[str, Any], hashes: tuple[str, str], commit: str, parameters: Mapping[str, Any], start: int | None
) -> RunIdentity:
    """The identity of the run of a training.

    Args:
        hashes: of the spec and of the code.
        parameters: the settings, and what else is shown beside them.
        start: in ms since 1970; None if it is not known.
    """
    tags = {"dataset": spec["dataset"], "method": spec["method"]["name"], "seed": str(spec["seed"])}
    return RunIdentity(run_key(spec, *hashes), _run_name(spec), tags | source_tags([commit]), parameters, start)


def method_identity(spec: Mapping[str, Any], code_hash: str, commits: Iterable[str], start: int | None) -> RunIdentity:
    """The identity of the parent run of all seeds of a method on a data set.

    Args:
        spec: of the training of any seed.
    """
    shared = {key: value for key, value in spec.items() if key != "seed"}
    name = str(spec["method"]["name"])
    key = f"seeds/{spec['dataset']}/{name}/{settings_hash(shared)}-{code_hash}"
    return RunIdentity(key, name, {"dataset": spec["dataset"], "method": name} | source_tags(commits), start=start)


def source_tags(commits: Iterable[str]) -> dict[str, str]:
    """The tags that name the program and the commits that made a run. MLflow shows both in its list of runs."""
    found = ", ".join(sorted(set(commits)))
    tags = {"fmbench.commit": found, "mlflow.source.name": "fmbench", "mlflow.source.type": "LOCAL"}
    return tags | ({"mlflow.source.git.commit": found.removesuffix("+dirty")} if "," not in found and found != "unknown" else {})


def data_input(manifest: Mapping[str, Any]) -> DataInput:
    """A prepared data set from its manifest, as :func:`described_data` describes it."""
    counts = {split: entry["n"] for split, entry in manifest["splits"].items()}
    spec = manifest["spec"]
    return described_data(manifest["dataset"], spec, split_hashes(dict(manifest)), counts)


def described_data(name: str, source: Mapping[str, Any], hashes: Mapping[str, str], counts: Mapping[str, int]) -> DataInput:
    """A prepared data set. Its digest is that of the hashes of all splits and labels in its manifest.

    Args:
        source: the name of the source under ``source``, its ``parameters``, and the ``condition`` if there is one.
        hashes: as :func:`fmbench.store.benchmark.split_hashes` gives them.
        counts: the number of samples of each split.
    """
    where = {key: source[key] for key in ("source", "parameters", "condition") if key in source}
    profile = {f"{split} samples": counts[split] for split in sorted(counts)}
    return DataInput(name, settings_hash(dict(hashes)), json.dumps(where, sort_keys=True), json.dumps(profile))


def _run_name(spec: Mapping[str, Any]) -> str:
    """The name of a training's run in MLflow's list."""
    return f"{spec['method']['name']}/{spec['seed']}"
