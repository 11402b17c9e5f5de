"""Classifiers that several machines trained on the same data: up to rounding, they are one extractor.

A machine trains the classifier of a data set from the same settings, seed and data. Another processor rounds differently, so the
hash of its weights is another one. Both classifiers measure the same data, in the rows of the stage ``features``. If these
numbers agree to rounding, distances in their features may be averaged, and merged rows name the classifier of the first set.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fmbench.store.merge_tables import RELATIVE
from fmbench.store.records import SCHEMA
from fmbench.store.result_set import ResultSet

_LEAST = 3
"""How many numbers two classifiers must have in common."""


def with_one_classifier(sets: Sequence[ResultSet]) -> tuple[list[ResultSet], list[str]]:
    """The sets with the first one's name of each classifier that others trained again, and a note on each such classifier."""
    found, notes = list(sets[:1]), []
    for later in sets[1:]:
        names: dict[str, str] = {}
        for first in found:
            for theirs, ours in _pairs(first, later):
                if ours not in names:
                    names[ours] = theirs
                    notes.append(
                        f"{ours} of {later.name} agrees to rounding with {theirs} of {first.name} on the data, and is called that"
                    )
        found.append(_renamed(later, names) if names else later)
    return found, notes


def _pairs(first: ResultSet, later: ResultSet) -> Iterator[tuple[str, str]]:
    """The names of each classifier in the first and in the later set, where the hash of its weights alone differs."""
    theirs, ours = _numbers(first), _numbers(later)
    for name, measured in ours.items():
        for other, wanted in theirs.items():
            if name != other and _stem(name) == _stem(other) and _agree(wanted, measured):
                yield other, name


def _stem(name: str) -> str:
    """The name of a classifier without the hash of its weights, which comes last in its brackets."""
    return name.rpartition(", ")[0]


def _numbers(found: ResultSet) -> dict[str, dict[tuple[Any, ...], float]]:
    """What each classifier measured of the data themselves."""
    rows = found.tables["records.parquet"]
    rows = rows.filter(pc.and_(pc.equal(rows["stage"], "features"), pc.starts_with(rows["features"], "classifier(")))
    numbers: dict[str, dict[tuple[Any, ...], float]] = {}
    for row in rows.to_pylist():
        if row["value"] is not None:
            numbers.setdefault(row["features"], {})[row["dataset"], row["metric"], row["n"], row["reference"]] = row["value"]
    return numbers


def _agree(theirs: Mapping[tuple[Any, ...], float], ours: Mapping[tuple[Any, ...], float]) -> bool:
    common = set(theirs) & set(ours)
    return len(common) >= _LEAST and all(math.isclose(theirs[key], ours[key], rel_tol=RELATIVE) for key in common)


def _renamed(found: ResultSet, names: Mapping[str, str]) -> ResultSet:
    def renamed(table: pa.Table) -> pa.Table:
        if table.schema.names != SCHEMA.names:
            return table
        column = [names.get(name, name) for name in table["features"].to_pylist()]
        return table.set_column(table.schema.get_field_index("features"), SCHEMA.field("features"), pa.array(column, pa.string()))

    return dataclasses.replace(found, tables={name: renamed(table) for name, table in found.tables.items()})
