"""How large the files of a result set may be, checked before they are decoded.

A result set may come from anyone, and a small file can unpack to all of a machine's memory. Each limit is several times what a
benchmark of ten methods, ten seeds and 50,000 samples needs.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fmbench.errors import DataError
from fmbench.store.parquet_pages import FOOTER, unpacked

DOCUMENT = 4 << 20
"""The largest JSON document in bytes. That of the default run has 13,000. Decoded, JSON takes up to 30 times more."""
CELLS = 32_000_000
"""The largest number of cells of a table. The NFE of 50,000 samples of each of 10 x 10 models is 25,000,000 cells."""
DECODED, DECODED_PER_BYTE = 256 << 20, 8
"""The largest decoded size of a table in bytes, and how much larger it may be for each byte of the file.

Numbers that repeat take little space in a file, so a small file may unpack to 256 MiB. Pictures and points hardly compress, so
only a large file may unpack to more.
"""
LIST = 128
"""Bytes that a list in a cell takes beside its elements, once it is an array of its own."""
RECORDS = 500_000
"""The largest number of rows of a file of records, of settings and of theory.

A model has about 100 to 300 records, so 10 x 10 models on 10 data sets have up to 300,000.
"""
MEMBERS = 1000
"""The largest number of files in an archive. A result set has about 40, and one more for each data set."""
ARCHIVE, ARCHIVE_SMALL, ARCHIVE_RATIO = 8 << 30, 64 << 20, 100
"""The largest number of bytes that an archive may unpack to; a small one may unpack to 64 MiB and 100 times its size.

Parquet files are compressed, so an archive of results unpacks to about its own size.
"""
TEXT = 1 << 20
"""The largest text of a cell in bytes. The longest of a run is the settings of a model, about 10,000."""
BATCH = 1 << 16
"""Rows that are decoded at once; after each batch the decoded size is known."""


def archive_limit(archive: Path) -> int:
    """The number of bytes that an archive may unpack to."""
    return min(ARCHIVE, ARCHIVE_SMALL + ARCHIVE_RATIO * archive.stat().st_size)


def check_regular(path: Path) -> os.stat_result:
    """Check that ``path`` is a regular file, such as a pipe or a device is not, and return its status.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it is something else.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path} is not a regular file; remove it and get the results again")
    return status


def parse_document(content: bytes) -> Any:
    """The value of a JSON document.

    Raises:
        ValueError: it is not JSON in UTF-8, holds NaN or Infinity, is nested too deeply, or holds text that is not Unicode.
    """

    def refuse(name: str) -> None:
        raise ValueError(f"it holds {name}, which is not JSON")

    try:
        value = json.loads(content.decode("utf-8"), parse_constant=refuse)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it holds lists or objects in one another without end") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair, which is no character") from None
    return value


def read_parquet(path: Path, most: int | None = None) -> pa.Table:
    """Read a parquet file whose decoded size is within the limits; columns of text are plain, not dictionaries.

    Args:
        most: the largest number of rows, if it is less than the cells allow.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it is too large, or not a regular file.
        ValueError, OSError: it is damaged, or has a shape that fmbench does not write.
    """
    allowed = DECODED + DECODED_PER_BYTE * check_regular(path).st_size
    with open(path, "rb") as stream:
        found = unpacked(stream)
    _check(path, "cells", found.cells, CELLS)
    _check(path, "bytes", found.bytes, allowed)
    # A dictionary of texts is decoded once, however many cells refer to it. So the size is known before it is used.
    options = {"thrift_string_size_limit": FOOTER, "thrift_container_size_limit": FOOTER, "read_dictionary": list(found.texts)}
    with pq.ParquetFile(path, **options) as file:
        batches, size, rows = [], 0, 0
        for batch in file.iter_batches(BATCH):
            size, rows = size + sum(map(_decoded, batch.columns)), rows + batch.num_rows
            _check(path, "rows", rows, CELLS if most is None else most)
            _check(path, "bytes", size, allowed)
            _check(path, "bytes of text in one cell", max(map(_longest, batch.columns), default=0), TEXT)
            batches.append(batch)
        table = pa.Table.from_batches(batches, file.schema_arrow)
    plain = [_plain(column) for column in table.columns]
    schema = pa.schema([f.with_type(c.type) for f, c in zip(table.schema, plain, strict=True)], table.schema.metadata)
    table = pa.table(plain, schema=schema)
    table.validate(full=True)  # text that is not UTF-8, for example
    return table


def read_schema(path: Path) -> pa.Schema:
    """The columns and the metadata of a parquet file, without its rows; errors are those of :func:`read_parquet`."""
    check_regular(path)
    with open(path, "rb") as stream:
        unpacked(stream)
    return pq.read_schema(path)


def _check(path: Path, what: str, found: int, allowed: int) -> None:
    if found > allowed:
        raise DataError(
            f"{path} holds more than {allowed:,} {what} once it is decoded ({found:,} so far), more than fmbench reads; no run "
            "makes such a file, so get the results again from somebody you trust"
        )


def _decoded(column: pa.Array) -> int:
    """The bytes of a column of a batch, once its texts are plain."""
    if pa.types.is_dictionary(column.type):
        lengths = pc.binary_length(column.dictionary)
        return (pc.sum(lengths.take(column.indices)).as_py() or 0) + 4 * len(column)
    return column.nbytes + (LIST * len(column) if pa.types.is_list(column.type) else 0)


def _longest(column: pa.Array) -> int:
    """The bytes of the longest text of a column of a batch; 0 for other columns."""
    return pc.max(pc.binary_length(column.dictionary)).as_py() or 0 if pa.types.is_dictionary(column.type) else 0


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
