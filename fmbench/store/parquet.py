"""Parquet files: written whole or not at all, with a hash of what they were made from."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from fmbench.errors import DataError
from fmbench.store.files import atomic

SOURCE_HASH = b"fmbench.source_hash"
"""The key of a file's metadata that holds the hash of what the file was made from."""


def table(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Make a table from plain dicts.

    The rows go through JSON. Every other way from Python values to pyarrow imports pandas, which costs each job half a second.
    """
    if not rows:
        return schema.empty_table()
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    options = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    return pyarrow.json.read_json(io.BytesIO(lines), pyarrow.json.ReadOptions(block_size=max(len(lines), 1)), options)


def write_table(path: Path, table: pa.Table, source_hash: str | None = None) -> None:
    """Write a table to a parquet file, atomically.

    Args:
        source_hash: the hash of what the table was made from, which :func:`read_source_hash` gives back.
    """
    if source_hash is not None:
        table = table.replace_schema_metadata({SOURCE_HASH: source_hash})
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_source_hash(path: Path) -> str | None:
    """The hash of what a parquet file was made from; None if the file has no such hash or cannot be read."""
    try:
        found = (pq.read_schema(path).metadata or {}).get(SOURCE_HASH)
    except (OSError, ValueError):
        return None
    return None if found is None else found.decode()


def read_table(path: Path) -> pa.Table:
    """Read one parquet file.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise DataError(f"{path} is missing; run the stage that makes it first (snakemake does so by itself)") from None
    except (OSError, ValueError) as error:  # pyarrow raises either for a damaged file; ArrowInvalid is a ValueError
        raise DataError(f"{path} is not a readable parquet file ({error}); delete it and rerun its stage") from None
