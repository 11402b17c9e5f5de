"""Quality against the cost of training (not in the paper)."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from fmbench.report.figures.axes import log_or_signed, log_x
from fmbench.report.figures.fig05_10_learning_curves import learning_curve
from fmbench.report.figures.panels import band, curve, distance_names, empty, looks, method_legend, note_failures, nothing, panels
from fmbench.report.frames import MODEL, records_frame


def cost_data(results: Path) -> pd.DataFrame:
    """Return the primary distance of each snapshot with the cost of the training up to it.

    ``images`` and ``seconds`` are those of the whole training times the share of its iterations up to the snapshot.
    """
    rows = learning_curve(results)
    records = records_frame(results / "records.parquet")
    whole = records[records.stage == "train"].drop_duplicates([*MODEL, "metric"])
    cost = whole.pivot(index=MODEL, columns="metric", values="value").reindex(columns=["images_seen", "train_seconds"])
    # The step of this row is where the training ended, also for one that diverged and has no number of iterations.
    cost["end"] = whole[whole.metric == "images_seen"].set_index(MODEL).step
    data = rows.merge(cost.reset_index(), on=MODEL, how="left")
    share = data.step / data.end
    data["images"], data["seconds"] = data.images_seen * share, data.train_seconds * share
    return data.drop(columns=["images_seen", "train_seconds", "end"])


def cost(data: pd.DataFrame) -> Figure:
    """Draw a row per data set: distance over training images and over training seconds, mean and range over seeds.

    The seconds differ between seeds, so each snapshot is drawn at their mean.
    """
    if data.empty:
        return nothing("no learning curves")
    datasets, methods = list(data.dataset.unique()), list(data.method.unique())
    look = looks(methods)
    figure, axes = panels(len(datasets), 2, 2.0, sharey="row")
    for row, dataset in zip(axes, datasets, strict=True):
        here = data[data.dataset == dataset]
        good = here[here.status == "ok"]
        for axis, column, name in zip(row, ("images", "seconds"), ("training images", "training seconds"), strict=True):
            known = good[good[column] > 0]
            for method in methods:
                mine = known[known.method == method]
                table = band(mine.step, mine.value)
                table.index = pd.Index(mine[column].groupby(mine.step).mean())
                curve(axis, table, **look[method])
            if known.empty and not good.empty:
                empty(axis, f"no {name} in the records")
            elif not known.empty:
                log_x(axis, known[column], large=column == "images")
                log_or_signed(axis, known.value)
            axis.set(title=dataset, xlabel=name)
            axis.grid(True)
        row[0].set_ylabel(distance_names(here))
        note_failures(row[0], here, methods)
    method_legend(figure, methods)
    return figure
