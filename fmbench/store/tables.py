"""The parquet files of a results folder that are neither records nor samples: their columns; and the reader of every file."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa

from fmbench.store.limits import RECORDS
from fmbench.store.parquet import column, read_table
from fmbench.store.previews import FEW_STEP_PREVIEWS, NFE, PREVIEW, TRAJECTORY, read_previews
from fmbench.store.records import read_rows

TEXT, WHOLE, NUMBER = pa.string(), pa.int64(), pa.float64()


def _columns(kind: pa.DataType, *names: str) -> list[pa.Field]:
    return [column(name, kind) for name in names]


OWNER = [*_columns(TEXT, "dataset", "method"), column("seed", WHOLE)]
"""The columns that name a model."""
CURVE = pa.schema([column("step", WHOLE), *_columns(NUMBER, "loss", "learning_rate")])
"""The loss of one training: ``loss_curve.parquet`` of a model."""
CURVES = pa.schema([*OWNER, *CURVE])
MODELS = pa.schema([*OWNER, column("config", TEXT)])
"""``config`` is a model's ``config.json`` as canonical JSON."""
SETTINGS = pa.schema([*OWNER, *_columns(TEXT, "key", "value")])
"""One setting of one model: ``key`` such as ``training.learning_rate``, ``value`` as JSON."""

THEORY = MappingProxyType(
    {
        "noise_levels": pa.schema(
            [column("method", TEXT), *_columns(NUMBER, "t", "log_snr", "weight", "density", "emphasis")],
        ),
        "fields": pa.schema([*_columns(TEXT, "figure", "panel"), *_columns(NUMBER, "t", "x", "y", "u", "v")]),
        "trajectories": pa.schema([column("path", TEXT), column("particle", WHOLE), *_columns(NUMBER, "t", "x", "y")]),
        "densities": pa.schema(
            [column("path", TEXT), column("particle", WHOLE), *_columns(NUMBER, "t", "x"), pa.field("density", NUMBER)],
        ),
        "samplers": pa.schema(
            [
                *_columns(TEXT, "path", "sampler", "kind"),
                *_columns(NUMBER, "nfe", "energy_distance", "floor"),
                column("n", WHOLE),
            ],
        ),
        "equivalence": pa.schema(
            [
                *_columns(TEXT, "check", "schedule", "prediction", "form"),
                *_columns(WHOLE, "order", "steps"),
                *_columns(NUMBER, "max_difference", "scale"),
                *_columns(TEXT, "expected", "found"),
            ],
        ),
        "identities": pa.schema(
            [*_columns(TEXT, "identity", "path"), *_columns(NUMBER, "t", "max_difference", "scale"), column("n", WHOLE)],
        ),
    }
)
"""The tables in ``theory/``, which :mod:`fmbench.stages.theory` writes."""


def _of_records(path: Path) -> pa.Table:
    return read_rows([path])


READERS: dict[str, Callable[[Path], pa.Table]] = {
    **{f"{name}.parquet": _of_records for name in ("records", "learning_curve", "few_step", "half_way", "dequantisation")},
    "previews.parquet": partial(read_previews, schema=PREVIEW),
    "few_step_previews.parquet": partial(read_previews, schema=FEW_STEP_PREVIEWS),
    "trajectory.parquet": partial(read_previews, schema=TRAJECTORY),
    "nfe.parquet": partial(read_table, schema=NFE),
    "settings.parquet": partial(read_table, schema=SETTINGS, most=RECORDS),
    "models.parquet": partial(read_table, schema=MODELS, most=RECORDS),
    "loss_curves.parquet": partial(read_table, schema=CURVES),
    **{f"theory/{name}.parquet": partial(read_table, schema=schema, most=RECORDS) for name, schema in THEORY.items()},
}
"""How each parquet file of a results folder is read, by its name below the folder."""


def read_member(results: Path, name: str) -> pa.Table:
    """Read a parquet file of a results folder by its name in :data:`READERS`.

    Raises:
        DataError: the file is missing, is damaged, or does not hold what its name says.
    """
    return READERS[name](results / name)
