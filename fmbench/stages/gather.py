"""Stage ``gather``: one file of each model gathered into one file of the results folder."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from fmbench.config.names import GATHERED
from fmbench.errors import DataError
from fmbench.store.records import FEW_STEP_PREVIEWS, NFE, TRAJECTORY, read_rows, read_table, write_table
from fmbench.system.progress import Console

SCHEMAS = {"nfe": NFE, "few_step_previews": FEW_STEP_PREVIEWS, "trajectory": TRAJECTORY}
"""Kinds that are no records."""


def run(spec: dict[str, Any], results: Path, console: Console) -> None:
    """Write ``results/{kind}.parquet``.

    Args:
        spec: the kind, one of :data:`~fmbench.config.names.GATHERED`, the files below the results folder, and
            what they are of.

    Raises:
        DataError: a file is missing, truncated, or has other columns.
    """
    kind, files = spec["kind"], [results / file for file in spec["files"]]
    out = results / f"{kind}.parquet"
    if GATHERED[kind][1] == "rows.parquet":
        gathered = read_rows(files)
    else:
        schema = SCHEMAS[kind]
        gathered = pa.concat_tables([_read(file, schema) for file in files]) if files else schema.empty_table()
    write_table(out, gathered, spec["of"])
    console.say(f"{gathered.num_rows} rows from {len(files)} files -> {out}")


def _read(file: Path, schema: pa.Schema) -> pa.Table:
    try:
        return read_table(file).cast(schema)
    except ValueError as error:  # ArrowInvalid is one
        raise DataError(f"{file} was written by another version of fmbench ({error}); rerun its stage") from None
