"""Merging one parquet file of several result sets: rows that both have must agree, and the order is that of a single run."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fmbench.config.solver_labels import is_fixed_step
from fmbench.config.stages import FIRST_SEED
from fmbench.errors import DataError
from fmbench.store.merge_models import OWNER, Part, merge_models
from fmbench.store.records import SCHEMA

_Row = dict[str, Any]

THEORY, SETTINGS, MODELS = "theory/", "settings.parquet", "models.parquet"
PROVENANCE = ("config_hash", "code_hash", "commit", "versions", "device", "threads")
"""Columns that are not compared."""
RECORD_KEYS = ["dataset", "method", "seed", "stage", "metric", "solver", "step", "n", "draws", "probes"]
"""Columns that identify a record. The extractor and a requested NFE belong to the identity, too (:meth:`_Rule.identity`)."""
KEYS = {
    "nfe.parquet": ["dataset", "method", "seed", "index"],
    MODELS: ["dataset", "method", "seed"],
    SETTINGS: ["dataset", "method", "seed", "key"],
}
"""Columns that identify a row of these files. Other files use every column that is neither a float nor a list."""
TIME_UNITS = ("s", "ms", "h", "images/s", "samples/s")
"""Units of measured times. No run repeats them, so their values are not compared."""
COMPARED_ELSEWHERE = ("code_hash", "spec_hash", "data", "device")
"""Keys of ``settings.parquet`` that :mod:`fmbench.store.agreement` compares in the descriptions."""
OF_DATA = "features"
"""The stage that measures the data themselves."""
RELATIVE, OF_SCALE, OF_COLUMN = 1e-6, 1e-9, 1e-12
"""How much a number of ``theory/``, or a number about the data themselves, may differ between two machines, by rounding.

Relative to the number itself; and for numbers near zero, relative to the ``scale`` of their row, or to the largest number of
their column if the file has no such column.
"""
OF_CLASSIFIER = 1e-4
"""The same for what a trained classifier measures of the data: training adds to the rounding. Sampling errors are far larger."""

ROWS, BYTES = 50_000, 32 << 20
"""Larger tables are merged model by model, because a row takes a kilobyte while it is compared."""


def merge_tables(name: str, parts: Sequence[Part]) -> tuple[pa.Table, list[str]]:
    """Merge the tables that several sets have under one name.

    Two sets agree on a row if all columns but its provenance are equal. Measured times may differ, but not the status of their
    rows. Numbers in ``theory/`` follow from definitions alone, and those of the stage ``features`` from the data alone. They may
    differ by rounding.

    Args:
        name: the file's name in a result set.
        parts: the name of each set, and its table.

    Returns:
        The merged table, with the first set's rows where sets disagree, and every disagreement in words.

    Raises:
        DataError: the tables have other columns, or there are too many rows to compare.
    """
    first_label, schema = parts[0][0], parts[0][1].schema
    for label, table in parts[1:]:
        if table.schema.names != schema.names:
            raise DataError(f"{name} of {label} has other columns ({', '.join(table.schema.names)}) than {first_label}'s")
    large = sum(table.num_rows for _, table in parts) > ROWS or sum(table.nbytes for _, table in parts) > BYTES
    if large and set(OWNER) <= set(schema.names):
        return merge_models(name, parts, _merge_rows)
    return _merge_rows(name, parts)


def _merge_rows(name: str, parts: Sequence[Part]) -> tuple[pa.Table, list[str]]:
    """Merge tables as :func:`merge_tables` does, row by row."""
    rule, schema = _rule(name, [table for _, table in parts]), parts[0][1].schema
    seen: dict[tuple[Any, ...], tuple[str, list[_Row]]] = {}
    kept, conflicts = [], []
    for label, table in parts:
        rows = table.to_pylist()
        groups: dict[tuple[Any, ...], list[int]] = {}
        for i, row in enumerate(rows):
            groups.setdefault(rule.identity(row), []).append(i)
        new: list[int] = []
        for identity, indices in groups.items():
            values = [rule.values(rows[i]) for i in indices]
            if identity not in seen:
                seen[identity] = (label, values)
                new += indices
                continue
            first, theirs = seen[identity]
            if said := rule.conflict(first, theirs, label, values):
                where = ", ".join(f"{k} {v}" for k, v in zip(rule.keys, identity, strict=True) if v not in (None, ""))
                conflicts.append(": ".join(filter(None, (name, where, said))))
        kept.append(table.take(pa.array(sorted(new), pa.int64())))
    return pa.concat_tables([t.cast(schema) for t in kept]), conflicts


@dataclass(frozen=True)
class _Rule:
    """How the rows of one file are identified and compared.

    Attributes:
        keys: the columns that identify a row, as messages name them.
        columns: the columns that two sets must agree on.
        records: the file has the records' schema.
        settings: the file is ``settings.parquet``.
        largest: the columns that may differ by rounding, with the largest magnitude in each.
    """

    keys: list[str]
    columns: list[str]
    records: bool
    settings: bool
    largest: dict[str, float]

    def identity(self, row: _Row) -> tuple[Any, ...]:
        """What identifies a row. Several rows of a file may share an identity; they are then compared as one block."""
        if not self.records:
            return tuple(row[k] for k in self.keys)
        # A fixed-step solver's NFE is requested and identifies the row; an adaptive solver's NFE is an outcome.
        requested = row["nfe"] if is_fixed_step(row["solver"]) else None
        # Two extractors of one kind may have different hashes of weights, which follow in brackets.
        return (*(row[k] for k in RECORD_KEYS), row["features"].partition("(")[0], requested)

    def values(self, row: _Row) -> _Row:
        """The values of a row that two sets must agree on."""
        measured_time = self.records and row["unit"] in TIME_UNITS
        elsewhere = self.settings and row["key"] in COMPARED_ELSEWHERE
        return {c: row[c] for c in self.columns if not (c == "value" and (measured_time or elsewhere))}

    def conflict(self, first: str, theirs: list[_Row], label: str, ours: list[_Row]) -> str:
        """The first thing that differs between two blocks of rows, in words; empty if they agree."""
        if len(ours) != len(theirs):
            return f"{len(theirs)} rows in {first}, {len(ours)} in {label}"
        for x, y in zip(theirs, ours, strict=True):
            for column in (c for c in x if c in y):
                if not _equal(x[column], y[column]) and not self._only_rounding(column, x, y):
                    return f"{column} is {_short(x[column])} in {first}, {_short(y[column])} in {label}"
        return ""

    def _only_rounding(self, column: str, x: _Row, y: _Row) -> bool:
        if x[column] is None or y[column] is None:
            return False
        if self.records and x["stage"] == OF_DATA:
            tolerance = OF_CLASSIFIER if is_classifier(x["features"]) else RELATIVE
            return column == "value" and math.isclose(x[column], y[column], rel_tol=tolerance)
        if column not in self.largest:
            return False
        floor = OF_SCALE * abs(x["scale"] or 0.0) if "scale" in x else OF_COLUMN * self.largest[column]
        return math.isclose(x[column], y[column], rel_tol=RELATIVE, abs_tol=floor)


def is_classifier(features: str) -> bool:
    """Whether the features of a row are those of a classifier that a run trains on its data."""
    return features.startswith("classifier(")


def _rule(name: str, tables: Sequence[pa.Table]) -> _Rule:
    schema = tables[0].schema
    records, theory = schema.names == SCHEMA.names, name.startswith(THEORY)
    keys = _keys(name, schema)
    columns = [c for c in schema.names if c not in keys and c not in PROVENANCE]
    if name == MODELS:  # the config with its hashes of code, which agreement.py compares
        columns = []
    if records:
        columns += ["nfe", "features", "stage"]
    floats = [f.name for f in schema if theory and pa.types.is_floating(f.type)]
    return _Rule(keys, columns, records, name == SETTINGS, {c: _largest(tables, c) for c in floats})


def _keys(name: str, schema: pa.Schema) -> list[str]:
    """The columns that identify a row."""
    if name in KEYS:
        return KEYS[name]
    if name.startswith(THEORY):  # a file without methods is compared as one block
        return [c for c in schema.names if c == "method"]
    if schema.names == SCHEMA.names:
        return [*RECORD_KEYS, "features", "nfe"]
    plain = (f for f in schema if not pa.types.is_floating(f.type) and not pa.types.is_list(f.type))
    return [f.name for f in plain if f.name not in PROVENANCE]


def _largest(tables: Sequence[pa.Table], column: str) -> float:
    """The largest magnitude in a column; 0 if it has no finite number."""
    values = (v for table in tables for v in table[column].to_pylist())
    return max((abs(v) for v in values if v is not None and math.isfinite(v)), default=0.0)


def _equal(x: Any, y: Any) -> bool:
    both_nan = isinstance(x, float) and isinstance(y, float) and math.isnan(x) and math.isnan(y)
    return bool(x == y) or both_nan


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _stages(column: list[str]) -> list[str]:
    """The stages in the order of a run. One that only a later set has, such as pairs, stands after the one it follows there."""
    found: list[str] = []
    at = 0
    for stage, _ in itertools.groupby(column):
        if stage not in found:
            found.insert(at, stage)
        at = found.index(stage) + 1
    return found


def in_order(name: str, table: pa.Table, config: dict[str, Any]) -> pa.Table:
    """The rows of a merged table in the order of a single run of ``config``: by stage, data set, method and seed.

    Rows of the data itself come last. A table without methods keeps its order. Some files hold one seed of each data set and
    method; in them the rows of the lowest seed stay.
    """
    columns = set(table.schema.names)
    if "method" not in columns:
        return table
    order = {"datasets": config["datasets"], "methods": [m["name"] for m in config["methods"]]}

    def rank(column: str, known: list[str]) -> pa.ChunkedArray | pa.Array:
        """The place of each value among the known ones; -1 for others."""
        if column not in columns:
            return pa.array([-1] * table.num_rows, pa.int32())
        return pc.fill_null(pc.index_in(table[column], pa.array(known, table[column].type)), -1)

    stages = _stages(table["stage"].to_pylist()) if "stage" in columns else []
    seeds = pc.fill_null(table["seed"], -1) if "seed" in columns else pa.array([-1] * table.num_rows, pa.int64())
    ranks = pa.table(
        {
            "stage": rank("stage", stages),
            "data": pc.cast(pc.fill_null(pc.equal(table["method"], "data"), False), pa.int8()),
            "dataset": rank("dataset", order["datasets"]),
            "method": rank("method", order["methods"]),
            "seed": seeds,
            "row": np.arange(table.num_rows),
        }
    )
    if name.removesuffix(".parquet") in FIRST_SEED:
        lowest = ranks.group_by(["dataset", "method"]).aggregate([("seed", "min")]).rename_columns(["dataset", "method", "seed"])
        ranks = ranks.join(lowest, ["dataset", "method", "seed"], join_type="left semi")
    return table.take(ranks.sort_by([(c, "ascending") for c in ranks.column_names])["row"])
