"""The MLflow runs of all trainings, brought up to the records: one run for each training, with settings, curves and results.

The runs of all seeds of a method are under a parent run (:mod:`fmbench.stages.shared.mlflow_parents`). MLflow is a copy for
browsing. No result depends on it.
"""

from pathlib import Path
from typing import Any, NamedTuple

from fmbench.config.names import NOT_METHODS
from fmbench.errors import DataError, first_line
from fmbench.stages.shared.mlflow_parents import Seed, mirror_parent, new_points
from fmbench.stages.shared.mlflow_sheets import FEW_STEP, SAMPLES, Sheet, add_sheets, read_sheets
from fmbench.store.benchmark import FILE, read_benchmark
from fmbench.store.documents import check_shape, parse_json
from fmbench.store.flatten import flatten
from fmbench.store.records import OK
from fmbench.store.shapes import ModelConfig
from fmbench.store.stale import stale_files
from fmbench.store.tables import read_member
from fmbench.store.tracker import curve
from fmbench.store.tracking import JOB_CHECK, OFF, Mirror
from fmbench.store.tracking_runs import DataInput, Point, described_data, experiment_name, milliseconds, training_identity
from fmbench.system.progress import Console

CURVE = "learning_curve.parquet"
TIMES = ("began", "ended")
"""The metrics of a training that are the times of its run, and no points."""

Owner = tuple[str, str, int]
"""Data set, method and seed."""


class _Training(NamedTuple):
    """The gathered ``config.json``, loss curve and records of one model."""

    config: dict[str, Any]
    curve: list[dict[str, Any]]
    records: list[dict[str, Any]]
    sheets: list[Sheet]


def mirror(results: Path, folder: Path, uri: str | None, console: Console, models: bool = False) -> None:
    """Bring the MLflow runs of all trainings up to the records.

    A run that a training wrote gains its evaluation, and a deleted store is made anew. Repeating this adds nothing. A failure of
    MLflow is a warning.

    Args:
        folder, uri: the MLflow store, as in :class:`fmbench.store.tracking.Mirror`, or ``off``.
        models: whether finished models are copied to MLflow.
    """
    if uri == OFF:
        return
    try:
        runs = mirror_trainings(results, Mirror(folder, uri, console.say, JOB_CHECK), models)
        console.say(f"{runs} MLflow runs are up to date -> {folder if uri is None else uri}")
    except Exception as error:  # a failure of MLflow must not cost a result
        console.say(
            f"warning: MLflow is not available ({first_line(error)}); the records are complete without it. "
            "`fmbench mlflow-rebuild` brings it up to date later"
        )


def mirror_trainings(results: Path, store: Mirror, models: bool = False) -> int:
    """Bring the MLflow runs of all trainings up to the records, and return the number of trainings.

    Raises:
        DataError: a model has records but no row in ``models.parquet``.
        Exception: whatever MLflow raises.
    """
    trainings = _trainings(results)
    inputs = _inputs(results)
    experiments = {d: store.experiment(experiment_name(d)) for d in sorted({d for d, _, _ in trainings})}
    methods: dict[tuple[str, str], list[Seed]] = {}
    for owner, training in trainings.items():
        dataset, method, _ = owner
        copied = results if models else None
        seed = _mirror_one(store, experiments[dataset], training, inputs.get(dataset), copied)
        methods.setdefault((dataset, method), []).append(seed)
    for (dataset, _), seeds in methods.items():
        mirror_parent(store, experiments[dataset], seeds, inputs.get(dataset))
    return len(trainings)


def _trainings(results: Path) -> dict[Owner, _Training]:
    """The models that have records. Table 2's baselines have records without a model."""
    configs = {_owner(row): _config(results, row) for row in read_member(results, "models.parquet").to_pylist()}
    found: dict[Owner, _Training] = {}
    for row in read_member(results, "records.parquet").to_pylist():
        if row["method"] and row["method"] not in NOT_METHODS:
            model = _owner(row)
            if model not in configs:
                raise DataError(f"{results / 'models.parquet'} does not have {'/'.join(map(str, model))}, which has records")
            found.setdefault(model, _Training(configs[model], [], [], [])).records.append(row)
    for row in read_member(results, "loss_curves.parquet").to_pylist():
        if _owner(row) in found:
            found[_owner(row)].curve.append(row)
    stale = stale_files(results)
    there = [name for name in (CURVE, SAMPLES, FEW_STEP) if (results / name).exists() and name not in stale]
    for row in read_member(results, CURVE).to_pylist() if CURVE in there else ():
        if _owner(row) in found:
            found[_owner(row)].records.append(row)
    for owner, sheet in read_sheets(results, there):
        if owner in found:
            found[owner].sheets.append(sheet)
    return found


def _config(results: Path, row: dict[str, Any]) -> dict[str, Any]:
    """The config of one model, from its row in ``models.parquet``."""
    name = f"the config of {'/'.join(map(str, _owner(row)))} in {results / 'models.parquet'}"
    values = parse_json(row["config"], name)
    check_shape(values, ModelConfig, name)
    return dict(values)


def _inputs(results: Path) -> dict[str, DataInput]:
    """The prepared data sets by name; none without a description of the results."""
    if not (results / FILE).exists():
        return {}
    described = read_benchmark(results)
    counts: dict[str, dict[str, int]] = {}
    if (results / "settings.parquet").exists():
        for row in read_member(results, "settings.parquet").to_pylist():
            if row["key"].startswith("data.") and row["key"] != "data":
                counts.setdefault(row["dataset"], {})[row["key"].removeprefix("data.")] = int(row["value"])
    settings = described["config"]["settings"]
    sources = {name: own["data"] | {k: own[k] for k in ("condition",) if k in own} for name, own in settings.items()}
    return {name: described_data(name, sources[name], described["data"][name], counts.get(name, {})) for name in sources}


def _owner(row: dict[str, Any]) -> Owner:
    return row["dataset"], row["method"], row["seed"]


def _mirror_one(store: Mirror, experiment: str, training: _Training, data: DataInput | None, results: Path | None) -> Seed:
    """Bring the run of one training up to its records. Its network is copied if there is a results folder to copy it from."""
    config, rows = training.config, training.records
    spec, reason, hashes = config["spec"], config["reason"], (config["spec_hash"], config["code_hash"])
    start, end = times(rows)
    parameters = flatten(spec) | {"parameters": config["parameters"]}
    identity = training_identity(spec, hashes, rows[0]["commit"], parameters, start)
    run = store.run(experiment, identity)
    start = start or store.client.get_run(run).info.start_time
    losses = curve([(name, entry[name], entry["step"]) for entry in training.curve for name in ("loss", "learning_rate")], start)
    measured = _evaluation(rows, config["step"], end or start)
    reasons = sorted({row["reason"] for row in rows if row["reason"]})
    store.log(
        run, new_points(store, run, [*losses, *measured]), parameters, {**identity.tags, "fmbench.reason": "; ".join(reasons)}
    )
    if data is not None:
        store.add_data(run, data)
    add_sheets(store, run, training.sheets, config["step"], end or start)
    if results is not None and not reason:
        from fmbench.stages.shared.mlflow_models import add_model  # here, since it imports torch

        add_model(store, run, results, (spec["dataset"], spec["method"]["name"], spec["seed"]), measured, data)
    store.end(run, bool(reason), end)
    return Seed(run, config, rows[0]["commit"], (start, end), [*losses, *measured], training.sheets)


def times(rows: list[dict[str, Any]]) -> tuple[int | None, int | None]:
    """When a training began and ended, in ms since 1970; None where the records do not say."""
    found = {row["metric"]: milliseconds(row["value"]) for row in rows if row["stage"] == "train" and row["metric"] in TIMES}
    return found.get("began"), found.get("ended")


def _evaluation(records: list[dict[str, Any]], step: int, time: int) -> list[Point]:
    """The results of a model as MLflow points.

    The sweep gives a curve over NFE for each solver, and the learning curve one over iterations; the rest is one number at the
    end.
    """
    points = []
    for row in records:
        if row["status"] != OK or row["metric"] in ("seconds", *TIMES):
            continue
        name, at = f"{row['stage']}/{row['metric']}", step
        if row["metric"] in ("mse", "mse_stderr"):
            name, at = f"sweep/{row['metric']}/{row['solver']}", int(row["nfe"])
        elif row["stage"] == "learning_curve":
            at = row["step"]
        points.append(Point(name, row["value"], int(at), time))
    return points
