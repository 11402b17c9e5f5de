"""A result set: the files of a results folder from which all tables, figures and claims are made.

These are the parquet files, ``benchmark.json``, the data manifests and the tables. Weights and checkpoints are not among them.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from fmbench.config import selections
from fmbench.config.config import Config
from fmbench.config.specs import model_folder
from fmbench.errors import DataError
from fmbench.store.benchmark import FILE, config_of, parse_config, read_benchmark, split_hashes
from fmbench.store.documents import check_file, read_document
from fmbench.store.records import SCHEMA, read_rows
from fmbench.store.shapes import Manifest
from fmbench.store.stale import TABLE4_ROWS, stale_files
from fmbench.store.tables import READERS, read_member

_PLAIN = r"[^/\\:.<>\"|?*][^/\\:<>\"|?*]*"
MEMBER = re.compile(
    rf"(theory/)?{_PLAIN}\.parquet|{_PLAIN}\.(csv|md|tex)|data/[A-Za-z][A-Za-z0-9_.-]*/manifest\.json|{re.escape(FILE)}"
)
"""The names that files of a result set may have. All are data: Python imports none of them, and no shell runs one."""
DEVICES = ("con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10)))
"""Names that Windows keeps for devices, with every ending."""


def members(results: Path) -> dict[str, Path | pa.Table]:
    """The files of a result set by their names in an archive.

    If each model has a file of its own with rows of Table 4, their entry is one table with the rows of all models.

    Raises:
        DataError: the folder has no records or no readable ``benchmark.json``, or a file is damaged.
    """
    config, stale = config_of(results), stale_files(results)
    found: dict[str, Path | pa.Table] = {FILE: results / FILE}
    for pattern in ("*.parquet", "theory/*.parquet", "*.csv", "*.md", "*.tex", "data/*/manifest.json"):
        for path in sorted(results.glob(pattern)):
            name = path.relative_to(results).as_posix()
            if name not in stale and is_member(name) and _is_wanted(name, config):
                if name.endswith((".parquet", ".json")):
                    check_file(path)
                found[name] = path
    if "records.parquet" not in found:
        raise DataError(f"{results} has no records.parquet, so there is nothing to share; run snakemake there first")
    files = table4_files(results, config)
    if files and TABLE4_ROWS not in found:
        found[TABLE4_ROWS] = read_rows(files)
    return dict(sorted(found.items()))


def _is_wanted(name: str, config: Config) -> bool:
    """Whether a file belongs to the results of ``config``: a known parquet file, the manifest of its data, or a table."""
    if name.endswith(".parquet"):
        return name in READERS
    return not name.endswith("manifest.json") or name.split("/")[1] in config.datasets


def is_member(name: str) -> bool:
    """Whether a file of a result set may have this name. Every disk must be able to store it and every terminal to show it."""
    return MEMBER.fullmatch(name) is not None and name.isprintable() and all(map(_storable, name.split("/")))


def _storable(part: str) -> bool:
    return len(part.encode()) <= 255 and part[-1] not in ". " and part.partition(".")[0].strip().casefold() not in DEVICES


def table4_files(results: Path, config: Config) -> list[Path]:
    """The files with the rows of Table 4: one gathered file, as in a shared set, or a file for each model."""
    gathered = results / TABLE4_ROWS
    if gathered.exists():  # if it is stale, then so are the files of the models
        return [] if TABLE4_ROWS in stale_files(results) else [gathered]
    models = selections.models(config, "dequantisation")
    files = [results / model_folder("dequantisation", *model) / "rows.parquet" for model in models]
    return [file for file in files if file.exists()]


ORIGIN = ["dataset", "method", "stage", "features", "code_hash", "commit", "versions", "device", "threads"]
"""The columns of records that say where rows come from."""


def distinct(table: pa.Table) -> pa.Table:
    """The different rows of a table, in the order of their first appearance."""
    return table.group_by(table.column_names, use_threads=False).aggregate([])


@dataclass
class ResultSet:
    """A result set in memory.

    Attributes:
        name: what messages call it.
        folder: where it was read from.
        description: its ``benchmark.json``.
        tables: its parquet files by name.
        manifests: its data manifests by data set.
    """

    name: str
    folder: Path
    description: dict[str, Any]
    tables: dict[str, pa.Table]
    manifests: dict[str, dict[str, Any]]

    @property
    def config(self) -> Config:
        """The config it was made with."""
        return parse_config(self.description["config"], self.folder / FILE)

    @cached_property
    def origins(self) -> list[dict[str, Any]]:
        """What the rows of all files of records come from: each combination of :data:`ORIGIN` once, in order."""
        tables = [table.select(ORIGIN) for table in self.tables.values() if table.schema.names == SCHEMA.names]
        return distinct(pa.concat_tables(tables)).to_pylist() if tables else []


def read_set(name: str, folder: Path) -> ResultSet:
    """Read a result set from a folder.

    Raises:
        DataError: something in it is missing or damaged.
    """
    description = read_benchmark(folder)
    tables, manifests = {}, {}
    for member, source in members(folder).items():
        if member.endswith(".parquet"):
            tables[member] = read_member(folder, member) if isinstance(source, Path) else source
        elif member.endswith("manifest.json") and isinstance(source, Path):
            manifests[source.parent.name] = read_document(source, Manifest)
    for dataset, manifest in manifests.items():
        if split_hashes(manifest) != description["data"].get(dataset):
            path = folder / "data" / dataset / "manifest.json"
            raise DataError(f"{path} does not describe the data that {FILE} names; run snakemake")
    return ResultSet(name, folder, description, tables, manifests)
