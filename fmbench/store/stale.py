"""Stale files of a results folder: files that another config made and that the present config did not replace.

Such files appear when the settings change and only part of the workflow runs again. The main job then writes new records, and
``learning_curve.parquet``, for example, still has the rows of the old settings.
"""

from pathlib import Path

from fmbench.config import specs
from fmbench.config.names import FIGURES
from fmbench.errors import DataError
from fmbench.store.benchmark import config_of, read_benchmark
from fmbench.store.parquet import read_source_hash

TABLE4_ROWS = "dequantisation.parquet"
"""The rows of Table 4."""
STALE = "stale: another config made it; run snakemake where the results were made"
"""The reason why a stale file is left out, to follow "<file> is"."""


def stale_files(results: Path) -> tuple[str, ...]:
    """The names that stale files of a results folder have: gathered rows, and the tables, claims and figures made from them.

    Gathered rows are stale if their source hash is not the one that ``benchmark.json`` expects. Table 4 and its rows are stale
    if the config has no data set or no method to dequantise. Some of the files named may not exist. Rows without a source hash
    are not stale, and a folder without a readable ``benchmark.json`` has no stale files.
    """
    try:
        table4, expected = specs.table4(config_of(results)), read_benchmark(results)["gathered"]
    except DataError:
        return ()
    has_table4 = bool(table4["datasets"] and table4["methods"])
    gathered = [
        name
        for name, source_hash in expected.items()
        if read_source_hash(results / name) not in (source_hash, None) and (has_table4 or name != TABLE4_ROWS)
    ]
    rows = gathered if has_table4 else [*gathered, TABLE4_ROWS]
    # Without a Table 4 the claims were not tested on its rows.
    tables = [*(["claims"] if gathered else []), *(["table4"] if TABLE4_ROWS in rows else [])]
    figures = [name for name, needed in FIGURES.items() if set(needed) & set(rows)]
    return (
        *rows,
        *(f"{name}.{kind}" for name in tables for kind in ("csv", "md", "tex")),
        *(f"{name}.{kind}" for name in figures for kind in ("png", "svg", "pdf", "parquet")),
    )
