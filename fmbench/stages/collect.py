"""Stage ``collect``: join the rows of all jobs into ``records.parquet``, and mirror them to MLflow."""

import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from fmbench.data.prepared import read
from fmbench.files import read_json
from fmbench.progress import Console
from fmbench.records import (
    PREVIEW,
    PREVIEW_IMAGES,
    PREVIEW_POINTS,
    previews,
    read_rows,
    read_table,
    write_table,
)
from fmbench.specs import model_folder
from fmbench.tracking import OFF, Mirror, experiment_name, flatten, run_key, run_name

EVALUATIONS = ("sample", "likelihood", "sweep", "quality")


def run(spec: dict[str, Any], results: Path, console: Console) -> None:
    """Write ``records.parquet`` (every row) and ``previews.parquet`` (the first samples of every model, and of the data).

    Args:
        spec: data sets, methods and seeds, which name the files to join.
        results: the results folder.
    """
    models = [(d, m, s) for d in spec["datasets"] for m in spec["methods"] for s in spec["seeds"]]
    files = [results / "features" / d / "rows.parquet" for d in spec["datasets"]]
    files += [results / model_folder("models", *model) / "rows.parquet" for model in models]
    files += [results / model_folder(stage, *model) / "rows.parquet" for stage in EVALUATIONS for model in models]
    records = read_rows(files)
    write_table(results / "records.parquet", records)

    shown = [read_table(results / model_folder("sample", *model) / "preview.parquet").cast(PREVIEW) for model in models]
    shown += [_data_preview(results / "data" / d) for d in spec["datasets"]]
    write_table(results / "previews.parquet", pa.concat_tables(shown))
    console.say(f"{records.num_rows} rows from {len(files)} files -> {results / 'records.parquet'}")


def _data_preview(folder: Path) -> pa.Table:
    dataset = read(folder)
    shown = dataset.test[: PREVIEW_IMAGES if dataset.is_images else PREVIEW_POINTS]
    return previews(dataset.manifest["dataset"], "data", None, shown, range(len(shown)))


def mirror(results: Path, folder: Path, uri: str | None, console: Console) -> None:
    """Bring MLflow up to the records: a run for every training, with its parameters, curve and evaluation.

    Runs that are there already (written live) gain their evaluation; a store that was deleted is made anew. Logging
    again changes nothing. A failure is said and goes no further.
    """
    if uri == OFF:
        return
    try:
        runs = _mirror(results, Mirror(folder, uri))
        console.say(f"{runs} MLflow runs are up to date -> {folder if uri is None else uri}")
    except Exception as error:  # a dead MLflow server never costs a result
        console.say(f"warning: MLflow is not available ({error}); the records are complete without it")


def _mirror(results: Path, store: Mirror) -> int:
    records = read_table(results / "records.parquet").to_pylist()
    by_model: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in records:
        if row["method"]:
            by_model.setdefault((row["dataset"], row["method"], row["seed"]), []).append(row)
    experiments = {d: store.experiment(experiment_name(d)) for d in sorted({d for d, _, _ in by_model})}
    for model, rows in by_model.items():
        folder = results / model_folder("models", *model)
        config = read_json(folder / "config.json")
        key = run_key(config["spec"], config["spec_hash"], config["code_hash"])
        tags = run_tags(rows[0]["commit"], config["spec"])
        run, start = store.run(experiments[model[0]], key, run_name(config["spec"]), tags)
        points: list[tuple[str, float, int]] = []
        for entry in read_table(folder / "curve.parquet").to_pylist():
            points += [(name, entry[name], entry["step"]) for name in ("loss", "learning_rate")]
        reasons = sorted({r["reason"] for r in rows if r["reason"]})
        evaluation: list[tuple[str, float, int]] = []
        for row in rows:
            if row["status"] == "ok" and row["metric"] != "seconds":
                # A sweep is a curve over NFE; everything else is one number at the end of training.
                swept = row["metric"] == "mse"
                name = f"sweep/mse/{row['solver']}" if swept else f"{row['stage']}/{row['metric']}"
                evaluation.append((name, row["value"], int(row["nfe"] if swept else config["step"])))
        # A job repeated takes another time; that is no news.
        shown = store.client.get_run(run).data.metrics
        evaluation = [point for point in evaluation if not (point[0].endswith("_seconds") and point[0] in shown)]
        # MLflow shows the newest by step, then time: what is logged again because it changed must be later, not just other.
        store.log(run, int(time.time() * 1000), store.news(run, evaluation))
        parameters = flatten(config["spec"]) | {"parameters": config["parameters"]}
        store.log(run, start, points, parameters, tags | {"fmbench.reason": "; ".join(reasons)})
        store.client.set_terminated(run, "FAILED" if config["reason"] else "FINISHED")
    return len(by_model)


def run_tags(commit: str, spec: dict[str, Any]) -> dict[str, str]:
    """The tags of a training's run."""
    return {
        "fmbench.dataset": spec["dataset"],
        "fmbench.method": spec["method"]["name"],
        "fmbench.seed": str(spec["seed"]),
        "fmbench.commit": commit,
    }
