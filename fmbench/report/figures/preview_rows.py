"""The rows behind figures of samples: which previews are points or images, the real data, and methods that failed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from fmbench.report.frames import records_frame
from fmbench.store.tables import read_member

Kind = Callable[[Any], bool]
"""Whether samples of a shape belong in a figure."""


def is_point(shape: Any) -> bool:
    """Whether samples of this shape are points of the plane."""
    return len(shape) == 1 and bool(shape[0] == 2)


def is_image(shape: Any) -> bool:
    """Whether samples of this shape are images (C, H, W)."""
    return len(shape) == 3


def preview_rows(results: Path, name: str, kind: Kind) -> pd.DataFrame:
    """Return the rows of ``kind`` of a results folder's parquet file ``name``."""
    table = read_member(results, name).to_pandas()
    return table[table["shape"].map(kind).astype(bool)]


def with_real_data(results: Path, data: pd.DataFrame, kind: Kind) -> pd.DataFrame:
    """Return ``data`` with the real samples of the same data sets, which set the scale."""
    real = preview_rows(results, "previews.parquet", kind)
    real = real[(real.method == "data") & real.dataset.isin(list(data.dataset.unique()))]
    return pd.concat([data[data.method != "data"], real], ignore_index=True) if len(real) else data


def with_failed_methods(results: Path, data: pd.DataFrame) -> pd.DataFrame:
    """Return ``data`` with one row for each method that diverged and has no sample: no values, but the reason."""
    data = data.assign(reason="")
    records = records_frame(results / "records.parquet")
    trained = records[(records.metric == "final_loss") & records.dataset.isin(list(data.dataset.unique()))]
    bad = trained[trained.status != "ok"].drop_duplicates(["dataset", "method"])
    known = data[["dataset", "method"]].drop_duplicates()
    there = set(zip(known.dataset, known.method, strict=True))
    bad = bad[[pair not in there for pair in zip(bad.dataset, bad.method, strict=True)]]
    if bad.empty:
        return data
    rows = bad[["dataset", "method", "reason"]].reset_index(drop=True)
    whole = pd.concat([data, rows.reindex(columns=data.columns)], ignore_index=True)
    # The order of the records gives a failed method its usual place.
    order = list(records.method.unique())
    rank = whole.method.map(lambda m: order.index(m) if m in order else len(order))
    return whole.assign(rank=rank).sort_values("rank", kind="stable").drop(columns="rank").reset_index(drop=True)
