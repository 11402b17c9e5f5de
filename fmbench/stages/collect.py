"""Stage ``collect``: gather the rows of all jobs of the config into ``records.parquet``.

The stage also writes ``benchmark.json`` (the description of the results), ``models.parquet`` and ``loss_curves.parquet`` (the
config and the loss of each model). With these files results can be shared, and MLflow rebuilt, without the models.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa

from fmbench.config.hashing import canonical
from fmbench.config.specs import model_folder
from fmbench.config.stages import MODEL_STAGES, Model
from fmbench.data.prepared import read
from fmbench.store.benchmark import FILE, describe
from fmbench.store.documents import read_document, write_document
from fmbench.store.flatten import flatten
from fmbench.store.parquet import read_table, table, write_table
from fmbench.store.previews import preview_count, previews, read_previews
from fmbench.store.records import read_rows
from fmbench.store.shapes import Manifest, ModelConfig
from fmbench.store.tables import CURVE, CURVES, MODELS, OWNER, SETTINGS
from fmbench.system.progress import Console


def run(spec: dict[str, Any], results: Path, console: Console, config: dict[str, Any] | None = None) -> None:
    """Write the gathered files of a config into the results folder.

    These are ``records.parquet`` (every row), ``previews.parquet`` (the first samples of every model and of the data),
    ``settings.parquet`` (the settings of every model), ``models.parquet`` and ``loss_curves.parquet``.

    Args:
        spec: the data sets, methods and seeds, which name the files to read.
        results: the results folder.
        config: the whole config (:func:`fmbench.config.written_out.written_out`) for ``benchmark.json``, which is not written
            without it.

    Raises:
        DataError: a file is missing or damaged.
    """
    models = [(d, m, s) for d in spec["datasets"] for m in spec["methods"] for s in spec["seeds"]]
    files = [results / "features" / d / "rows.parquet" for d in spec["datasets"]]
    upsampled = spec.get("super_resolved", [])
    files += [results / "baselines" / d / "rows.parquet" for d in upsampled]
    files += [results / model_folder("models", *model) / "rows.parquet" for model in models]
    for name, stage in MODEL_STAGES.items():
        if stage.collected:
            files += [results / model_folder(name, *m) / "rows.parquet" for m in models if stage.works_on(m, spec)]
    records = read_rows(files)
    write_table(results / "records.parquet", records)

    shown = [read_previews(results / "baselines" / d / "previews.parquet") for d in upsampled]
    shown += [read_previews(results / model_folder("sample", *model) / "preview.parquet") for model in models]
    shown += [_data_preview(results / "data" / d) for d in spec["datasets"]]
    write_table(results / "previews.parquet", pa.concat_tables(shown))
    write_table(results / "settings.parquet", used_settings(results, models))
    write_models(results, models)

    # The description comes last, when everything it describes is there.
    if config is not None:
        manifests = {d: _manifest(results, d) for d in spec["datasets"]}
        write_document(results / FILE, describe(config, records.to_pylist(), manifests, gathered=spec["gathered"]))
    console.say(f"{records.num_rows} rows from {len(files)} files -> {results / 'records.parquet'}")


def used_settings(results: Path, models: list[Model]) -> pa.Table:
    """The settings in the ``config.json`` of each model (data set, method, seed), with the number of samples in each data split.

    Raises:
        DataError: a model's ``config.json`` or a data manifest is missing.
    """
    splits = {}
    for dataset in {d for d, _, _ in models}:
        manifest = _manifest(results, dataset)
        splits[dataset] = {f"data.{name}": entry["n"] for name, entry in manifest["splits"].items()}
    rows: list[dict[str, Any]] = []
    for dataset, method, seed in models:
        config = _config(results, (dataset, method, seed))
        flat = flatten(config.pop("spec")) | flatten(config) | splits[dataset]
        entries = [(dataset, method, seed, key, canonical(flat[key])) for key in sorted(flat)]
        rows += [dict(zip(SETTINGS.names, entry, strict=True)) for entry in entries]
    return table(rows, SETTINGS)


def write_models(results: Path, models: list[Model]) -> None:
    """Write ``models.parquet`` and ``loss_curves.parquet`` from the folders of the models (data set, method, seed)."""
    configs = [(model, _config(results, model)) for model in models]
    lines = [dict(zip(MODELS.names, (*model, canonical(values)), strict=True)) for model, values in configs]
    write_table(results / "models.parquet", table(lines, MODELS))
    write_table(results / "loss_curves.parquet", pa.concat_tables([CURVES.empty_table(), *(_curve(results, m) for m in models)]))


def _curve(results: Path, model: Model) -> pa.Table:
    curve = read_table(results / model_folder("models", *model) / "loss_curve.parquet", CURVE)
    owner = [pa.array([value] * curve.num_rows, field.type) for value, field in zip(model, OWNER, strict=True)]
    return pa.table([*owner, *curve.columns], CURVES)


def _config(results: Path, model: Model) -> dict[str, Any]:
    return read_document(results / model_folder("models", *model) / "config.json", ModelConfig)


def _manifest(results: Path, dataset: str) -> dict[str, Any]:
    return read_document(results / "data" / dataset / "manifest.json", Manifest)


def _data_preview(folder: Path) -> pa.Table:
    dataset = read(folder)
    shown = dataset.test[: preview_count(dataset.shape)]
    return previews(dataset.manifest["dataset"], "data", None, shown, range(len(shown)))
