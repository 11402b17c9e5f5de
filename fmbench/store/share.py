"""Result sets of several people and machines: pack one into an archive, read it back with every byte checked, join several.

A *result set* is a results folder's parquet files, ``benchmark.json``, data manifests and tables: all that tables, figures
and claims are made from, without weights and checkpoints.
"""

import contextlib
import gzip
import hashlib
import io
import json
import math
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple

import pyarrow as pa

from fmbench.config.config import Config
from fmbench.config.names import STEP_COSTS
from fmbench.config.specs import describe as describe_config
from fmbench.config.specs import model_folder, table4
from fmbench.errors import DataError
from fmbench.store.benchmark import DRAWS, FILE, codes, config_of, describe, parse_config, read_benchmark, splits, stale_files
from fmbench.store.files import atomic, read_json, write_json
from fmbench.store.records import SCHEMA, read_rows, read_table, write_table
from fmbench.store.tracking import flatten

INDEX = "archive.json"
FORMAT = 1
_PLAIN = r"[^/\\:.][^/\\:]*"
MEMBER = re.compile(
    rf"(theory/)?{_PLAIN}\.parquet|{_PLAIN}\.(csv|md|tex)|data/[A-Za-z][A-Za-z0-9_.-]*/manifest\.json|{re.escape(FILE)}"
)
"""Names that a file of a result set may have: what is read here is data, and nothing that Python would import or a shell run."""
LARGEST = 8 << 30
"""Bytes that an archive may unpack to."""
ALLOWED = {
    "code": "hashes of a stage's code",
    "device": "what models were trained and evaluated on",
    "extractor": "extractors behind distances between distributions, which are then not of one measure",
    "rows": "numbers that both sets have with other values; the first set's are kept",
}
"""What `merge` may be told to let pass."""
LOCATIONS = ("path", "download")
"""Parameters of a data set that say where its files are; what is in them is held to by hash."""
PROVENANCE = ("config_hash", "code_hash", "commit", "versions", "device", "threads")
THEORY, SETTINGS = "theory/", "settings.parquet"
KEYS = {
    "nfe.parquet": ("dataset", "method", "seed", "index"),
    "models.parquet": ("dataset", "method", "seed"),
    SETTINGS: ("dataset", "method", "seed", "key"),
}
"""Columns that tell one row from another, where that is not every column that is no float and no list."""
ELSEWHERE = ("code_hash", "spec_hash", "data", "device")
"""Keys of ``settings.parquet`` that are compared in the description: hashes of code and of all settings, among them where a data
set's files are, and the device."""
RELATIVE, OF_SCALE, OF_COLUMN = 1e-6, 1e-9, 1e-12
"""What numbers of ``theory/`` from two machines may differ by: relative to the number; and for those that are rounding
themselves, relative to the ``scale`` of their row, or without one to the largest of their column."""
FIRST_SEED = ("trajectory.parquet", "few_step_previews.parquet")
"""Files that have one seed only of each data set and method."""


# What belongs to a set


def members(results: Path) -> dict[str, Path | pa.Table]:
    """The files of a result set by their names in an archive; NLL against K is gathered if it lies in a file per model."""
    config, others = config_of(results), stale_files(results)
    found: dict[str, Path | pa.Table] = {FILE: results / FILE}
    for pattern in ("*.parquet", "theory/*.parquet", "*.csv", "*.md", "*.tex", "data/*/manifest.json"):
        for path in sorted(results.glob(pattern)):
            name = path.relative_to(results).as_posix()
            if name not in others and _is_member(name) and (path.name != "manifest.json" or path.parent.name in config.datasets):
                found[name] = path
    if "records.parquet" not in found:
        raise DataError(f"{results} has no records.parquet, so there is nothing to share; run snakemake there first")
    draws = draws_files(results, config)
    if draws and DRAWS not in found:
        found[DRAWS] = read_rows(draws)
    return dict(sorted(found.items()))


def _is_member(name: str) -> bool:
    """Whether a result set may have a file of this name; one that no disk takes, or that no terminal shows, is none."""
    return MEMBER.fullmatch(name) is not None and name.isprintable() and all(len(p.encode()) <= 255 for p in name.split("/"))


def draws_files(results: Path, config: Config) -> list[Path]:
    """Where the rows of Table 4 are: gathered, as in a set that was shared, or in a file for each model."""
    spec, gathered = table4(config), results / DRAWS
    if gathered.exists():  # of another config, those of single models are, too
        return [] if DRAWS in stale_files(results) else [gathered]
    models = [(d, m, s) for d in spec["datasets"] for m in spec["methods"] for s in spec["seeds"]]
    files = [results / model_folder("dequantisation", *model) / "rows.parquet" for model in models]
    return [file for file in files if file.exists()]


# Archives


def export(results: Path, out: Path, tables: Mapping[str, bytes | None] = MappingProxyType({})) -> int:
    """Pack a results folder into ``out``, a .zip, .tar.gz or .tgz, and return how many files went in.

    Members are sorted and carry no times or owners: the same results give the same bytes.

    Args:
        tables: what is packed in the place of members of these names (:func:`fmbench.report.render.made_anew`); None leaves
            one out.

    Raises:
        DataError: results that are not whole, or a name that says no format.
    """
    kind = _kind(out)
    contents: dict[str, bytes] = {}
    for name, source in members(results).items():
        if isinstance(source, Path):
            contents[name] = source.read_bytes()
        else:
            with tempfile.TemporaryDirectory() as folder:
                write_table(Path(folder) / "gathered.parquet", source)
                contents[name] = (Path(folder) / "gathered.parquet").read_bytes()
    contents |= {name: content for name, content in tables.items() if name in contents and content is not None}
    contents = {name: content for name, content in contents.items() if tables.get(name, content) is not None}
    index = {
        "format": FORMAT,
        "hash": read_benchmark(results)["hash"],
        "members": {n: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in contents.items()},
    }
    contents = {INDEX: (json.dumps(index, indent=2, sort_keys=True) + "\n").encode(), **contents}
    with atomic(out) as temporary, open(temporary, "wb") as stream:
        if kind == "zip":
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in contents.items():
                    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                    entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o100644 << 16
                    archive.writestr(entry, content)
        else:
            with (
                gzip.GzipFile("", "wb", fileobj=stream, mtime=0) as zipped,
                tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
            ):
                for name, content in contents.items():
                    member = tarfile.TarInfo(name)
                    member.size, member.mode = len(content), 0o644
                    tar.addfile(member, io.BytesIO(content))
    return len(contents) - 1


def _kind(path: Path) -> str:
    if path.name.endswith(".zip"):
        return "zip"
    if path.name.endswith((".tar.gz", ".tgz")):
        return "tar"
    raise DataError(f"{path} is no archive of results: its name should end in .zip, .tar.gz or .tgz")


class _Member(NamedTuple):
    name: str
    size: int
    plain: bool
    handle: Any


def unpack(archive: Path, out: Path) -> int:
    """Unpack an archive of :func:`export` into ``out``, a new or empty folder, and return how many files came out.

    Everything is checked before ``out`` is there: names are such as :func:`members` gives, and members are those of the index,
    with its sizes and hashes.

    Raises:
        DataError: the archive is missing, truncated, changed, or reaches outside; or ``out`` holds something.
    """
    _empty(out)
    with _filled(out) as partial:
        return _unpack(archive, partial)


@contextlib.contextmanager
def _filled(out: Path) -> Iterator[Path]:
    """A folder whose files are ``out``'s when the block ends well, and which vanishes when it does not.

    One that is there already stays the folder it is, be it the working folder, the end of a link or a mount.
    """
    there = out.is_dir()
    beside = out if there else out.parent
    beside.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=beside, prefix=f".{out.name}."))
    try:
        yield partial
        if there:
            for entry in sorted(partial.iterdir()):
                os.replace(entry, out / entry.name)
        else:
            partial.chmod(0o755)
            os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _empty(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is not an empty folder; give one that is not there yet")


def _unpack(archive: Path, folder: Path) -> int:
    kind = _kind(archive)
    if not archive.is_file():
        raise DataError(f"there is no archive {archive}")
    try:
        with contextlib.ExitStack() as stack:
            if kind == "zip":
                bundle = stack.enter_context(zipfile.ZipFile(archive))
                found = [
                    _Member(
                        i.filename,
                        i.file_size,
                        not i.filename.endswith("/") and stat.S_IFMT(i.external_attr >> 16) in (0, stat.S_IFREG),
                        i,
                    )
                    for i in bundle.infolist()
                ]
                opened: Any = bundle.open
            else:
                tar = stack.enter_context(tarfile.open(archive, "r:gz"))
                found = [_Member(i.name, i.size, i.isreg(), i) for i in tar]
                opened = tar.extractfile
            return _extract(archive, found, opened, folder)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's fault, not the archive's
        raise DataError(f"{archive} is truncated or damaged ({error}); get it again") from None


def _extract(archive: Path, found: list[_Member], opened: Any, folder: Path) -> int:
    names = [member.name for member in found]
    for member in found:
        parts = PurePosixPath(member.name).parts
        inside = member.name == "/".join(parts) and not member.name.startswith("/") and ".." not in parts
        if not inside or not member.plain or any(c in member.name for c in "\\:\0"):
            raise DataError(f"{archive} holds {member.name!r}, which is not a plain file inside the folder; it is not unpacked")
        if member.name != INDEX and not _is_member(member.name):
            raise DataError(
                f"{archive} holds {member.name!r}, which `fmbench export` does not pack (parquet at the top and in theory/, csv, "
                f"md and tex at the top, data/*/manifest.json, {FILE}); it is not unpacked"
            )
    if len(set(names)) != len(names):
        raise DataError(f"{archive} holds {next(n for n in names if names.count(n) > 1)} twice; it is not unpacked")
    if sum(member.size for member in found) > LARGEST:
        raise DataError(f"{archive} would unpack to more than {LARGEST >> 30} GiB; it is not unpacked")
    if INDEX not in names:
        raise DataError(f"{archive} has no {INDEX}, so it was not made by `fmbench export`")
    by_name = {member.name: member for member in found}
    index = _index(archive, opened(by_name[INDEX].handle).read(by_name[INDEX].size))
    promised = index["members"]
    if {INDEX, *promised} != set(names):
        other = sorted(set(promised) ^ (set(names) - {INDEX}))
        raise DataError(f"{archive} and its {INDEX} name different files: {', '.join(other)}")
    for name, entry in sorted(promised.items()):
        member, digest, size = by_name[name], hashlib.sha256(), 0
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with opened(member.handle) as source, open(path, "wb") as target:
            while chunk := source.read(1 << 20):
                size += len(chunk)
                if size > entry["bytes"]:
                    break
                digest.update(chunk)
                target.write(chunk)
        if size != entry["bytes"] or digest.hexdigest() != entry["sha256"]:
            raise DataError(f"{name} in {archive} is not the file that was packed (its size or sha256 differs); get it again")
    described = read_benchmark(folder)["hash"]
    if described != index["hash"]:
        raise DataError(f"{archive} says it is of config {index['hash']}, and its {FILE} of {described}")
    return len(promised)


def _index(archive: Path, text: bytes) -> dict[str, Any]:
    try:
        index = json.loads(text)
        entries = index["members"].values()
        whole = all(isinstance(e["bytes"], int) and isinstance(e["sha256"], str) for e in entries) and index["hash"]
    except (ValueError, KeyError, TypeError, AttributeError):
        whole, index = False, {}
    if not whole or FILE not in index["members"]:
        raise DataError(f"{archive} has an {INDEX} that is none; it was not made by `fmbench export`")
    if index.get("format") != FORMAT:
        raise DataError(f"{archive} is of format {index.get('format')!r}; this version of fmbench reads {FORMAT}")
    return dict(index)


@contextlib.contextmanager
def opened(results: Path) -> Iterator[Path]:
    """A results folder, whether ``results`` is one or an archive of one, which is unpacked for as long as it is used.

    Raises:
        DataError: it is neither.
    """
    if results.is_dir():
        yield results
    elif results.exists() or results.name.endswith((".zip", ".tar.gz", ".tgz")):
        with tempfile.TemporaryDirectory(prefix="fmbench-") as folder:
            unpack(results, Path(folder) / "results")
            yield Path(folder) / "results"
    else:
        raise DataError(f"there is no results folder or archive {results}")


# Agreement


@dataclass(frozen=True)
class Difference:
    """One thing two sets do not agree on; ``kind`` is what of :data:`ALLOWED` would let it pass, empty for nothing."""

    kind: str
    text: str


def agreed(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that must agree where two sets both have them, flat: of each data set, each method, and the common ones.

    Seeds, and which data sets and methods there are, are free; so is where a data set's files are.
    """
    parsed = parse_config(config, Path(FILE))
    values = describe_config(parsed)
    common = {k: v for k, v in values.items() if k not in ("seeds", "datasets", "methods", "settings")}
    for name in parsed.datasets:
        settings = values["settings"][name]
        parameters = {k: v for k, v in settings["data"]["parameters"].items() if k not in LOCATIONS}
        common[f"settings.{name}"] = settings | {"data": settings["data"] | {"parameters": parameters}}
    for method, written in zip(parsed.methods, values["methods"], strict=True):
        resolved = method.resolve()
        parts = {p: getattr(resolved, p) for p in ("path", "prediction", "weighting", "time")}
        common[f"methods.{method.name}"] = {
            **{p: {"name": part.name} | part.parameters for p, part in parts.items()},
            "t_min": resolved.t_min,
            "t_max": resolved.t_max,
            "oracle": resolved.oracle,
            "training": written["training"],
        }
    return common


def setting_differences(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings of what two configs have in common that are not the same, flat, with both values; '(not set)' for none."""
    found = {}
    one, other = agreed(a), agreed(b)
    for key in sorted(set(one) & set(other)):
        left, right = (flatten({key: values[key]}) for values in (one, other))
        for name in sorted(set(left) | set(right)):
            pair = left.get(name, "(not set)"), right.get(name, "(not set)")
            if pair[0] != pair[1]:
                found[name] = pair
    return found


@dataclass
class ResultSet:
    """One set as it is read: its name to the reader, its folder, description, rows of every kind, and data manifests."""

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
    def rows(self) -> list[dict[str, Any]]:
        """Every row of the records' schema, in whichever file."""
        return [row for table in self.tables.values() if table.schema.names == SCHEMA.names for row in table.to_pylist()]


def read_set(name: str, folder: Path) -> ResultSet:
    """Read a result set from a folder.

    Raises:
        DataError: something in it is missing or damaged.
    """
    description = read_benchmark(folder)
    tables, manifests = {}, {}
    for member, source in members(folder).items():
        if member.endswith(".parquet"):
            table = read_table(source) if isinstance(source, Path) else source
            # Columns that came later are null in older files.
            if {"metric", "value", "status"} <= set(table.schema.names) and isinstance(source, Path):
                table = read_rows([source])
            tables[member] = table
        elif member.endswith("manifest.json") and isinstance(source, Path):
            manifests[source.parent.name] = read_json(source)
    for dataset, manifest in manifests.items():
        if splits(manifest) != description["data"].get(dataset):
            raise DataError(f"{folder / 'data' / dataset / 'manifest.json'} is not of the data that {FILE} names; run snakemake")
    return ResultSet(name, folder, description, tables, manifests)


def differences(a: ResultSet, b: ResultSet) -> list[Difference]:
    """Everything two sets must agree on and do not, but for their rows."""
    found = []
    for key, (left, right) in setting_differences(a.description["config"], b.description["config"]).items():
        found.append(
            Difference("device" if key == "device" else "", f"{key}: {_say(left)} in {a.name}, {_say(right)} in {b.name}")
        )
    for dataset in sorted(set(a.description["data"]) & set(b.description["data"])):
        ours, theirs = a.description["data"][dataset], b.description["data"][dataset]
        for split in sorted(set(ours) | set(theirs)):
            if ours.get(split) != theirs.get(split):
                text = f"data of {dataset}, {split}: {ours.get(split)} in {a.name}, {theirs.get(split)} in {b.name}"
                found.append(Difference("", text))
    code, other_code = (codes(s.config, s.rows) for s in (a, b))
    for stage in sorted(set(code) & set(other_code)):
        if code[stage] != other_code[stage]:
            text = f"code of {stage}: {', '.join(code[stage])} in {a.name}, {', '.join(other_code[stage])} in {b.name}"
            found.append(Difference("code", text))
    one, other = _extractors(a), _extractors(b)
    for dataset in sorted(set(one) & set(other)):
        if one[dataset] != other[dataset]:
            left, right = (", ".join(sorted(extractors[dataset])) for extractors in (one, other))
            found.append(Difference("extractor", f"features on {dataset}: {left} in {a.name}, {right} in {b.name}"))
    return found


def _say(value: Any) -> str:
    return value if value == "(not set)" else json.dumps(value)


def _extractors(found: ResultSet) -> dict[str, set[str]]:
    extractors: dict[str, set[str]] = {}
    for row in found.rows:
        if row["features"]:
            extractors.setdefault(row["dataset"], set()).add(row["features"])
    return extractors


# Merging


def merge(sets: Sequence[ResultSet], out: Path, allow: Sequence[str] = ()) -> dict[str, Any]:
    """Join result sets into the new folder ``out`` and return its ``benchmark.json``.

    Rows that several sets have are there once. The order is that of one run of the merged config.

    Args:
        sets: two or more.
        allow: which of :data:`ALLOWED` may differ; it is noted in ``benchmark.json``.

    Raises:
        DataError: the sets do not agree, with each difference; nothing is written.
    """
    unknown = [kind for kind in allow if kind not in ALLOWED]
    if unknown:
        raise DataError(f"--allow {unknown[0]}: known are {'; '.join(f'{k} ({v})' for k, v in ALLOWED.items())}")
    if len(sets) < 2:
        raise DataError("merge takes two result sets or more")
    _empty(out)
    found = [d for i, b in enumerate(sets) for a in sets[:i] for d in differences(a, b)]
    config = merged_config(sets)
    tables: dict[str, pa.Table] = {}
    for name in dict.fromkeys(name for s in sets for name in s.tables):
        parts = [(s.name, s.tables[name]) for s in sets if name in s.tables]
        merged, conflicts = merge_tables(name, parts)
        found += [Difference("rows", text) for text in conflicts]
        tables[name] = in_order(name, merged, config)
    found = list(dict.fromkeys(found))
    refused = [d for d in found if d.kind not in allow]
    if refused:
        shown = [f"  {d.text}" + (f" [--allow {d.kind}]" if d.kind else "") for d in refused[:40]]
        more = [f"  and {len(refused) - 40} more"] if len(refused) > 40 else []
        raise DataError("these result sets do not belong together:\n" + "\n".join([*shown, *more]))
    manifests = {d: m for s in reversed(sets) for d, m in s.manifests.items()}
    described = describe(
        config,
        tables["records.parquet"].to_pylist(),
        {d: manifests[d] for d in config["datasets"] if d in manifests},
        merged=[s.description["hash"] for s in sets],
        notes=[*(f"differs: {d.text}" for d in found), *missing(config, tables["records.parquet"])],
    )
    with _filled(out) as partial:
        for name, table in tables.items():
            write_table(partial / name, table)
        for dataset, manifest in manifests.items():
            write_json(partial / "data" / dataset / "manifest.json", manifest)
        # What the definitions alone give is no measurement: the first set's summary stands for all.
        summary = next((s.folder / "equivalence.csv" for s in sets if (s.folder / "equivalence.csv").exists()), None)
        if summary is not None:
            shutil.copyfile(summary, partial / "equivalence.csv")
        write_json(partial / FILE, described)
    return described


def merged_config(sets: Sequence[ResultSet]) -> dict[str, Any]:
    """The config of all sets together: data sets and methods in the order of their first appearance, seeds sorted."""
    first = dict(sets[0].description["config"])
    configs = [s.description["config"] for s in sets]
    methods = {m["name"]: m for c in reversed(configs) for m in reversed(c["methods"])}
    names = dict.fromkeys(m["name"] for c in configs for m in c["methods"])
    first["methods"] = [methods[name] for name in names]
    first["datasets"] = list(dict.fromkeys(d for c in configs for d in c["datasets"]))
    first["seeds"] = sorted({s for c in configs for s in c["seeds"]})
    first["settings"] = {d: next(c["settings"][d] for c in configs if d in c["settings"]) for d in first["datasets"]}
    return describe_config(parse_config(first, Path(FILE)))


def missing(config: dict[str, Any], records: pa.Table) -> list[str]:
    """What the merged config names and no set has."""
    columns = (records[c].to_pylist() for c in ("dataset", "method", "seed"))
    there = set(zip(*columns, strict=True))
    models = [(d, m["name"], s) for d in config["datasets"] for m in config["methods"] for s in config["seeds"]]
    return [f"missing: {d}/{m}/{s}" for d, m, s in models if (d, m, s) not in there]


def _keys(name: str, schema: pa.Schema) -> list[str]:
    if name in KEYS:
        return list(KEYS[name])
    if name.startswith(THEORY):  # what does not go by methods is one whole
        return [c for c in schema.names if c == "method"]
    if schema.names == SCHEMA.names:
        return ["dataset", "method", "seed", "stage", "metric", "solver", "step", "n", "draws", "probes", "features", "nfe"]
    plain = (f for f in schema if not pa.types.is_floating(f.type) and not pa.types.is_list(f.type))
    return [f.name for f in plain if f.name not in PROVENANCE]


def _identity(row: dict[str, Any], keys: list[str], records: bool) -> tuple[Any, ...]:
    if not records:
        return tuple(row[k] for k in keys)
    # An adaptive solver's NFE is an outcome, a fixed one's a budget; of two extractors of a kind the hash may differ.
    asked = row["nfe"] if row["solver"].split("/")[0] in STEP_COSTS else None
    return (*(row[k] for k in keys[:-2]), row["features"].partition("(")[0], asked)


def merge_tables(name: str, parts: Sequence[tuple[str, pa.Table]]) -> tuple[pa.Table, list[str]]:
    """Tables of several sets as one, and every conflict between them in words; of what conflicts the first set's is kept.

    Rows are compared but for their provenance. A measured time is nobody's to repeat, so its value conflicts with nothing; its
    status does. What follows from definitions alone (``theory/``) may differ by rounding.
    """
    schema = parts[0][1].schema
    for label, table in parts[1:]:
        if table.schema.names != schema.names:
            raise DataError(f"{name} of {label} has other columns ({', '.join(table.schema.names)}) than {parts[0][0]}'s")
    records = schema.names == SCHEMA.names
    keys = _keys(name, schema)
    values = [c for c in schema.names if c not in keys and c not in PROVENANCE]
    if name == "models.parquet":  # hashes of code and of paths, which are compared where they belong
        values = []
    if records:
        values = [*values, "nfe", "features"]
    theory = name.startswith(THEORY)
    floating = [f.name for f in schema if theory and pa.types.is_floating(f.type)]
    largest = {c: _largest([t for _, t in parts], c) for c in floating}
    seen: dict[tuple[Any, ...], tuple[str, list[dict[str, Any]]]] = {}
    kept, conflicts = [], []
    for label, table in parts:
        here: dict[tuple[Any, ...], list[int]] = {}
        rows = table.to_pylist()
        for i, row in enumerate(rows):
            here.setdefault(_identity(row, keys, records), []).append(i)
        new: list[int] = []
        for key, indices in here.items():
            mine = [{c: rows[i][c] for c in values if not _anybodys(name, rows[i], c, records)} for i in indices]
            if key not in seen:
                seen[key] = (label, mine)
                new += indices
                continue
            first, theirs = seen[key]
            said = _conflict(theirs, mine, largest, first, label)
            if said:
                where = ", ".join(f"{k} {v}" for k, v in zip(keys, key, strict=True) if v not in (None, ""))
                conflicts.append(": ".join(filter(None, (name, where, said))))
        kept.append(table.take(pa.array(sorted(new), pa.int64())))
    return pa.concat_tables([t.cast(schema) for t in kept]), conflicts


TIMES = ("s", "ms", "h", "images/s", "samples/s")
"""Units of measured time."""


def _anybodys(name: str, row: dict[str, Any], column: str, records: bool) -> bool:
    """Whether a column of this row may have another value in another set."""
    if column != "value":
        return False
    return row["unit"] in TIMES if records else name == SETTINGS and row["key"] in ELSEWHERE


def _largest(tables: Sequence[pa.Table], column: str) -> float:
    """The largest magnitude of a column; 0 if it has no finite number."""
    values = (v for table in tables for v in table[column].to_pylist())
    return max((abs(v) for v in values if v is not None and math.isfinite(v)), default=0.0)


def _conflict(theirs: list[dict[str, Any]], mine: list[dict[str, Any]], largest: dict[str, float], first: str, label: str) -> str:
    """The first thing in which two lists of rows are not the same, or nothing.

    Args:
        largest: columns that may differ by rounding, with the largest magnitude in each.
    """
    if len(mine) != len(theirs):
        return f"{len(theirs)} rows in {first}, {len(mine)} in {label}"
    for x, y in zip(theirs, mine, strict=True):
        for column in (c for c in x if c in y):
            if _equal(x[column], y[column]):
                continue
            if column in largest:
                floor = OF_SCALE * abs(x["scale"] or 0.0) if "scale" in x else OF_COLUMN * largest[column]
                if _close(x[column], y[column], floor):
                    continue
            return f"{column} is {_short(x[column])} in {first}, {_short(y[column])} in {label}"
    return ""


def _equal(x: Any, y: Any) -> bool:
    both_nan = isinstance(x, float) and isinstance(y, float) and math.isnan(x) and math.isnan(y)
    return bool(x == y) or both_nan


def _close(x: float | None, y: float | None, floor: float) -> bool:
    return x is not None and y is not None and math.isclose(x, y, rel_tol=RELATIVE, abs_tol=floor)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def in_order(name: str, table: pa.Table, config: dict[str, Any]) -> pa.Table:
    """Rows in the order of one run of ``config``: by stage, data set, method and seed, the data's own last; else as they were."""
    columns = set(table.schema.names)
    if "method" not in columns:
        return table
    datasets = {d: i for i, d in enumerate(config["datasets"])}
    methods = {m["name"]: i for i, m in enumerate(config["methods"])}

    def column(key: str) -> list[Any]:
        return table[key].to_pylist() if key in columns else [None] * table.num_rows

    stages: dict[str, int] = {}
    ranks = []
    for stage, dataset, method, seed in zip(*map(column, ("stage", "dataset", "method", "seed")), strict=True):
        order = stages.setdefault(stage, len(stages))
        known = methods.get(method, -1)
        ranks.append((order, method == "data", datasets.get(dataset, -1), known, -1 if seed is None else seed))
    keep = range(len(ranks))
    if name in FIRST_SEED:
        least: dict[tuple[int, int], int] = {}
        for _, _, dataset, method, seed in ranks:
            least[dataset, method] = min(seed, least.get((dataset, method), seed))
        keep = [i for i in keep if ranks[i][4] == least[ranks[i][2], ranks[i][3]]]  # type: ignore[assignment]
    return table.take(pa.array(sorted(keep, key=ranks.__getitem__), pa.int64()))
