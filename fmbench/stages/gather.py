"""Stage ``gather``: one file of the results folder from one file of each model."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from fmbench.config.names import GATHERED
from fmbench.store.parquet import read_table, write_table
from fmbench.store.previews import FEW_STEP_PREVIEWS, NFE, TRAJECTORY, read_previews
from fmbench.store.records import read_rows
from fmbench.system.progress import Console

SCHEMAS = {"nfe": NFE, "few_step_previews": FEW_STEP_PREVIEWS, "trajectory": TRAJECTORY}
"""The schemas of the kinds that are not records."""


def run(spec: dict[str, Any], results: Path, console: Console) -> None:
    """Write ``results/{kind}.parquet``.

    Args:
        spec: the kind, one of :data:`~fmbench.config.names.GATHERED`; the files below the results folder; and the source hash.
        results: the results folder.

    Raises:
        DataError: a file is missing or damaged, or has other columns.
    """
    kind, files = spec["kind"], [results / file for file in spec["files"]]
    out = results / f"{kind}.parquet"
    if GATHERED[kind][1] == "rows.parquet":
        gathered = read_rows(files)
    else:
        schema = SCHEMAS[kind]
        read = read_table if schema is NFE else read_previews
        gathered = pa.concat_tables([read(file, schema) for file in files]) if files else schema.empty_table()
    write_table(out, gathered, spec["of"])
    console.say(f"{gathered.num_rows} rows from {len(files)} files -> {out}")
