"""Stage ``collect``: join the rows of all jobs into ``records.parquet``, and mirror them to MLflow.

Beside the records stand ``benchmark.json`` (what they belong to), ``models.parquet`` and ``loss_curves.parquet`` (what each
model was trained with, and its loss). With them a set of results can be shared, and MLflow rebuilt, without the models.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from fmbench.config.hashing import canonical
from fmbench.config.specs import model_folder
from fmbench.data.prepared import read
from fmbench.errors import DataError
from fmbench.stages.settings import used_settings
from fmbench.store.benchmark import FILE, describe
from fmbench.store.files import read_json, write_json
from fmbench.store.records import (
    PREVIEW,
    PREVIEW_IMAGES,
    PREVIEW_POINTS,
    previews,
    read_rows,
    read_table,
    table,
    write_table,
)
from fmbench.store.tracking import OFF, Mirror, experiment_name, flatten, run_key, run_name
from fmbench.system.progress import Console

EVALUATIONS = ("sample", "likelihood", "sweep", "sample_quality")

OWNER = [("dataset", pa.string()), ("method", pa.string()), ("seed", pa.int64())]
CURVES = pa.schema([*OWNER, ("step", pa.int64()), ("loss", pa.float64()), ("learning_rate", pa.float64())])
MODELS = pa.schema([*OWNER, ("config", pa.string())])
"""``config`` is a model's config.json, as canonical JSON."""


def run(spec: dict[str, Any], results: Path, console: Console, config: dict[str, Any] | None = None) -> None:
    """Write ``records.parquet`` (every row), ``previews.parquet`` (the first samples of every model, and of the data),
    ``settings.parquet`` (what every model was made with), ``loss_curves.parquet`` and ``models.parquet``.

    Args:
        spec: data sets, methods and seeds, which name the files to join.
        results: the results folder.
        config: the whole config (:func:`fmbench.config.specs.describe`), for ``benchmark.json``; without it there is none.
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
    write_table(results / "settings.parquet", used_settings(results, models))

    configs = [(model, read_json(results / model_folder("models", *model) / "config.json")) for model in models]
    lines = [dict(zip(MODELS.names, (*model, canonical(values)), strict=True)) for model, values in configs]
    write_table(results / "models.parquet", table(lines, MODELS))
    write_table(results / "loss_curves.parquet", pa.concat_tables([CURVES.empty_table(), *(_curve(results, m) for m in models)]))

    # The description comes last: what it describes is there.
    if config is not None:
        manifests = {d: read_json(results / "data" / d / "manifest.json") for d in spec["datasets"]}
        write_json(results / FILE, describe(config, records.to_pylist(), manifests, gathered=spec["gathered"]))
    console.say(f"{records.num_rows} rows from {len(files)} files -> {results / 'records.parquet'}")


def _curve(results: Path, model: tuple[str, str, int]) -> pa.Table:
    curve = read_table(results / model_folder("models", *model) / "loss_curve.parquet")
    owner = [pa.array([value] * curve.num_rows, kind) for value, (_, kind) in zip(model, OWNER, strict=True)]
    columns = [curve[name] for name in CURVES.names[len(OWNER) :]]
    return pa.table([*owner, *columns], names=CURVES.names).cast(CURVES)


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
        runs = mirror_trainings(results, Mirror(folder, uri))
        console.say(f"{runs} MLflow runs are up to date -> {folder if uri is None else uri}")
    except Exception as error:  # a dead MLflow server never costs a result
        console.say(f"warning: MLflow is not available ({error}); the records are complete without it")


def _trainings(results: Path) -> Callable[[tuple[str, str, int]], tuple[dict[str, Any], list[dict[str, Any]]]]:
    """A model's config.json and its curve: from the joined files, or from the models' folders where those are not there."""
    if not (results / "models.parquet").exists():

        def single(model: tuple[str, str, int]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
            folder = results / model_folder("models", *model)
            return read_json(folder / "config.json"), read_table(folder / "loss_curve.parquet").to_pylist()

        return single
    configs = {_owner(row): json.loads(row["config"]) for row in read_table(results / "models.parquet").to_pylist()}
    curves: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in read_table(results / "loss_curves.parquet").to_pylist():
        curves.setdefault(_owner(row), []).append(row)

    def joined(model: tuple[str, str, int]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        if model not in configs:
            raise DataError(f"{results / 'models.parquet'} does not have {'/'.join(map(str, model))}, which has records")
        return configs[model], curves.get(model, [])

    return joined


def _owner(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["dataset"], row["method"], row["seed"]


def mirror_trainings(results: Path, store: Mirror) -> int:
    """Bring the runs of all trainings up to the records, and return how many there are."""
    trainings = _trainings(results)
    records = read_table(results / "records.parquet").to_pylist()
    by_model: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in records:
        if row["method"]:
            by_model.setdefault((row["dataset"], row["method"], row["seed"]), []).append(row)
    experiments = {d: store.experiment(experiment_name(d)) for d in sorted({d for d, _, _ in by_model})}
    for model, rows in by_model.items():
        config, curve = trainings(model)
        key = run_key(config["spec"], config["spec_hash"], config["code_hash"])
        tags = run_tags(rows[0]["commit"], config["spec"])
        run, start = store.run(experiments[model[0]], key, run_name(config["spec"]), tags)
        points: list[tuple[str, float, int]] = []
        for entry in curve:
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
        store.log(run, start, store.news(run, points), parameters, tags | {"fmbench.reason": "; ".join(reasons)})
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
