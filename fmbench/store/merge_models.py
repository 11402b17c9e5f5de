"""Merging large tables model by model, so that only the rows of one model are compared at a time."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fmbench.errors import DataError

Part = tuple[str, pa.Table]
"""The name of a set, and its table."""
Merge = Callable[[str, Sequence[Part]], tuple[pa.Table, list[str]]]
OWNER = ("dataset", "method", "seed")
"""The columns that name a model."""
MODELS = 10_000
"""The largest number of models that several sets have in a large table; ten data sets of 10 x 10 models are 1,000."""
ROWS_OF_MODEL = 200_000
"""The largest number of rows of one model that differ between sets and are therefore compared one by one."""


def merge_models(name: str, parts: Sequence[Part], merge_rows: Merge) -> tuple[pa.Table, list[str]]:
    """Merge tables whose rows are identified by their model and other columns.

    A model that only one set has needs no comparison, nor does one whose rows are the same in all sets.

    Args:
        merge_rows: merges the rows of one model.

    Raises:
        DataError: there are too many models, or rows of a model, to compare.
    """
    codes = _codes([table for _, table in parts])
    counts = Counter(code for found in codes for code in np.unique(found).tolist())
    shared = np.array([code for code, count in counts.items() if count > 1], np.int64)
    if len(shared) > MODELS:
        raise DataError(f"{name}: several sets have {len(shared):,} models in common, more than {MODELS:,}; no run has so many")
    kept = [table.filter(pa.array(~np.isin(found, shared))) for (_, table), found in zip(parts, codes, strict=True)]
    conflicts: list[str] = []
    orders = [np.argsort(found, kind="stable") for found in codes]
    sorted_codes = [found[order] for found, order in zip(codes, orders, strict=True)]
    for code in shared.tolist():
        of_model = []
        for (label, table), order, found in zip(parts, orders, sorted_codes, strict=True):
            first, last = np.searchsorted(found, [code, code + 1])
            if first < last:
                of_model.append((label, table.take(pa.array(order[first:last]))))
        if not all(table.equals(of_model[0][1]) for _, table in of_model[1:]):
            if sum(table.num_rows for _, table in of_model) > ROWS_OF_MODEL:
                raise DataError(f"{name}: sets differ in a model of more than {ROWS_OF_MODEL:,} rows; no run has so many")
            merged, texts = merge_rows(name, of_model)
            of_model, conflicts = [("", merged)], [*conflicts, *texts]
        kept.append(of_model[0][1])
    schema = parts[0][1].schema
    return pa.concat_tables([table.cast(schema) for table in kept]), conflicts


def _codes(tables: Sequence[pa.Table]) -> list[NDArray[np.int64]]:
    """A whole number for each row, the same for rows of the same model, in every table."""
    codes = [np.zeros(table.num_rows, np.int64) for table in tables]
    for column in OWNER:
        known = pc.unique(pa.chunked_array([chunk for table in tables for chunk in table[column].chunks], tables[0][column].type))
        for i, table in enumerate(tables):
            place = pc.fill_null(pc.index_in(table[column], known), 0)
            codes[i] = codes[i] * (len(known) + 1) + place.to_numpy()
    return codes
