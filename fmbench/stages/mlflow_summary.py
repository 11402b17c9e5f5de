"""The MLflow summary run: the tables, figures and claims of a config, attached to one run for each config.

:mod:`fmbench.stages.shared.mlflow_trainings` writes the runs of the trainings. MLflow is a copy for browsing; no result
depends on it.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from fmbench.errors import DataError, first_line
from fmbench.stages.shared.mlflow_trainings import TIMES, mirror_trainings
from fmbench.store.benchmark import FILE, read_benchmark
from fmbench.store.files import sha256, write_json
from fmbench.store.flatten import flatten
from fmbench.store.records import read_rows
from fmbench.store.stale import stale_files
from fmbench.store.tracking import JOB_CHECK, OFF, Mirror
from fmbench.store.tracking_check import passing
from fmbench.store.tracking_runs import SUMMARY, Point, RunIdentity, milliseconds, source_tags
from fmbench.system.progress import Console

LISTED = "artifacts.json"
PATTERNS = {
    "tables": ("*.csv", "*.md", "*.tex", "*.html"),
    "figures": ("figures/*.png", "figures/*.svg", "figures/*.pdf"),
}
"""The files to attach, by their folder in MLflow. Snakemake's report repeats all of them, so it is left out."""
SHOWN = ("nll", "nfe", "frechet", "energy_distance")


def artifacts(results: Path) -> dict[str, Path]:
    """The files to attach, by their path in MLflow."""
    found, left_out = {FILE: results / FILE}, ("report.html", *stale_files(results))
    for folder, patterns in PATTERNS.items():
        for path in sorted(p for pattern in patterns for p in results.glob(pattern)):
            if path.name not in left_out and not path.name.startswith("."):
                found[f"{folder}/{path.name}"] = path
    return found


def run(results: Path, folder: Path, uri: str | None, out: Path | None, console: Console, models: bool = False) -> None:
    """Bring the runs of the trainings and the summary run up to date. A failure of MLflow is a warning.

    Args:
        folder, uri: the MLflow store, as in :class:`fmbench.store.tracking.Mirror`, or ``off``.
        out: a JSON file for the list of the attached files and their hashes.
        models: whether finished models are copied to MLflow.
    """
    attached = {name: sha256(path) for name, path in artifacts(results).items()}
    key = f"summary/{read_benchmark(results)['hash']}"
    if uri != OFF:
        try:
            store = Mirror(folder, uri, console.say, JOB_CHECK)
            mirror_trainings(results, store, models)
            sent = attach(results, store)
            console.say(f"{sent} of {len(attached)} files were new to MLflow's {key} -> {folder if uri is None else uri}")
        except Exception as error:  # a failure of MLflow must not cost a result
            console.say(
                f"warning: MLflow is not available ({first_line(error)}); tables and figures are complete without it. "
                "`fmbench mlflow-rebuild` brings it up to date later"
            )
    if out is not None:
        write_json(out, {"key": key, "artifacts": attached})


def attach(results: Path, store: Mirror) -> int:
    """Attach new and changed files to the summary run, and return the number of files sent.

    Raises:
        Exception: whatever MLflow raises.
    """
    described = read_benchmark(results)
    config = described["config"]
    found = artifacts(results)
    name = f"{', '.join(config['datasets'])} ({described['hash']})"
    tags = {
        "fmbench.summary": described["hash"],
        "fmbench.datasets": ", ".join(config["datasets"]),
        "fmbench.methods": ", ".join(m["name"] for m in config["methods"]),
    } | source_tags(described["commits"])
    records = read_rows([results / "records.parquet"]).to_pylist()
    starts, ends = ([at for row in records if (at := _time(row, metric)) is not None] for metric in TIMES)
    end = max(ends, default=int(time.time() * 1000))
    identity = RunIdentity(f"summary/{described['hash']}", name, tags, start=min(starts, default=None))
    run = store.run(store.experiment(SUMMARY), identity)
    parameters = {"seeds": config["seeds"], "rows": described["rows"]}
    parameters |= {k: v for k, v in config.items() if k not in ("seeds", "settings", "methods")}
    shown = store.client.get_run(run).data.params
    parameters = {k: v for k, v in flatten(parameters).items() if k not in shown}  # MLflow never changes a parameter
    store.log(run, store.news(run, means(records, end)), parameters, tags)

    before, there = _listed(store, run), _sizes(store, run)
    now = {target: sha256(path) for target, path in found.items()}
    new = [t for t, path in found.items() if before.get(t) != now[t] or there.get(t) != path.stat().st_size]
    for target in new:
        folder = target.rpartition("/")[0]
        store.client.log_artifact(run, str(found[target]), folder or None)
    if new or now != before:
        with tempfile.TemporaryDirectory() as folder:
            write_json(Path(folder) / LISTED, now)  # last, when everything it lists is there
            store.client.log_artifact(run, str(Path(folder) / LISTED))
    store.end(run, False, max(ends, default=None))
    return len(new)


def _time(row: dict[str, Any], metric: str) -> int | None:
    """The time in ms since 1970 that a row tells of a training, if it is this metric."""
    return milliseconds(row["value"]) if row["stage"] == "train" and row["metric"] == metric else None


def _sizes(store: Mirror, run: str) -> dict[str, int]:
    """The sizes (bytes) of the files that MLflow still has, by their path in it. Somebody may have deleted some."""
    folders = (None, *PATTERNS)
    return {entry.path: entry.file_size for folder in folders for entry in store.client.list_artifacts(run, folder)}


def _listed(store: Mirror, run: str) -> dict[str, str]:
    if LISTED not in {entry.path for entry in store.client.list_artifacts(run)}:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            values: Any = json.loads(Path(store.client.download_artifacts(run, LISTED, folder)).read_text(encoding="utf-8"))
        except ValueError:
            return {}
    return values if isinstance(values, dict) else {}


def means(records: list[dict[str, Any]], time: int) -> list[Point]:
    """The main metrics of every method, as means over seeds, for the columns of MLflow's list of runs.

    Args:
        time: of the points, in ms since 1970.
    """
    groups: dict[str, list[float]] = {}
    for row in records:
        if row["method"] and row["metric"] in SHOWN and row["status"] == "ok":
            groups.setdefault(f"{row['dataset']}/{row['method']}/{row['metric']}", []).append(row["value"])
    return [Point(name, sum(values) / len(values), 0, time) for name, values in groups.items()]


def rebuild(results: Path, folder: Path, uri: str | None, console: Console, models: bool = False) -> None:
    """Make or complete a whole MLflow store, trainings and summary, from the files of a results folder.

    Args:
        models: whether finished models are copied to MLflow.

    Raises:
        DataError: MLflow is off or cannot be written. A rebuild has no other purpose, so this is an error here.
    """
    if uri == OFF:
        raise DataError(
            "MLflow is off (FMBENCH_TRACKING_URI), so there is no store to rebuild; give --tracking-uri, or unset the variable"
        )
    try:
        store = Mirror(folder, uri, console.say, float("inf"))
        try:
            runs, sent = mirror_trainings(results, store, models), attach(results, store)
        except DataError:
            raise
        except Exception as error:
            if not store.local or passing(error):
                raise
            store.replace(first_line(error))
            runs, sent = mirror_trainings(results, store, models), attach(results, store)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"MLflow could not be rebuilt at {uri or folder}: {first_line(error)}") from error
    where = folder if uri is None else uri
    console.say(f"{runs} trainings and their summary are up to date, {sent} files new -> {where}")
