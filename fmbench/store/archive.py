"""Archives of result sets: packing. :mod:`fmbench.store.unpack` reads them back.

An archive holds the members of a result set and an index with the size and the sha256 of each.
"""

import gzip
import hashlib
import io
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Literal

from fmbench.errors import DataError
from fmbench.store.benchmark import read_benchmark
from fmbench.store.files import atomic
from fmbench.store.parquet import write_table
from fmbench.store.result_set import members

INDEX = "archive.json"
FORMAT = 1


def export(results: Path, out: Path, tables: Mapping[str, bytes | None] = MappingProxyType({})) -> int:
    """Pack a results folder into ``out``, a .zip, .tar.gz or .tgz, and return the number of its files.

    Members are sorted and carry no times and no owners, so the same results give the same bytes.

    Args:
        tables: contents that replace members of these names (:func:`fmbench.report.render.remade_tables`); None leaves one out.

    Raises:
        DataError: the results are incomplete, or the name of ``out`` has another ending.
    """
    kind = archive_kind(out)
    contents = _contents(results)
    for name in contents.keys() & tables.keys():
        content = tables[name]
        if content is None:
            del contents[name]
        else:
            contents[name] = content
    index = {
        "format": FORMAT,
        "hash": read_benchmark(results)["hash"],
        "members": {n: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in contents.items()},
    }
    packed = {INDEX: (json.dumps(index, indent=2, sort_keys=True) + "\n").encode(), **contents}
    with atomic(out) as temporary, open(temporary, "wb") as stream:
        (_write_zip if kind == "zip" else _write_tar)(stream, packed)
    return len(contents)


def archive_kind(path: Path) -> Literal["zip", "tar"]:
    """The format of an archive, by the ending of its name.

    Raises:
        DataError: the name has another ending.
    """
    if path.name.endswith(".zip"):
        return "zip"
    if path.name.endswith((".tar.gz", ".tgz")):
        return "tar"
    raise DataError(f"{path} is not an archive of results: its name should end in .zip, .tar.gz or .tgz")


def _contents(results: Path) -> dict[str, bytes]:
    """The bytes of every member."""
    contents: dict[str, bytes] = {}
    for name, source in members(results).items():
        if isinstance(source, Path):
            contents[name] = source.read_bytes()
        else:
            with tempfile.TemporaryDirectory() as folder:
                write_table(Path(folder) / "gathered.parquet", source)
                contents[name] = (Path(folder) / "gathered.parquet").read_bytes()
    return contents


def _write_zip(stream: BinaryIO, contents: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o100644 << 16
            archive.writestr(entry, content)


def _write_tar(stream: BinaryIO, contents: Mapping[str, bytes]) -> None:
    with (
        gzip.GzipFile("", "wb", fileobj=stream, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
