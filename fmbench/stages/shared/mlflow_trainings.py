"""The MLflow runs of all trainings, brought up to the records: one run for each training, with settings, loss curve and results.

MLflow is a copy for browsing. No result depends on it.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

from fmbench.errors import DataError
from fmbench.store.documents import check_shape, parse_json
from fmbench.store.flatten import flatten
from fmbench.store.shapes import ModelConfig
from fmbench.store.tables import read_member
from fmbench.store.tracking import JOB_CHECK, OFF, Mirror, experiment_name, run_key, run_name, run_tags
from fmbench.store.tracking_check import first_line
from fmbench.system.progress import Console


class _Training(NamedTuple):
    """The gathered ``config.json``, loss curve and records of one model."""

    config: dict[str, Any]
    curve: list[dict[str, Any]]
    records: list[dict[str, Any]]


def mirror(results: Path, folder: Path, uri: str | None, console: Console) -> None:
    """Bring the MLflow runs of all trainings up to the records.

    A run that a training wrote gains its evaluation, and a deleted store is made anew. Repeating this adds nothing. A failure of
    MLflow is a warning.

    Args:
        folder, uri: the MLflow store, as in :class:`fmbench.store.tracking.Mirror`, or ``off``.
    """
    if uri == OFF:
        return
    try:
        runs = mirror_trainings(results, Mirror(folder, uri, console.say, JOB_CHECK))
        console.say(f"{runs} MLflow runs are up to date -> {folder if uri is None else uri}")
    except Exception as error:  # a failure of MLflow must not cost a result
        console.say(
            f"warning: MLflow is not available ({first_line(error)}); the records are complete without it. "
            "`fmbench mlflow-rebuild` brings it up to date later"
        )


def mirror_trainings(results: Path, store: Mirror) -> int:
    """Bring the MLflow runs of all trainings up to the records, and return the number of runs.

    Raises:
        DataError: a model has records but no row in ``models.parquet``.
        Exception: whatever MLflow raises.
    """
    trainings = _trainings(results)
    experiments = {d: store.experiment(experiment_name(d)) for d in sorted({d for d, _, _ in trainings})}
    for (dataset, _, _), training in trainings.items():
        _mirror_one(store, experiments[dataset], training)
    return len(trainings)


def _trainings(results: Path) -> dict[tuple[str, str, int], _Training]:
    """The models that have records, by data set, method and seed."""
    configs = {_owner(row): _config(results, row) for row in read_member(results, "models.parquet").to_pylist()}
    found: dict[tuple[str, str, int], _Training] = {}
    for row in read_member(results, "records.parquet").to_pylist():
        if row["method"]:
            model = _owner(row)
            if model not in configs:
                raise DataError(f"{results / 'models.parquet'} does not have {'/'.join(map(str, model))}, which has records")
            found.setdefault(model, _Training(configs[model], [], [])).records.append(row)
    for row in read_member(results, "loss_curves.parquet").to_pylist():
        if _owner(row) in found:
            found[_owner(row)].curve.append(row)
    return found


def _config(results: Path, row: dict[str, Any]) -> dict[str, Any]:
    """The config of one model, from its row in ``models.parquet``."""
    name = f"the config of {'/'.join(map(str, _owner(row)))} in {results / 'models.parquet'}"
    values = parse_json(row["config"], name)
    check_shape(values, ModelConfig, name)
    return dict(values)


def _owner(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["dataset"], row["method"], row["seed"]


def _mirror_one(store: Mirror, experiment: str, training: _Training) -> None:
    config, curve, records = training
    spec = config["spec"]
    key = run_key(spec, config["spec_hash"], config["code_hash"])
    tags = run_tags(records[0]["commit"], spec)
    parameters = flatten(spec) | {"parameters": config["parameters"]}
    run, start = store.run(experiment, key, run_name(spec), tags, parameters)
    # The duration of a repeated job differs, which is not worth a new point.
    shown = store.client.get_run(run).data.metrics
    evaluation = [p for p in _evaluation(records, config["step"]) if not (p[0].endswith("_seconds") and p[0] in shown)]
    # MLflow shows the point with the largest step and then the latest time: a changed value must be later to be shown.
    store.log(run, int(time.time() * 1000), store.news(run, evaluation))
    points = [(name, entry[name], entry["step"]) for entry in curve for name in ("loss", "learning_rate")]
    reasons = sorted({row["reason"] for row in records if row["reason"]})
    store.log(run, start, store.news(run, points), parameters, tags | {"fmbench.reason": "; ".join(reasons)})
    store.client.set_terminated(run, "FAILED" if config["reason"] else "FINISHED")


def _evaluation(records: list[dict[str, Any]], step: int) -> list[tuple[str, float, int]]:
    """The results of a model as MLflow points: a curve over NFE for each solver of the sweep, else one number at the end."""
    points = []
    for row in records:
        if row["status"] == "ok" and row["metric"] != "seconds":
            if row["metric"] in ("mse", "mse_stderr"):
                points.append((f"sweep/{row['metric']}/{row['solver']}", row["value"], int(row["nfe"])))
            else:
                points.append((f"{row['stage']}/{row['metric']}", row["value"], int(step)))
    return points
