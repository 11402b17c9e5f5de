"""What a training costs: passes of the network and seconds, with the training of its teacher and the pairs that this one made."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fmbench.config.method_settings import method_from_values
from fmbench.config.methods import Method
from fmbench.report.frames import MODEL, records_frame
from fmbench.store.documents import check_shape, parse_json
from fmbench.store.shapes import ModelConfig
from fmbench.store.tables import read_member

COSTS = ("passes", "seconds")
COLUMNS = [*MODEL, "end", *COSTS, "before_passes", "before_seconds"]


def training_costs(results: Path) -> pd.DataFrame:
    """Return a row for each trained model, with what its own training took and what had to be done before it.

    ``passes`` are forward passes of the network, one for a sample; a backward pass counts as two (:attr:`Method.passes`). ``end``
    is the iteration that the training ended at, also one that diverged. ``before_passes`` and ``before_seconds`` are 0 without a
    teacher. They are NaN if the rows of the teacher or of its pairs are missing.

    Raises:
        DataError: a file is missing or damaged.
    """
    records, models = records_frame(results / "records.parquet"), read_member(results, "models.parquet").to_pandas()
    names = {"images_seen", "train_seconds", "pair_evaluations", "pair_seconds"}
    rows = records[records.metric.isin(names)].drop_duplicates([*MODEL, "metric"])
    ends = rows[rows.metric == "images_seen"].set_index(MODEL).step.to_dict()
    found = rows.pivot(index=MODEL, columns="metric", values="value").reindex(columns=sorted(names)).to_dict("index")
    methods = {(m.dataset, m.method, m.seed): method_of(m.config) for m in models.itertuples()}

    def own(model: Any) -> np.ndarray:
        values = found.get(model, {})
        return np.array([values.get("images_seen", np.nan) * methods[model].passes, values.get("train_seconds", np.nan)])

    def before(model: Any) -> np.ndarray:
        teacher = methods[model].teacher
        if teacher is None:
            return np.zeros(2)
        values, above = found.get(model, {}), (model[0], teacher.name, model[2])
        pairs = np.array([values.get("pair_evaluations", np.nan), values.get("pair_seconds", np.nan)])
        if above not in methods:
            return np.full(2, np.nan)
        return pairs + (0 if methods[above].oracle is not None else own(above) + before(above))

    trained = [model for model, method in methods.items() if method.oracle is None]
    return pd.DataFrame([[*m, ends.get(m, np.nan), *own(m), *before(m)] for m in trained], columns=COLUMNS)


def method_of(config: str) -> Method:
    """Return the method of a model, from its config in ``models.parquet``."""
    values = parse_json(config, "the config of a model")
    check_shape(values, ModelConfig, "the config of a model")
    return method_from_values(values["spec"]["method"])
