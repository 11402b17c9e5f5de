"""How the adaptive solver's NFE spreads over samples (not in the paper)."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmbench.report.figures.panels import nothing, panel_per_dataset
from fmbench.report.frames import MODEL, records_frame
from fmbench.store.tables import read_member


def nfe_distribution_data(results: Path) -> pd.DataFrame:
    """Return the ``count`` of samples for each model and ``nfe``; a model without samples has one row with the reason."""
    table = read_member(results, "nfe.parquet").to_pandas()
    counts = table.groupby([*MODEL, "nfe"], sort=False).size().rename("count").reset_index()
    counts = counts.assign(status="ok", reason="")
    records = records_frame(results / "records.parquet")
    failed = records[(records.stage == "sample") & (records.metric == "nfe") & (records.status != "ok")]
    failed = failed[[*MODEL, "status", "reason"]].assign(nfe=None, count=0)
    whole = pd.concat([counts, failed[counts.columns]]) if len(failed) else counts
    # The order of the records is that of the config.
    known = records.drop_duplicates(["dataset", "method"])
    order = {pair: i for i, pair in enumerate(zip(known.dataset, known.method, strict=True))}
    rank = [order.get(pair, len(order)) for pair in zip(whole.dataset, whole.method, strict=True)]
    whole = whole.assign(rank=rank, nfe=whole.nfe.astype("Int64")).sort_values(["rank", "seed", "nfe"], kind="stable")
    return whole.drop(columns="rank").reset_index(drop=True)


def nfe_distribution(data: pd.DataFrame) -> Figure:
    """Draw a panel per data set: the share of samples that took at most so many evaluations, mean and range over seeds."""
    return panel_per_dataset(data, _cumulated) if len(data) else nothing("no NFE of samples")


def _cumulated(axis: Axes, here: pd.DataFrame, look: dict[str, dict[str, Any]]) -> None:
    """One data set: a step for each NFE, and a marker at the median."""
    for method in look:
        table = shares(here[(here.method == method) & (here.status == "ok")])
        if table.empty:
            continue
        line = {"color": look[method]["color"], "linewidth": 1.1}
        axis.step(table.index, table["mean"], where="post", **line)
        axis.fill_between(table.index, table.low, table.high, step="post", alpha=0.18, linewidth=0, color=line["color"])
        middle = table[table["mean"] >= 0.5].iloc[:1]
        axis.plot(middle.index, middle["mean"], **look[method], markersize=4)
    axis.set(xlabel="NFE of a sample, dopri5", ylabel="share of samples", ylim=(-0.02, 1.02))


def shares(counts: pd.DataFrame) -> pd.DataFrame:
    """Return the share of samples with at most so many evaluations, by NFE: ``mean``, ``low`` and ``high`` over seeds."""
    by_seed = counts.pivot_table(index="nfe", columns="seed", values="count", aggfunc="sum", fill_value=0)
    if by_seed.empty:
        return pd.DataFrame(columns=["mean", "low", "high"])
    first = int(by_seed.index[0]) - 1
    by_seed.loc[first] = 0  # the line starts from zero
    share = by_seed.sort_index().cumsum() / by_seed.sum()
    return pd.DataFrame({"mean": share.mean(axis=1), "low": share.min(axis=1), "high": share.max(axis=1)})
