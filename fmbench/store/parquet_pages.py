"""What a parquet file unpacks to, counted from the headers of its pages before anything is decoded.

The footer of a parquet file says how large its columns are, but nothing holds a reader to it: a page has a header of its own, and
a reader allocates what this header says. One page of a kilobyte can stand for two thousand million values. This module therefore
reads the footer and every page header itself (Thrift's compact protocol) and never a page's content.

Source: https://parquet.apache.org/docs/file-format/metadata/, `parquet.thrift` of the format, and Thrift's
"compact protocol" specification.
"""

import os
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

MARK = b"PAR1"
FOOTER = 1 << 20
"""The largest footer in bytes. That of a table with 27 columns and 5,000,000 rows has about 30,000."""
WINDOW = 1 << 16
"""The largest header of a page in bytes. A header may hold the smallest and the largest text of its page."""
DEPTH = 16
"""The largest depth of structures inside structures. That of a footer is 6."""
COLUMNS = 1000
"""The largest number of columns. The records have 27."""
WIDTHS = {0: 1, 1: 4, 2: 8, 4: 4, 5: 8, 6: 0}
"""Bytes of one value by physical type: boolean, int32, int64, float, double. A text (byte array) counts by its own length."""
TEXT = 6
ENCODINGS = {0, 2, 3, 8}
"""PLAIN, PLAIN_DICTIONARY, RLE and RLE_DICTIONARY. Others (DELTA_BYTE_ARRAY) expand without bound."""
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3


class Unpacked(NamedTuple):
    """What a file unpacks to.

    Attributes:
        cells: the number of values, over all columns and row groups; an element of a list is no cell.
        bytes: the decoded size of all numbers, and the uncompressed size of all pages of text.
        texts: the names of the columns of text.
    """

    cells: int
    bytes: int
    texts: tuple[str, ...]


def unpacked(stream: BinaryIO) -> Unpacked:
    """Count what the parquet file in ``stream`` unpacks to.

    Raises:
        ValueError: the file is damaged, or has a shape that fmbench does not write (columns in columns, other encodings).
    """
    footer = _footer(stream)
    columns = _columns(footer.get(2))
    cells = size = 0
    pages: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for group in _structures(footer.get(4, [])):
        chunks = _structures(group.get(1, []))
        if len(chunks) != len(columns):
            raise ValueError("a row group has another number of columns than the schema")
        for chunk, column in zip(chunks, columns, strict=True):
            if chunk.get(1):
                raise ValueError("a column is in another file")
            place = _place(chunk.get(3))
            if place not in pages:
                pages[place] = list(_pages(stream, *place))
            values, raw = (sum(page[i] for page in pages[place]) for i in (0, 1))
            cells += 0 if column.is_list else values
            size += raw if column.kind == TEXT else max(raw, values * WIDTHS[column.kind])
    return Unpacked(cells, size, tuple(c.name for c in columns if c.kind == TEXT))


class _Column(NamedTuple):
    name: str
    kind: int
    is_list: bool


def _footer(stream: BinaryIO) -> dict[int, Any]:
    end = stream.seek(0, os.SEEK_END)
    if end < 12:
        raise ValueError("it is shorter than the shortest parquet file")
    stream.seek(end - 8)
    length, mark = struct.unpack("<I4s", stream.read(8))
    if mark != MARK:
        raise ValueError("it does not end like a parquet file")
    if length > min(FOOTER, end - 12):
        raise ValueError(f"its footer has {length} bytes; at most {min(FOOTER, end - 12)} can be read")
    stream.seek(end - 8 - length)
    return _Compact(stream.read(length)).structure()


def _columns(schema: Any) -> list[_Column]:
    """The columns of a flat table; a column may be a list of numbers."""
    elements = _structures(schema)
    if not elements or not 0 < _whole(elements[0].get(5, 0)) <= COLUMNS:
        raise ValueError(f"it has no columns, or more than {COLUMNS}")
    found, at = [], 1
    for _ in range(_whole(elements[0].get(5))):
        name = _name(elements, at)
        is_list = bool(elements[at].get(5))
        if is_list:  # a group LIST, in it a repeated group, in it the element
            if [e.get(5, 0) for e in elements[at : at + 3]] != [1, 1, 0]:
                raise ValueError(f"the column {name!r} holds columns in columns")
            at += 2
        kind = elements[at].get(1)
        if kind not in WIDTHS or (is_list and kind == TEXT):
            raise ValueError(f"the column {name!r} has a type that fmbench does not write")
        found.append(_Column(name, kind, is_list))
        at += 1
    if at != len(elements):
        raise ValueError("its schema does not fit its columns")
    return found


def _name(elements: list[dict[int, Any]], at: int) -> str:
    if at >= len(elements) or not isinstance(elements[at].get(4), bytes):
        raise ValueError("its schema is cut short")
    return str(elements[at][4].decode("utf-8", "backslashreplace"))


def _place(metadata: Any) -> tuple[int, int]:
    """Start and end of a column chunk in the file, as pyarrow finds them. It reads no page of a chunk without values."""
    if not isinstance(metadata, dict):
        raise ValueError("a column has no metadata")
    if _whole(metadata.get(5)) == 0:
        return 0, 0
    start, dictionary = _whole(metadata.get(9)), metadata.get(11)
    if dictionary is not None and 0 < _whole(dictionary) < start:
        start = dictionary
    return start, start + _whole(metadata.get(7))


def _pages(stream: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The number of values and the uncompressed bytes of every page between two places of a file."""
    if end > stream.seek(0, os.SEEK_END):
        raise ValueError("a column ends behind the end of the file")
    while start < end:
        stream.seek(start)
        reader = _Compact(stream.read(WINDOW))
        header = reader.structure()
        values, kind = 0, header.get(1)
        if kind in (_DATA, _DATA_V2, _DICTIONARY):
            described = header.get({_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}[kind])
            if not isinstance(described, dict) or described.get(4 if kind == _DATA_V2 else 2) not in ENCODINGS:
                raise ValueError("a page has an encoding that fmbench does not write")
            values = 0 if kind == _DICTIONARY else _whole(described.get(1))
        yield values, _whole(header.get(2))
        start += reader.at + _whole(header.get(3))


def _structures(values: Any) -> list[dict[int, Any]]:
    if not isinstance(values, list) or not all(isinstance(v, dict) for v in values):
        raise ValueError("its footer is damaged")
    return values


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("a size in it is missing or negative")
    return value


class _Compact:
    """A reader of Thrift's compact protocol; a structure becomes a dict from the numbers of its fields to their values.

    Attributes:
        at: the place of the next byte.
    """

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def structure(self, depth: int = 0) -> dict[int, Any]:
        if depth > DEPTH:
            raise ValueError("it holds structures in structures without end")
        found: dict[int, Any] = {}
        field = 0
        while (head := self._byte()) != 0:
            field = field + (head >> 4) if head >> 4 else self._zigzag()
            kind = head & 15
            found[field] = kind == 1 if kind in (1, 2) else self._value(kind, depth + 1)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):  # inside a list a boolean is a byte
            return self._byte() == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 7:
            return self._take(8)
        if kind == 8:
            return self._take(self._number())
        if kind in (9, 10):
            return self._list(depth)
        if kind == 12:
            return self.structure(depth)
        raise ValueError(f"its footer or a page header is damaged (type {kind})")

    def _list(self, depth: int) -> list[Any]:
        if depth > DEPTH:
            raise ValueError("it holds lists in lists without end")
        head = self._byte()
        length = head >> 4 if head >> 4 < 15 else self._number()
        if length > len(self.content) - self.at:  # an element has a byte or more
            raise ValueError("a list in it is longer than the file")
        return [self._value(head & 15, depth + 1) for _ in range(length)]

    def _byte(self) -> int:
        return self._take(1)[0]

    def _take(self, count: int) -> bytes:
        found = self.content[self.at : self.at + count]
        if len(found) < count:
            raise ValueError("its footer or a page header is cut short")
        self.at += count
        return found

    def _number(self) -> int:
        number = shift = 0
        while (byte := self._byte()) > 127:
            number |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number in it has more than 64 bits")
        return number | byte << shift

    def _zigzag(self) -> int:
        number = self._number()
        return number >> 1 ^ -(number & 1)
