"""The numbers of the table of solvers: which rows compete, and the best of them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from fmbench.config.solver_labels import is_fixed_step
from fmbench.report.claims.claim02_fewer_evaluations import FLOOR_MARGIN
from fmbench.report.claims.rows import main_distance, metric_name
from fmbench.report.claims.student import student
from fmbench.report.solvers.choice import choose

BUDGETS = (4, 6, 8, 10, 15, 20, 40)
"""The numbers of evaluations of the table."""
QUALITY, ERROR = "sample quality", "error"
TRAINED, ORACLE = "trained", "oracle"
INCOMPLETE = "no solver has a number at every seed"
COLUMNS = ["dataset", "method", "about", "by", "metric", "nfe", "best", "seeds", "mean", "low", "high", "runner_up"]
COLUMNS += ["lead", "lead_low", "lead_high", "lead_is", "verdict", "ties", "candidates", "cells", "failed", "failed_solvers"]


def solvers(records: pd.DataFrame, few_step: pd.DataFrame) -> pd.DataFrame:
    """The table: a row for each data set, method, criterion and number of evaluations that some solver spent.

    ``mean`` is over seeds, of errors the geometric mean, with Student's interval from ``low`` to ``high``. ``lead`` is the
    difference to the runner-up, of errors the ratio. ``ties`` are the solvers that the best one is not significantly better than.
    A solver competes if it has a number at every seed at which some solver has one; ``failed`` counts the cells without a number.
    """
    sweep, found = records[records.stage == "sweep"], []
    oracles = set(records[records.metric == "bandwidth"].method)
    for dataset in records.dataset.unique():
        of_few_step, of_sweep = (rows[rows.dataset == dataset] for rows in (few_step, sweep))
        metric = main_distance(of_few_step)
        distances = of_few_step[of_few_step.metric == metric]
        for method in dict.fromkeys([*of_sweep.method, *distances.method]):
            where = {"dataset": dataset, "method": method, "about": ORACLE if method in oracles else TRAINED}
            quality = where | {"by": QUALITY, "metric": metric_name(distances, metric) if metric else ""}
            found += [quality | row for row in _quality(distances[distances.method == method])]
            found += [where | {"by": ERROR, "metric": "MSE"} | row for row in _error(of_sweep[of_sweep.method == method])]
    numbers = dict.fromkeys(("mean", "low", "high", "lead", "lead_low", "lead_high"), float)
    return pd.DataFrame(found, columns=COLUMNS).astype(numbers)


def _quality(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The rows of one method by sample quality."""
    for budget, here in _at_budgets(rows):
        values = by_seed(here)
        yield _row(budget, here, values, values, logs=False)


def _error(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The rows of one method by error. Errors too near to the reference's own count as equal."""
    references = rows[(rows.metric == "reference_mse") & (rows.status == "ok")]
    floors = FLOOR_MARGIN * references.groupby("seed").value.max()
    for budget, here in _at_budgets(rows[rows.metric == "mse"]):
        values = by_seed(here).clip(lower=np.finfo(float).tiny)
        compared = values.clip(lower=floors.reindex(values.index).fillna(0.0), axis="index")
        yield _row(budget, here, values.apply(np.log), compared.apply(np.log), logs=True)


def _at_budgets(rows: pd.DataFrame) -> Iterator[tuple[int, pd.DataFrame]]:
    """The rows of fixed-step solvers at each of :data:`BUDGETS` that has any."""
    fixed = rows[np.array([isinstance(s, str) and is_fixed_step(s) for s in rows.solver], dtype=bool)]
    for budget in BUDGETS:
        here = fixed[fixed.nfe == budget]
        if len(here):
            yield budget, here


def by_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the numbers by seed (row) and solver (column) of the solvers without a gap, lowest mean first."""
    good = rows[rows.status == "ok"]
    table = good.pivot_table(index="seed", columns="solver", values="value", sort=False).dropna(axis="columns")
    return table[table.mean().sort_values(kind="stable").index]


def _row(budget: int, here: pd.DataFrame, values: pd.DataFrame, compared: pd.DataFrame, logs: bool) -> dict[str, Any]:
    """The columns of one number of evaluations.

    Args:
        here: all rows.
        values, compared: the numbers of the solvers that compete, and the same as they are compared; logarithms with ``logs``.
    """
    bad = here[here.status != "ok"]
    row: dict[str, Any] = {
        "nfe": budget,
        "seeds": len(values),
        "lead_is": "ratio" if logs else "difference",
        "candidates": here.solver.nunique(),
        "cells": len(here),
        "failed": len(bad),
        "failed_solvers": "; ".join(bad.solver.unique()),
    }
    if values.empty:
        return row | {"best": "", "seeds": 0, "runner_up": "", "verdict": INCOMPLETE, "ties": ""}
    best, back = choose(compared, logs), np.exp if logs else float
    own = values[best.solver].tolist()
    spread, lead = (float(np.mean(own)), *student(own)), (best.lead, best.low, best.high)
    return row | {
        "best": best.solver,
        **dict(zip(("mean", "low", "high"), map(back, spread), strict=True)),
        **dict(zip(("lead", "lead_low", "lead_high"), map(back, lead), strict=True)),
        "runner_up": best.runner_up,
        "verdict": best.verdict,
        "ties": "; ".join(best.ties),
    }
