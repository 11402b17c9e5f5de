"""Parquet files: written whole or not at all, with a seal and a hash of what they were made from, and read by their schema."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet as pq

from fmbench.errors import DataError
from fmbench.store.documents import MAKE_AGAIN, MISSING
from fmbench.store.files import atomic
from fmbench.store.limits import read_parquet, read_schema
from fmbench.store.seal import UNSEALED, check_seal, seal

SOURCE_HASH = b"fmbench.source_hash"
"""The key of a file's metadata that holds the hash of what the file was made from."""
SEAL = b"fmbench.seal"
"""The key of a file's metadata that holds its seal."""


def column(name: str, kind: pa.DataType) -> pa.Field:
    """A column that has a value in every row."""
    return pa.field(name, kind, nullable=False)


def table(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Make a table from plain dicts.

    The rows go through JSON. Every other way from Python values to pyarrow imports pandas, which costs each job half a second.
    """
    if not rows:
        return schema.empty_table()
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    options = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    found = pyarrow.json.read_json(io.BytesIO(lines), pyarrow.json.ReadOptions(block_size=max(len(lines), 1)), options)
    return found.cast(schema)  # the reader forgets which columns have a value in every row


def write_table(path: Path, table: pa.Table, source_hash: str | None = None) -> None:
    """Write a table to a parquet file with a seal, atomically.

    Args:
        source_hash: the hash of what the table was made from, which :func:`read_source_hash` gives back.
    """
    metadata = {key: value for key, value in (table.schema.metadata or {}).items() if key not in (SOURCE_HASH, SEAL)}
    if source_hash is not None:
        metadata[SOURCE_HASH] = source_hash.encode()
    table = table.replace_schema_metadata(metadata or None)
    with atomic(path) as temporary:
        with pq.ParquetWriter(temporary, table.schema, compression="zstd", write_page_checksum=True) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata({SEAL.decode(): UNSEALED})
        seal(temporary)


def read_source_hash(path: Path) -> str | None:
    """The hash of what a parquet file was made from; None if it has no such hash or cannot be read. Its seal is not checked."""
    try:
        found = (read_schema(path).metadata or {}).get(SOURCE_HASH)
        return None if found is None else found.decode()
    except (DataError, OSError, ValueError):
        return None


def read_table(path: Path, schema: pa.Schema, most: int | None = None) -> pa.Table:
    """Read one parquet file that fmbench wrote. The result has the columns of ``schema``, in that order.

    Args:
        schema: the columns that the file must have, their types, and where no null may be.
        most: the largest number of rows; None for as many as a table may have.

    Raises:
        DataError: the file is missing, is damaged, is too large, has no seal, or has other columns.
    """
    try:
        check_seal(path)
        found = read_parquet(path, most)
    except FileNotFoundError:
        raise DataError(f"{path} is missing; {MISSING}") from None
    except (OSError, ValueError, MemoryError) as error:  # pyarrow raises the first two for a damaged file
        raise DataError(f"{path} cannot be used: {error}; {MAKE_AGAIN}") from None
    if difference := _difference(found, schema):
        raise DataError(f"{path} is not a file of this version of fmbench ({difference}); {MAKE_AGAIN}")
    return found.select(schema.names).cast(schema)


def _difference(found: pa.Table, schema: pa.Schema) -> str:
    """What differs between a table and the schema that it must have, in words; empty if nothing does."""
    names = found.schema.names
    if len(set(names)) != len(names):
        return f"it has a column twice: {', '.join(names)}"
    if missing := [name for name in schema.names if name not in names]:
        return f"it lacks the columns {', '.join(missing)}"
    if extra := [name for name in names if name not in schema.names]:
        return f"it has the unknown columns {', '.join(extra)}"
    for field in schema:
        column = found[field.name]
        if column.type != field.type:
            return f"the column {field.name} holds {column.type}, not {field.type}"
        if not field.nullable and column.null_count:
            return f"the column {field.name} lacks {column.null_count} values"
        if pa.types.is_list(field.type) and pc.list_flatten(column).null_count:
            return f"the lists in the column {field.name} lack values"
    return ""
