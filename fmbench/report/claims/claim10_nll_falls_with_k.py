"""Claim 10: NLL falls as K grows (Table 4)."""

import functools
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pandas as pd

from fmbench.report.claims.claim import Claim, Drafts, Evidence, Finding, Sources, short
from fmbench.report.claims.comparison import numbers
from fmbench.report.claims.rows import DIFFUSION, OURS, Lost, any_diverged, by_dataset, lost_seeds, say_lost, select
from fmbench.report.claims.student import mean_test
from fmbench.report.claims.verdicts import INCONCLUSIVE, NOT_TESTED
from fmbench.report.layout import paper
from fmbench.report.table4 import SECOND_ORDER_UP_TO

ESTIMATORS = {"nll_exact": "exact divergence", "nll_averaged": "averaged probes", "nll_paper": "the paper's estimator"}
INDEX = ["method", "seed"]


def falls_with_k(sources: Sources) -> Drafts:
    """Tests NLL at each K minus NLL at the K before, averaged over methods: every step must be a fall.

    The NLL of averaged probes is corrected for the estimated bias of their noise. The paper's estimator is not corrected.
    """
    rows = sources["dequantisation"]
    lines: Drafts = []
    for dataset, here in by_dataset(rows[rows.method.isin([OURS, *DIFFUSION])]):
        for metric, name in ESTIMATORS.items():
            if (here.metric == metric).any():
                columns = {"claim": 10, "dataset": dataset, "about": "trained", "part": name}
                lines += _steps_of_k(here, metric, columns)
    return lines


def _steps_of_k(here: pd.DataFrame, metric: str, columns: dict[str, Any]) -> Drafts:
    """The lines on one estimator, from the trained methods' rows of a data set."""
    rows = select(here, metric=metric)
    columns["unit"] = rows.unit.iloc[0]
    table = rows[rows.status == "ok"].pivot_table(index=INDEX, columns="draws", values="value").dropna()
    lost = lost_seeds(rows, list(rows.method.unique()), metric)
    if table.shape[1] < 2 or table.empty:
        why = say_lost(lost) if table.empty and lost else "The test needs two or more values of K"
        return [Finding(verdict=INCONCLUSIVE if table.empty and any_diverged(lost) else NOT_TESTED, why=why, **columns)]
    table, notes = _corrected(table, metric, here)
    # Only seeds with numbers of all methods count, so that each mean is over the same methods.
    whole = table.groupby("seed").size() == table.index.get_level_values("method").nunique()
    if not whole.any():
        why = f"No seed has values of every method{f': {say_lost(lost)}' if lost else ''}"
        return [Finding(verdict=INCONCLUSIVE, why=why, **columns)]
    table = table[table.index.get_level_values("seed").isin(whole[whole].index)]
    return [_step(table, a, b, lost, (notes, columns)) for a, b in pairwise(sorted(float(k) for k in table.columns))]


def _step(
    table: pd.DataFrame, a: float, b: float, lost: Mapping[str, Lost], said: tuple[tuple[str, ...], Mapping[str, Any]]
) -> Evidence:
    """The line on the step from K = a to K = b, from NLL by method and seed (rows) and K (columns).

    Args:
        said: sentences on the estimator, and the columns of its lines.
    """
    notes, columns = said
    step = table[b] - table[a]
    test = mean_test(step.groupby("seed").mean())
    of_methods = step.groupby("method").mean()
    fall = f"The mean NLL falls for {int((of_methods < 0).sum())} of {len(of_methods)} methods"
    gone = (f"Lost seeds are left out: {say_lost(lost)}",) if lost else ()
    columns = {
        **columns,
        "part": f"{columns['part']}, K = {a:g} to {b:g}",
        "statistic": f"difference from K = {a:g} to {b:g}",
        "paper": printed_fall(columns["dataset"], float(a), float(b)),
        **numbers(test),
    }
    return Evidence(columns, (test,), (fall, *notes, *gone), can_hold=not lost)


def _corrected(table: pd.DataFrame, metric: str, here: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """NLL by method and seed (rows) and K (columns) without the estimated bias of the probes, and sentences on that bias."""
    rows = select(here, metric="nll_probe_bias")
    bias = rows[rows.status == "ok"].pivot_table(index=INDEX, columns="draws", values="value")
    variance = select(here, metric="nll_probe_variance", status="ok").value.mean()
    notes: tuple[str, ...] = ()
    large = variance > SECOND_ORDER_UP_TO  # False where the variance is unknown
    if metric == "nll_averaged" and len(bias):
        notes += ("The remaining bias from the probes' noise is estimated and subtracted",)
        notes += (f"The estimate is too small, because the variance is {variance:.1f} nats^2",) if large else ()
        return (table - bias.reindex_like(table).fillna(0.0)).dropna(), notes
    if metric == "nll_paper":
        notes += ("The noise of the single probe also lowers this number, and more so for larger K",)
        if len(bias):
            # For small noise, the bias of one probe is n times that of a mean of n probes. It is never smaller.
            times = 1.0 if large else float(rows.probes.iloc[0])
            k = max(bias.columns)
            by = f"{'at least' if large else 'about'} {-times * float(bias[k].mean()):.2g}"
            notes += (f"At K = {k:g} the noise lowers it by {by}, which is bias and not likelihood",)
        return table, notes
    return table, notes


@functools.cache
def printed_fall(dataset: str, a: float, b: float) -> float | None:
    """The mean difference over methods between two K in the paper's Table 4; None if the paper does not print it."""
    printed = paper("table4")
    table = printed[printed.dataset == dataset].pivot_table(index="method", columns="k", values="nll_bpd")
    return float((table[b] - table[a]).mean()) if {a, b} <= set(table.columns) else None


def _in_paper() -> str:
    printed, parts = paper("table4"), []
    for dataset in printed.dataset.unique():
        ks = sorted(float(k) for k in printed[printed.dataset == dataset].k.unique())
        falls = [f"{short(printed_fall(dataset, a, b))} from K = {a:g} to {b:g}" for a, b in pairwise(ks)]
        parts.append(f"{dataset} {', '.join(falls)}")
    return "mean difference over methods (bits/dim): " + "; ".join(parts)


CLAIM = Claim(
    number=10,
    title="NLL falls as K grows",
    statement="NLL falls as the number K of averaged dequantisation draws grows.",
    where="Table 4",
    how="The test takes the difference between each K and the one before, averaged over the trained methods. Every such step "
    "must be a fall. Each step of each estimator has its own line. The paper's estimator has the noise of a probe in every draw. "
    "This noise alone lowers its NLL as K grows.",
    needs=("dequantisation",),
    evaluate=falls_with_k,
    in_paper=_in_paper,
)
