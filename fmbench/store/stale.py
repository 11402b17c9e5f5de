"""Stale files of a results folder: files that another config made and that the present config did not replace.

Such files appear when the settings change and only part of the workflow runs again. The main job then writes new records, and
``learning_curve.parquet``, for example, still has the rows of the old settings.
"""

from pathlib import Path

from fmbench.config import specs
from fmbench.config.names import FIGURES
from fmbench.errors import DataError
from fmbench.store.benchmark import FILE, config_of, read_benchmark
from fmbench.store.parquet import read_source_hash
from fmbench.store.seal import check_seal

TABLE4_ROWS = "dequantisation.parquet"
"""The rows of Table 4."""
STALE = "stale: another config made it; run snakemake where the results were made"
"""The reason why a stale file is left out, to follow "<file> is"."""


def stale_files(results: Path) -> tuple[str, ...]:
    """The names that stale files of a results folder have: gathered rows, and the tables, claims and figures made from them.

    Gathered rows are stale if their source hash is not the one that ``benchmark.json`` expects. Table 4 and its rows are stale
    if the config has no data set or no method to dequantise. Some of the files named may not exist. Rows without a source hash
    are not stale, and a folder has no stale files without ``benchmark.json``, or with one of a config that cannot be read.

    Raises:
        DataError: ``benchmark.json`` is damaged.
    """
    if not (results / FILE).exists():
        return ()
    expected = read_benchmark(results)["gathered"]
    try:
        table4 = specs.table4(config_of(results))
    except DataError:
        return ()
    has_table4 = bool(table4["datasets"] and table4["methods"])
    gathered = [
        name
        for name, source_hash in expected.items()
        if (has_table4 or name != TABLE4_ROWS) and _has_another_source(results / name, source_hash)
    ]
    rows = gathered if has_table4 else [*gathered, TABLE4_ROWS]
    # Without a Table 4 the claims were not tested on its rows.
    tables = [*(["claims"] if gathered else []), *(["table4"] if TABLE4_ROWS in rows else [])]
    figures = [name for name, needed in FIGURES.items() if set(needed) & set(rows) or name in tables]
    return (
        *rows,
        *(f"{name}.{kind}" for name in tables for kind in ("csv", "md", "tex")),
        *(f"{name}.{kind}" for name in figures for kind in ("png", "svg", "pdf", "parquet")),
    )


def _has_another_source(path: Path, expected: str) -> bool:
    """Whether a file was made from something else. A damaged file says nothing about that; whoever reads it finds the damage."""
    if read_source_hash(path) in (expected, None):
        return False
    try:
        check_seal(path)
    except ValueError:
        return False
    return True
