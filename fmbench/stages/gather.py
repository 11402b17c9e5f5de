"""Stage ``gather``: one file of the results folder from one file of each model."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from fmbench.store.parquet import write_table
from fmbench.store.records import SCHEMA
from fmbench.store.tables import READERS
from fmbench.system.progress import Console


def run(spec: dict[str, Any], results: Path, console: Console) -> None:
    """Write ``results/{kind}.parquet``.

    Args:
        spec: the kind, one of :data:`~fmbench.config.stages.GATHERED`; the files below the results folder; and the source hash.
        results: the results folder.

    Raises:
        DataError: a file is missing or damaged, or has other columns.
    """
    kind, files = spec["kind"], [results / file for file in spec["files"]]
    out, read = results / f"{kind}.parquet", READERS[f"{kind}.parquet"]
    # Only learning curves may have no files: those of a run without trainings.
    gathered = pa.concat_tables(map(read, files)) if files else SCHEMA.empty_table()
    write_table(out, gathered, spec["of"])
    console.say(f"{gathered.num_rows} rows from {len(files)} files -> {out}")
