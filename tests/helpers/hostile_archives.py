"""Archives that a stranger could send to fill the memory, the disk or the time of whoever opens them.

:data:`ATTACKS` has them by name. Each takes the archive of a real result set, and writes a hostile one that is small on disk.
"""

import gzip
import hashlib
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fmbench.store.archive import INDEX

Members = dict[str, bytes]
ZEROS = 280 << 20
"""The size in bytes of what is too large: archives of some 20 kB may unpack to 66 MiB, tables to 256 MiB."""


def members_of(archive: Path) -> Members:
    """The members of a zip archive by name."""
    with zipfile.ZipFile(archive) as bundle:
        return {name: bundle.read(name) for name in bundle.namelist()}


def indexed(members: Members) -> Members:
    """The members with an index that fits them."""
    index = json.loads(members[INDEX])
    index["members"] = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in members.items()
        if name != INDEX
    }
    return {INDEX: json.dumps(index).encode()} | {name: c for name, c in members.items() if name != INDEX}


def zipped(members: Members, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as bundle:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr, entry.compress_type = 0o100644 << 16, method
            bundle.writestr(entry, content)
    return stream.getvalue()


def tarred(headers: list[tuple[tarfile.TarInfo, bytes]], tail: bytes = b"", fmt: int = tarfile.PAX_FORMAT) -> bytes:
    """A .tar.gz of the members with the given headers, and ``tail`` after its end."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=fmt) as tar:
        for info, content in headers:
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(stream.getvalue() + tail, 9)


def _headers(members: Members) -> list[tuple[tarfile.TarInfo, bytes]]:
    found = []
    for name, content in members.items():
        info = tarfile.TarInfo(name)
        info.size = len(content)
        found.append((info, content))
    return found


def _gzip_of_zeros(before: bytes, zeros: int) -> bytes:
    """A gzip file of ``before`` and then zeros: gzip files one after the other are one."""
    return gzip.compress(before) + gzip.compress(bytes(1 << 20)) * (zeros >> 20)


def _patched(content: bytes, changes: dict[tuple[bytes, int], bytes]) -> bytes:
    """A zip file in which bytes at a distance from every mark (of a local or central header) are replaced."""
    found = bytearray(content)
    for (mark, distance), value in changes.items():
        at = found.find(mark)
        while at >= 0:
            found[at + distance : at + distance + len(value)] = value
            at = found.find(mark, at + 4)
    return bytes(found)


# Parquet files that unpack to much more than their size


def parquet(table: pa.Table, **options: object) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, compression="zstd", store_schema=False, **options)
    return stream.getvalue()


def _same(value: str, rows: int) -> pa.Table:
    return pa.table({"reason": pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value]))})


def nested(depth: int) -> bytes:
    """A column of structures in structures."""
    kind: pa.DataType = pa.int64()
    value: object = 1
    for _ in range(depth):
        kind, value = pa.struct([("a", kind)]), {"a": value}
    return parquet(pa.table({"a": pa.array([value], kind)}))


def large_footer(rng: Random) -> bytes:
    """A file whose footer says that it has a gigabyte."""
    content = parquet(_same("x", rng.randrange(1, 9)))
    return content[:-8] + struct.pack("<I", 1 << 30) + b"PAR1"


def lying_pages(rng: Random) -> bytes:
    """A file in which the header of a page says that it has 100 times as many values; the footer keeps quiet."""
    rows = rng.randrange(1_100_000, 1_200_000)
    content = parquet(_same("x", rows), write_statistics=False, max_rows_per_page=1 << 21, row_group_size=1 << 21)
    length = struct.unpack("<I", content[-8:-4])[0] + 8
    body, footer = content[:-length], content[-length:]
    if _number(2 * rows) not in body:
        raise AssertionError("no header of a page has the number of rows")
    return body.replace(_number(2 * rows), _number(2 * 130_000_000)) + footer


def _number(value: int) -> bytes:
    """A number as Thrift's compact protocol writes it."""
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


BOMBS: dict[str, Callable[[Random], bytes]] = {
    "60 million equal rows": lambda rng: parquet(_same("x", 60_000_000)),
    "31 million equal rows of long text": lambda rng: parquet(_same("y" * rng.randrange(900, 1000), 31_000_000)),
    "one text of 280 MB": lambda rng: parquet(pa.table({"reason": ["z" * ZEROS]}), use_dictionary=False),
    "one list of 100 million numbers": lambda rng: parquet(
        pa.table({"values": pa.ListArray.from_arrays(pa.array([0, 10**8], pa.int32()), pa.array(np.zeros(10**8, np.float32)))})
    ),
    "30 million empty lists": lambda rng: parquet(
        pa.table({"values": pa.ListArray.from_arrays(pa.array(np.zeros(30_000_001, np.int32)), pa.array([], pa.float32()))})
    ),
    "texts with shared beginnings": lambda rng: parquet(
        pa.table({"reason": ["x" * 10_000] * 20_000}), use_dictionary=False, column_encoding="DELTA_BYTE_ARRAY"
    ),
    "20,000 row groups": lambda rng: parquet(pa.table({"a": np.arange(20_000)}), row_group_size=1),
    "20,000 columns": lambda rng: parquet(pa.table({f"a{i}": [i] for i in range(20_000)})),
    "columns in columns": lambda rng: nested(rng.randrange(20, 90)),
    "a footer of a gigabyte": large_footer,
    "a page that lies": lying_pages,
}
"""Parquet files by name, each made from a random generator."""


# Archives


def _zip_bomb(members: Members, rng: Random) -> bytes:
    return zipped(members | {"notes.md": bytes(ZEROS)})


def _large_index(members: Members, rng: Random) -> bytes:
    return zipped(members | {INDEX: b'{"members": [' + b"1, " * (20 << 20) + b"1]}"})


def _deep_document(members: Members, rng: Random) -> bytes:
    return zipped(indexed(members | {"data/board/manifest.json": b"[" * 100_000 + b"]" * 100_000}))


def _many_members(members: Members, rng: Random) -> bytes:
    return zipped(indexed(members | {f"{i}.csv": b"" for i in range(20_000)}))


def _shared_bytes(members: Members, rng: Random) -> bytes:
    """Two members whose local headers are one."""
    content = zipped({f"{i}.csv": b"x" * 4000 for i in range(30)} | members)
    return _patched(content, {(b"PK\1\2", 42): struct.pack("<I", 0)})


def _encrypted(members: Members, rng: Random) -> bytes:
    return _patched(zipped(members), {(b"PK\1\2", 8): b"\1\0"})


def _lying_size(members: Members, rng: Random) -> bytes:
    size = struct.pack("<I", rng.randrange(1 << 31, 0xFFFFFFF0))
    return _patched(zipped(members), {(b"PK\1\2", 24): size, (b"PK\3\4", 22): size})


def _zip64(members: Members, rng: Random) -> bytes:
    """A list of members of which only an end for large archives says how long it is."""
    content = zipped(members)
    end = content[-22:]
    _, _, _, count, _, size, place, _ = struct.unpack("<4s4H2LH", end)
    large = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, place)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(content) - 22, 1)
    short = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return content[:-22] + large + locator + short


def _tar_of_zeros(members: Members, rng: Random) -> bytes:
    info = tarfile.TarInfo("notes.md")
    info.size = ZEROS
    return _gzip_of_zeros(info.tobuf(tarfile.USTAR_FORMAT), ZEROS)


def _after_the_end(members: Members, rng: Random) -> bytes:
    """A whole archive, and then zeros without end; nobody reads them."""
    plain = gzip.decompress(tarred(_headers({n: c for n, c in members.items() if n != INDEX})))
    return _gzip_of_zeros(plain, ZEROS)


def _sparse(members: Members, rng: Random) -> bytes:
    info = tarfile.TarInfo("notes.md")
    name, offset, numbytes = "GNU.sparse.name", "GNU.sparse.map", "GNU.sparse.size"
    info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", name: "notes.md", offset: "0,1", numbytes: str(1 << 40)}
    return tarred([*_headers(members), (info, b"")])


def _header(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def _large_header(kind: bytes) -> Callable[[Members, Random], bytes]:
    return lambda members, rng: _gzip_of_zeros(_header(kind, ZEROS << rng.randrange(1, 9)), ZEROS)


def _many_headers(members: Members, rng: Random) -> bytes:
    record = b"30 comment=" + b"a" * 18 + b"\n"
    return gzip.compress((_header(b"x", len(record)) + record.ljust(512, b"\0")) * 5000)


def _digits(members: Members, rng: Random) -> bytes:
    """A header of digits, which takes Python a time that grows with the square of its length."""
    return gzip.compress(_header(b"x", 1 << 20) + b"1" * (1 << 20))


def _many_streams(members: Members, rng: Random) -> bytes:
    return gzip.compress(b"") * 50_000 + tarred(_headers(members))[:-100]


def _link(kind: bytes) -> Callable[[Members, Random], bytes]:
    def made(members: Members, rng: Random) -> bytes:
        info = tarfile.TarInfo("notes.md")
        info.type, info.linkname = kind, rng.choice(["/etc/passwd", "../../x", "records.parquet"])
        return tarred([*_headers(members), (info, b"")])

    return made


def _path_of_pax(members: Members, rng: Random) -> bytes:
    info = tarfile.TarInfo("notes.md")
    info.pax_headers = {"path": rng.choice(["../notes.md", "/tmp/notes.md", "a/../../notes.md"])}
    return tarred([*_headers(members), (info, b"")])


def _name(name: str) -> Callable[[Members, Random], bytes]:
    return lambda members, rng: tarred(_headers(indexed(members | {name: b"x"})))


def _zip_name(name: str) -> Callable[[Members, Random], bytes]:
    return lambda members, rng: zipped(indexed(members | {name: b"x"}))


def _bad_text(members: Members, rng: Random) -> bytes:
    """A name that says it is UTF-8 and is not."""
    content = zipped(members | {"n\u00f6tes.md": b"x"})
    return content.replace("n\u00f6tes.md".encode(), b"n\xff\xfetes.md")


def bomb(name: str) -> Callable[[Members, Random], bytes]:
    """An archive, whole and with the right hashes, in which a file of rows is a bomb."""

    def made(members: Members, rng: Random) -> bytes:
        target = rng.choice(["records.parquet", "previews.parquet", "settings.parquet"])
        return zipped(indexed(members | {target: BOMBS[name](rng)}))

    return made


ATTACKS: dict[str, tuple[str, Callable[[Members, Random], bytes]]] = {
    "a member of 280 MB": ("zip", _zip_bomb),
    "an index of 60 MB": ("zip", _large_index),
    "a document of brackets": ("zip", _deep_document),
    "20,000 members": ("zip", _many_members),
    "members that share bytes": ("zip", _shared_bytes),
    "an encrypted member": ("zip", _encrypted),
    "a size that is a lie": ("zip", _lying_size),
    "an end of zip64": ("zip", _zip64),
    "LZMA": ("zip", lambda members, rng: zipped(members, zipfile.ZIP_LZMA)),
    "BZIP2": ("zip", lambda members, rng: zipped(members, zipfile.ZIP_BZIP2)),
    "a name in another case": ("zip", _zip_name("Records.parquet")),
    "a name that is not text": ("zip", _bad_text),
    "a name that a disk forbids": ("zip", _zip_name("aux.csv")),
    "a name with a question mark": ("zip", _zip_name("what?.csv")),
    "a tar member of 280 MB": ("tar.gz", _tar_of_zeros),
    "zeros after the end": ("tar.gz", _after_the_end),
    "a sparse member": ("tar.gz", _sparse),
    "a header of pax of a gigabyte": ("tar.gz", _large_header(b"x")),
    "a global header of a gigabyte": ("tar.gz", _large_header(b"g")),
    "a long name of a gigabyte": ("tar.gz", _large_header(b"L")),
    "a header of an old sparse file": ("tar.gz", _large_header(b"S")),
    "5,000 headers of one member": ("tar.gz", _many_headers),
    "a header of digits": ("tar.gz", _digits),
    "50,000 streams": ("tar.gz", _many_streams),
    "a hard link": ("tar.gz", _link(tarfile.LNKTYPE)),
    "a symbolic link": ("tar.gz", _link(tarfile.SYMTYPE)),
    "a device": ("tar.gz", _link(tarfile.CHRTYPE)),
    "a pipe": ("tar.gz", _link(tarfile.FIFOTYPE)),
    "a path in a header of pax": ("tar.gz", _path_of_pax),
    "a name of 64 kB": ("tar.gz", _name("n" * 65_000 + ".csv")),
    "a tar name in another case": ("tar.gz", _name("RECORDS.parquet")),
}
"""The ending of each archive by its name, and the function that makes its bytes."""


def write_attack(name: str, archive: Path, folder: Path, seed: int = 0) -> Path:
    """Write the attack ``name`` of :data:`ATTACKS`, made from a real archive, into a folder and return its path."""
    ending, make = ATTACKS[name]
    path = folder / f"attack.{ending}"
    path.write_bytes(make(members_of(archive), Random(f"{name} {seed}")))
    return path
