"""Quality against the cost of training (not in the paper)."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from fmbench.report.figures.axes import log_or_signed, log_x
from fmbench.report.figures.fig05_10_learning_curves import learning_curve
from fmbench.report.figures.panels import band, curve, distance_names, empty, looks, method_legend, note_failures, nothing, panels
from fmbench.report.frames import MODEL
from fmbench.report.training_cost import COSTS, training_costs

NAMES = {"passes": "passes of the network in training", "seconds": "seconds of training"}


def cost_data(results: Path) -> pd.DataFrame:
    """Return the primary distance of each snapshot with the cost of the training up to it (:func:`training_costs`).

    ``passes`` and ``seconds`` are those of the whole training times the share of its iterations up to the snapshot, after those
    of its teacher and of the pairs.
    """
    data = learning_curve(results).merge(training_costs(results), on=MODEL, how="left")
    for name in COSTS:
        data[name] = data[f"before_{name}"] + data[name] * data.step / data.end
    return data.drop(columns=["end", *(f"before_{name}" for name in COSTS)])


def cost(data: pd.DataFrame) -> Figure:
    """Draw a row per data set: distance over passes of the network and over seconds, mean and range over seeds.

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
        for axis, (column, name) in zip(row, NAMES.items(), strict=True):
            known = good[good[column] > 0]
            for method in methods:
                mine = known[known.method == method]
                table = band(mine.step, mine.value)
                table.index = pd.Index(mine[column].groupby(mine.step).mean())
                curve(axis, table, **look[method])
            if known.empty and not good.empty:
                empty(axis, f"no {name} in the records")
            elif not known.empty:
                log_x(axis, known[column], large=column == "passes")
                log_or_signed(axis, known.value)
            axis.set(title=dataset, xlabel=name)
            axis.grid(True)
        row[0].set_ylabel(distance_names(here))
        note_failures(row[0], here, methods)
    method_legend(figure, methods)
    return figure
