"""MLflow's summary run: the tables, figures and claims of a config, attached to one run that is found again.

Beside the runs of the trainings (:mod:`fmbench.stages.collect`); like them a mirror that no result depends on.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from fmbench.errors import DataError
from fmbench.store.benchmark import FILE, read_benchmark, stale_files
from fmbench.store.files import sha256, write_json
from fmbench.store.records import read_rows
from fmbench.store.tracking import OFF, Mirror, flatten
from fmbench.system.progress import Console

EXPERIMENT = "fmbench/summary"
LISTED = "artifacts.json"
PATTERNS = {
    "tables": ("*.csv", "*.md", "*.tex", "*.html"),
    "figures": ("figures/*.png", "figures/*.svg", "figures/*.pdf"),
}
"""What is attached, by the folder it gets there. Snakemake's own report is a page of everything again, and is left out."""
SHOWN = ("nll", "nfe", "frechet", "energy_distance")


def artifacts(results: Path) -> dict[str, Path]:
    """What there is to attach, by its path in MLflow."""
    found, others = {FILE: results / FILE}, ("report.html", *stale_files(results))
    for folder, patterns in PATTERNS.items():
        for path in sorted(p for pattern in patterns for p in results.glob(pattern)):
            if path.name not in others and not path.name.startswith("."):
                found[f"{folder}/{path.name}"] = path
    return found


def run(results: Path, folder: Path, uri: str | None, out: Path | None, console: Console) -> None:
    """Bring the summary run up to date; a failure of MLflow is said and goes no further.

    Args:
        folder, uri: of the MLflow store, as in :class:`fmbench.store.tracking.Mirror`.
        out: a JSON file that lists what is attached, with its hash.
    """
    attached = {name: sha256(path) for name, path in artifacts(results).items()}
    key = f"summary/{read_benchmark(results)['hash']}"
    if uri != OFF:
        try:
            sent = attach(results, Mirror(folder, uri))
            console.say(f"{sent} of {len(attached)} files were new to MLflow's {key} -> {folder if uri is None else uri}")
        except Exception as error:  # a dead MLflow server never costs a result
            console.say(
                f"warning: MLflow is not available ({error}); tables and figures are complete without it. "
                "`fmbench mlflow-rebuild` brings it up to date later"
            )
    if out is not None:
        write_json(out, {"key": key, "artifacts": attached})


def attach(results: Path, store: Mirror) -> int:
    """Attach to the summary run what it does not have yet as it is now, and return how many files that were.

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
        "fmbench.config.methods": ", ".join(m["name"] for m in config["methods"]),
        "fmbench.commit": ", ".join(described["commits"]),
    }
    run, start = store.run(store.experiment(EXPERIMENT), f"summary/{described['hash']}", name, tags)
    parameters = {"seeds": config["seeds"], "rows": described["rows"]}
    parameters |= {k: v for k, v in config.items() if k not in ("seeds", "settings", "methods")}
    shown = store.client.get_run(run).data.params
    parameters = {k: v for k, v in flatten(parameters).items() if k not in shown}  # MLflow never changes one
    store.log(run, start, (), parameters, tags)
    store.log(run, int(time.time() * 1000), store.news(run, means(results)))

    before = _listed(store, run)
    now = {target: sha256(path) for target, path in found.items()}
    new = [target for target in found if before.get(target) != now[target]]
    for target in new:
        folder = target.rpartition("/")[0]
        store.client.log_artifact(run, str(found[target]), folder or None)
    if now != before:
        with tempfile.TemporaryDirectory() as folder:
            write_json(Path(folder) / LISTED, now)  # last: what it lists is there
            store.client.log_artifact(run, str(Path(folder) / LISTED))
    store.client.set_terminated(run, "FINISHED")
    return len(new)


def _listed(store: Mirror, run: str) -> dict[str, str]:
    if LISTED not in {entry.path for entry in store.client.list_artifacts(run)}:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            values: Any = json.loads(Path(store.client.download_artifacts(run, LISTED, folder)).read_text(encoding="utf-8"))
        except ValueError:
            return {}
    return values if isinstance(values, dict) else {}


def means(results: Path) -> list[tuple[str, float, int]]:
    """The main numbers of every method, means over seeds, as MLflow shows them in its columns."""
    groups: dict[str, list[float]] = {}
    for row in read_rows([results / "records.parquet"]).to_pylist():
        if row["method"] and row["metric"] in SHOWN and row["status"] == "ok":
            groups.setdefault(f"{row['dataset']}/{row['method']}/{row['metric']}", []).append(row["value"])
    return [(name, sum(values) / len(values), 0) for name, values in groups.items()]


def rebuild(results: Path, folder: Path, uri: str | None, console: Console) -> None:
    """Make or complete the whole MLflow store, trainings and summary, from a results folder's parquet, JSON and reports.

    Raises:
        DataError: MLflow cannot be written, which here is what was asked for.
    """
    from fmbench.stages.collect import mirror_trainings

    if uri == OFF:
        raise DataError("MLflow is off (FMBENCH_TRACKING_URI): there is nothing to rebuild; give --tracking-uri, or unset it")
    try:
        store = Mirror(folder, uri)
        runs = mirror_trainings(results, store)
        sent = attach(results, store)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"MLflow could not be rebuilt at {uri or folder}: {error}") from error
    where = folder if uri is None else uri
    console.say(f"{runs} trainings and their summary are up to date, {sent} files new -> {where}")
