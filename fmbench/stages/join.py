"""Stage ``join``: one file of each model joined into one file of the results folder."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from fmbench.errors import DataError
from fmbench.names import JOINED
from fmbench.progress import Console
from fmbench.records import BUDGET_PREVIEWS, NFE, STATES, read_rows, read_table, write_table

SCHEMAS = {"nfe": NFE, "budget_previews": BUDGET_PREVIEWS, "states": STATES}
"""Kinds that are no records."""


def run(spec: dict[str, Any], results: Path, console: Console) -> None:
    """Write ``results/{kind}.parquet``.

    Args:
        spec: the kind, one of :data:`~fmbench.names.JOINED`, the files to join, below the results folder, and what they are of.

    Raises:
        DataError: a file is missing, truncated, or has other columns.
    """
    kind, files = spec["kind"], [results / file for file in spec["files"]]
    out = results / f"{kind}.parquet"
    if JOINED[kind][1] == "rows.parquet":
        joined = read_rows(files)
    else:
        schema = SCHEMAS[kind]
        joined = pa.concat_tables([_read(file, schema) for file in files]) if files else schema.empty_table()
    write_table(out, joined, spec["of"])
    console.say(f"{joined.num_rows} rows from {len(files)} files -> {out}")


def _read(file: Path, schema: pa.Schema) -> pa.Table:
    try:
        return read_table(file).cast(schema)
    except ValueError as error:  # ArrowInvalid is one
        raise DataError(f"{file} was written by another version of fmbench ({error}); rerun its stage") from None
