"""Result sets that a stranger could send: each with one thing changed, and with hashes and seals that fit the change.

:func:`mutants` makes them one by one from a seed. :func:`commands_for` lists the commands that read what was changed.
"""

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fmbench.config.hashing import settings_hash
from fmbench.config.names import FIGURES
from fmbench.store.benchmark import FILE
from fmbench.store.documents import KEY, write_document
from fmbench.store.parquet import read_source_hash, write_table

VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 10**30, -(10**19), 1e308, float("nan"), float("inf")),
    *("", "x", "0", "\x1b[31m", "![x](https://example.org)", "../x", "a" * 5000, "\ud800", "$\\frac$", "2026-01-01"),
    *([], {}, [[]], {"value": {}}, [None], {"": None}, [1, "a", {}]),
]
"""What a value of a document is replaced by."""


@dataclass(frozen=True)
class Mutant:
    """A result set with one change.

    Attributes:
        file: the file that was changed, by its name in the folder.
        change: what was changed, in words.
        folder: where the result set is.
    """

    file: str
    change: str
    folder: Path


def mutants(results: Path, work: Path, seed: int, tries: int) -> Iterator[Mutant]:
    """Make changed copies of a result set, one after the other, in the folder ``work``.

    Args:
        results: an unpacked result set; it is not changed.
    """
    files = sorted(p.relative_to(results).as_posix() for p in results.rglob("*") if p.suffix in (".parquet", ".json"))
    for number in range(tries):
        rng = Random(f"{seed} {number}")
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(results, work, copy_function=os.link)
        file = rng.choice(files)
        change = _change_table(work / file, rng) if file.endswith(".parquet") else _change_document(work / file, rng)
        yield Mutant(file, f"{number}: {file}: {change}", work)


def commands_for(mutant: Mutant, other: Path, out: Path, rng: Random) -> list[list[str]]:
    """The commands that read the changed file, with their arguments: two that read every file, and a figure of this file."""
    folder = str(mutant.folder)
    whole = [
        ["claims", "--results", folder, "--out", f"{out}/claims.csv"],
        ["page", "--results", folder, "--out", f"{out}/index.html"],
        ["compare", folder, str(other)],
        ["merge", folder, str(other), "--out", f"{out}/merged"],
        ["export", "--results", folder, "--out", f"{out}/set.zip"],
        ["spec", "table1", "--results", folder],
        ["mlflow-rebuild", "--results", folder, "--tracking", f"{out}/mlflow"],
    ]
    figures = [name for name, files in FIGURES.items() if mutant.file in files]
    drawn = [
        ["figure", name, "--results", folder, "--out", f"{out}/{name}.svg"] for name in rng.sample(figures, min(2, len(figures)))
    ]
    return [*rng.sample(whole, 2), *drawn]


# Documents


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if place:
        yield place
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield from _places(inner, (*place, key))


def _change_document(path: Path, rng: Random) -> str:
    values = json.loads(path.read_text())
    values.pop(KEY)
    if rng.random() < 0.05:
        text = rng.choice(["", "{", "[]", "null", "3", '{"a": NaN}', "[" * 50_000, "\ufeff{}"])
        _replace(path, text.encode())
        return f"the text {text[:20]!r}"
    changed = copy.deepcopy(values)
    *above, key = rng.choice(list(_places(changed)))
    inner = changed
    for step in above:
        inner = inner[step]
    way = rng.choice(["replace", "replace", "replace", "delete", "add"])
    if way == "delete":
        del inner[key]
        said = "is gone"
    elif way == "add" and isinstance(inner, dict):
        inner[f"{key}_more"] = inner[key]
        said = "is there twice, once as _more"
    else:
        inner[key] = rng.choice(VALUES)
        said = f"is {str(inner[key])[:30]!r}"
    if path.name == FILE and isinstance(changed.get("config"), dict) and rng.random() < 0.9:
        changed["hash"] = settings_hash(changed["config"])
    path.unlink()
    try:
        write_document(path, changed)
    except ValueError:  # a text that is no Unicode; a stranger writes it as an escape
        path.write_text(json.dumps(changed))
    return f"{'.'.join(map(str, (*above, key)))} {said}"


def _replace(path: Path, content: bytes) -> None:
    path.unlink()  # the file may be linked to the original
    path.write_bytes(content)


# Tables

Change = Callable[[pa.Table, int, Random], pa.Table]


def _set(table: pa.Table, at: int, column: pa.Array, name: str = "") -> pa.Table:
    return table.set_column(at, name or table.column_names[at], column)


def _python(table: pa.Table, at: int, change: Callable[[list[Any]], list[Any]]) -> pa.Table:
    """A column with changed values, of its own type."""
    return _set(table, at, pa.array(change(table.column(at).to_pylist()), table.schema.field(at).type))


def _some(values: list[Any], rng: Random, value: Any) -> list[Any]:
    chosen = set(rng.sample(range(len(values)), rng.randrange(1, len(values) + 1))) if values else set()
    return [value if i in chosen else v for i, v in enumerate(values)]


def _fitting(kind: pa.DataType, rng: Random) -> Any:
    """An odd value of a type."""
    if pa.types.is_floating(kind):
        return rng.choice([float("nan"), float("inf"), -float("inf"), 1e308, -1e308, 0.0, -1.0, 1e-320])
    if pa.types.is_integer(kind):
        return rng.choice([0, -1, 1 << 62, -(1 << 62), 7, 10**15])
    if pa.types.is_list(kind):
        return rng.choice([[], [0] * 100, [1 << 30, 1 << 30], [-1], [2], [1, 4, 4]])
    return rng.choice(["", "x", "data", "$\\frac$", "![x](https://example.org)", "\x1b[31m", "a" * 5000, "{", "[]", "diverged"])


def _other_type(table: pa.Table, at: int, rng: Random) -> pa.Table:
    rows = table.num_rows
    kinds = [
        pa.array([rng.choice(["1", "a"])] * rows),
        pa.array([rng.randrange(9)] * rows, pa.int32()),
        pa.array([True] * rows),
        pa.array([1.5] * rows, pa.float64()),
        pa.array([0] * rows, pa.timestamp("us")),
        pa.array([0] * rows, pa.date32()),
        pa.array([b"\xff"] * rows, pa.binary()),
        pa.array([[1]] * rows),
        pa.array([{"a": 1}] * rows),
        pa.array([None] * rows, pa.null()),
        pa.array(["a"] * rows).dictionary_encode(),
    ]
    return _set(table, at, rng.choice(kinds))


def _renamed(table: pa.Table, at: int, rng: Random) -> pa.Table:
    names = table.column_names
    names[at] = rng.choice(["", f"{names[at]}2", names[at].upper(), "\x1b[31m", names[at - 1]])
    return table.rename_columns(names)


def _swapped(table: pa.Table, at: int, rng: Random) -> pa.Table:
    other = rng.randrange(table.num_columns)
    names = table.column_names
    names[at], names[other] = names[other], names[at]
    return table.rename_columns(names)


CHANGES: dict[str, Change] = {
    "is gone": lambda table, at, rng: table.drop_columns([table.column_names[at]]),
    "has another name": _renamed,
    "has another type": _other_type,
    "is swapped with another": _swapped,
    "is there twice": lambda table, at, rng: table.append_column(table.schema.field(at), table.column(at)),
    "has nulls": lambda table, at, rng: _python(table, at, lambda v: _some(v, rng, None)),
    "is null": lambda table, at, rng: _set(table, at, pa.nulls(table.num_rows, table.schema.field(at).type)),
    "has odd values": lambda table, at, rng: _python(
        table, at, lambda v: _some(v, rng, _fitting(table.schema.field(at).type, rng))
    ),
    "has one odd value": lambda table, at, rng: _python(
        table, at, lambda v: [_fitting(table.schema.field(at).type, rng), *v[1:]]
    ),
    "is shuffled": lambda table, at, rng: _python(table, at, lambda v: rng.sample(v, len(v))),
    "has no rows": lambda table, at, rng: table.slice(0, 0),
    "has one row": lambda table, at, rng: table.slice(rng.randrange(max(1, table.num_rows)), 1),
    "has every row twice": lambda table, at, rng: pa.concat_tables([table, table]),
    "has lost rows": lambda table, at, rng: table.take(pa.array(sorted(rng.sample(range(table.num_rows), table.num_rows // 2)))),
}
"""What happens to a column, or to the rows of its table."""


def _change_table(path: Path, rng: Random) -> str:
    table, source = pq.ParquetFile(path).read(), read_source_hash(path)
    at, said = rng.randrange(table.num_columns), rng.choice(list(CHANGES))
    field = table.schema.field(at)
    # A column that may be null, so that nulls can be written at all.
    schema = pa.schema([f.with_nullable(True) for f in table.schema], table.schema.metadata)
    changed = CHANGES[said](table.cast(schema), at, rng)
    path.unlink()
    write_table(path, changed, source)
    return f"{field.name} {said}"
