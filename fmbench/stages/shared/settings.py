"""``settings.parquet``: the settings of every model in one tidy table."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from fmbench.config.hashing import canonical
from fmbench.config.specs import model_folder
from fmbench.store.files import read_json
from fmbench.store.flatten import flatten
from fmbench.store.parquet import table

SETTINGS = pa.schema(
    [("dataset", pa.string()), ("method", pa.string()), ("seed", pa.int64()), ("key", pa.string()), ("value", pa.string())]
)
"""One setting of one model: ``key`` such as ``training.learning_rate``, ``value`` as JSON."""


def used_settings(results: Path, models: list[tuple[str, str, int]]) -> pa.Table:
    """The settings in the ``config.json`` of each model (data set, method, seed), with the number of samples in each data split.

    Raises:
        DataError: a model's ``config.json`` or a data manifest is missing.
    """
    splits = {}
    for dataset in {d for d, _, _ in models}:
        manifest = read_json(results / "data" / dataset / "manifest.json")
        splits[dataset] = {f"data.{name}": entry["n"] for name, entry in manifest["splits"].items()}
    rows: list[dict[str, Any]] = []
    for dataset, method, seed in models:
        config = read_json(results / model_folder("models", dataset, method, seed) / "config.json")
        flat = flatten(config.pop("spec")) | flatten(config) | splits[dataset]
        model = {"dataset": dataset, "method": method, "seed": seed}
        rows += [model | {"key": key, "value": canonical(flat[key])} for key in sorted(flat)]
    return table(rows, SETTINGS)
