"""Records as pandas frames: reading them, and the selections that tables and figures share."""

from pathlib import Path
from typing import Any

import pandas as pd

from fmbench.store.records import read_rows

MODEL = ["dataset", "method", "seed"]
"""The columns that name one trained model."""


def records_frame(path: Path) -> pd.DataFrame:
    """Return the records in ``path``, one row each.

    Raises:
        DataError: the file is missing or holds no records.
    """
    return read_rows([path]).to_pandas()


def of_metric(records: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the records of one metric."""
    return records[records.metric == metric]


def first_known(values: pd.Series) -> Any:
    """Return the first value that is not missing; None if all are missing."""
    found = values.dropna().unique()
    return found[0] if len(found) else None
