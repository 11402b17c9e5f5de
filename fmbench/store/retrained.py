"""Classifiers that several machines trained on the same data: up to rounding, they are one extractor.

A machine trains the classifier of a data set from the same settings, seed and data. Another processor rounds differently, so the
hash of its weights is another one. Both classifiers measure the same data, in the rows of the stage ``features``. If these
numbers agree to rounding, distances in their features may be averaged and compared, and the second has the name of the first.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fmbench.store.merge_tables import OF_CLASSIFIER, OF_DATA, is_classifier
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
            for ours, theirs in retrained(_rows(first), _rows(later)).items():
                if ours not in names:
                    names[ours] = theirs
                    notes.append(
                        f"{ours} of {later.name} agrees to rounding with {theirs} of {first.name} on the data, and is called that"
                    )
        found.append(_renamed(later, names) if names else later)
    return found, notes


def retrained(first: Iterable[Mapping[Any, Any]], later: Iterable[Mapping[Any, Any]]) -> dict[str, str]:
    """The name in the first set of each classifier of a later set where the hash of its weights alone differs.

    Args:
        first, later: records. Those of the stage ``features`` count.
    """
    theirs, ours = _numbers(first), _numbers(later)
    return {
        name: other
        for name, measured in ours.items()
        for other, wanted in theirs.items()
        if name != other and _stem(name) == _stem(other) and _agree(wanted, measured)
    }


def _stem(name: str) -> str:
    """The name of a classifier without the hash of its weights, which comes last in its brackets."""
    return name.rpartition(", ")[0]


def _rows(found: ResultSet) -> list[dict[str, Any]]:
    rows = found.tables["records.parquet"]
    of_data: list[dict[str, Any]] = rows.filter(pc.equal(rows["stage"], OF_DATA)).to_pylist()
    return of_data


def _numbers(rows: Iterable[Mapping[Any, Any]]) -> dict[str, dict[tuple[Any, ...], float]]:
    """What each classifier measured of the data themselves."""
    numbers: dict[str, dict[tuple[Any, ...], float]] = {}
    for row in rows:
        if row["stage"] == OF_DATA and is_classifier(row["features"]) and row["value"] is not None:
            numbers.setdefault(row["features"], {})[row["dataset"], row["metric"], row["n"], row["reference"]] = row["value"]
    return numbers


def _agree(theirs: Mapping[tuple[Any, ...], float], ours: Mapping[tuple[Any, ...], float]) -> bool:
    common = set(theirs) & set(ours)
    return len(common) >= _LEAST and all(math.isclose(theirs[key], ours[key], rel_tol=OF_CLASSIFIER) for key in common)


def _renamed(found: ResultSet, names: Mapping[str, str]) -> ResultSet:
    def renamed(table: pa.Table) -> pa.Table:
        if table.schema.names != SCHEMA.names:
            return table
        column = [names.get(name, name) for name in table["features"].to_pylist()]
        return table.set_column(table.schema.get_field_index("features"), SCHEMA.field("features"), pa.array(column, pa.string()))

    return dataclasses.replace(found, tables={name: renamed(table) for name, table in found.tables.items()})
