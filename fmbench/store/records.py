"""Records: every number anyone reads is a row of parquet with this one schema.

A row is one metric of one thing. ``value`` is null unless ``status`` is ``ok``; ``reason`` then says why.
"""

import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fmbench.errors import DataError
from fmbench.store.files import atomic

OK, DIVERGED, SKIPPED = "ok", "diverged", "skipped"
STATUSES = (OK, DIVERGED, SKIPPED)


@dataclass(frozen=True)
class Row:
    """One number and where it comes from.

    Attributes:
        stage: the stage that measured it.
        metric, value, unit: what was measured; the unit is part of the number.
        status, reason: ``ok``; ``diverged`` (numbers went bad); ``skipped`` (not measured, such as after a divergence).
        n: samples the value is over; ``batch``: samples that shared a step size or a pass.
        solver, nfe, rtol, atol: of the solve behind the value; ``nfe`` is what the counting field saw.
        step: training iteration, where the metric is along training.
        draws: dequantisation draws K behind a likelihood; ``probes``: Hutchinson probes averaged for each, 0 for an exact
            divergence.
        features, reference: extractor and reference of a distance between distributions.
        config_hash: hash of all settings the value depends on; ``code_hash``: of the code of its stage.
    """

    dataset: str
    method: str
    seed: int | None
    stage: str
    metric: str
    value: float | None
    unit: str
    status: str = OK
    reason: str = ""
    n: int | None = None
    batch: int | None = None
    solver: str = ""
    nfe: float | None = None
    rtol: float | None = None
    atol: float | None = None
    step: int | None = None
    draws: int | None = None
    probes: int | None = None
    features: str = ""
    reference: str = ""
    config_hash: str = ""
    code_hash: str = ""
    commit: str = ""
    versions: str = ""
    device: str = ""
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status must be one of {', '.join(STATUSES)}, not {self.status!r}")
        if self.status == OK and (self.value is None or not abs(self.value) < float("inf")):
            raise ValueError(f"a row with status ok needs a finite value, not {self.value} ({self.metric})")
        if self.status != OK and (self.value is not None or not self.reason):
            raise ValueError(f"a row with status {self.status} has a reason and no value ({self.metric})")


_TYPES: dict[Any, pa.DataType] = {int | None: pa.int64(), float | None: pa.float64(), str: pa.string()}
SCHEMA = pa.schema([(f.name, _TYPES[f.type]) for f in fields(Row)])

LATER = ("draws", "probes")
"""Columns that files of the first version do not have; there they are null."""


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows to a parquet file, atomically."""
    write_table(path, table([asdict(r) for r in rows], SCHEMA))


def table(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """A table from plain dicts.

    By way of JSON, since every other way from Python values into pyarrow imports pandas, half a second for each job.
    """
    if not rows:
        return schema.empty_table()
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    options = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    return pyarrow.json.read_json(io.BytesIO(lines), pyarrow.json.ReadOptions(block_size=max(len(lines), 1)), options)


OF = b"fmbench.of"


def write_table(path: Path, table: pa.Table, of: str | None = None) -> None:
    """Write any table to a parquet file, atomically; ``of`` is a hash of what it was made from (:func:`made_of`)."""
    if of is not None:
        table = table.replace_schema_metadata({OF: of})
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def made_of(path: Path) -> str | None:
    """What a parquet file says it was made from; None where it does not, or where there is none that can be read."""
    try:
        found = (pq.read_schema(path).metadata or {}).get(OF)
    except (OSError, ValueError):
        return None
    return None if found is None else found.decode()


def read_rows(paths: Sequence[Path]) -> pa.Table:
    """Read and join record files; columns that came later are null where a file does not have them.

    Raises:
        DataError: a file is missing, truncated, or of another schema.
    """
    tables = []
    for path in paths:
        table = read_table(path)
        # A file of an earlier version may lack a column that came later; what it did not know is null.
        for name in LATER:
            if name not in table.schema.names:
                table = table.append_column(SCHEMA.field(name), pa.nulls(table.num_rows, SCHEMA.field(name).type))
        if set(table.schema.names) != set(SCHEMA.names):
            raise DataError(f"{path} was written by another version of fmbench (columns {table.schema.names}); rerun its stage")
        table = table.select(SCHEMA.names)
        try:
            tables.append(table.cast(SCHEMA))
        except pa.ArrowException as error:
            raise DataError(f"{path} has a column of another type ({error}); rerun its stage") from None
    return pa.concat_tables(tables) if tables else SCHEMA.empty_table()


PREVIEW_POINTS, PREVIEW_IMAGES = 4000, 64
FEW_STEP_IMAGES, TRAJECTORY_IMAGES = 16, 32
PREVIEW = pa.schema(
    [
        ("dataset", pa.string()),
        ("method", pa.string()),
        ("seed", pa.int64()),
        ("index", pa.int64()),
        ("values", pa.list_(pa.float32())),
        ("shape", pa.list_(pa.int64())),
    ]
)
"""Samples kept for figures, in data space: ``values`` is one sample, flat. Method ``data`` (seed null) is the test split."""

FEW_STEP_PREVIEWS = PREVIEW.append(pa.field("solver", pa.string())).append(pa.field("nfe", pa.int64()))
"""Samples made with few evaluations; those of the adaptive solve have solver ``dopri5`` and NFE 0."""
TRAJECTORY = PREVIEW.append(pa.field("t", pa.float64()))
"""States on the way from noise (t = 0) to data (t = 1)."""
NFE = pa.schema(
    [("dataset", pa.string()), ("method", pa.string()), ("seed", pa.int64()), ("index", pa.int64()), ("nfe", pa.int64())]
)
"""What the adaptive solve of each sample cost; null where it failed."""


def previews(dataset: str, method: str, seed: int | None, samples: NDArray, indices: Iterable[int]) -> pa.Table:
    """Samples of shape (n, *) as a table of previews."""
    shape = list(samples.shape[1:])
    return table(
        [
            {"dataset": dataset, "method": method, "seed": seed, "index": int(i), "values": v, "shape": shape}
            for i, v in zip(indices, samples.reshape(len(samples), math.prod(shape)).tolist(), strict=True)
        ],
        PREVIEW,
    )


def read_table(path: Path) -> pa.Table:
    """Read one parquet file.

    Raises:
        DataError: it is missing or cannot be read.
    """
    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise DataError(f"{path} is missing; run the stage that makes it first (snakemake does so by itself)") from None
    except (OSError, ValueError) as error:  # a damaged file shows itself as either; ArrowInvalid is a ValueError
        raise DataError(f"{path} is not a readable parquet file ({error}); delete it and rerun its stage") from None
