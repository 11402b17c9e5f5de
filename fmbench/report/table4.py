"""Table 4: NLL of images against the number K of dequantisation draws, by each estimator."""

from pathlib import Path
from typing import Any

import pandas as pd

from fmbench.report.causes import each_once
from fmbench.report.frames import of_metric
from fmbench.report.layout import (
    LATEX,
    MARKDOWN,
    NONE,
    Style,
    beside,
    block,
    comment,
    heading,
    latex_table,
    markdown_table,
    paper,
    spread,
    tex,
    write_all,
)
from fmbench.report.layout import notes as note_lines
from fmbench.report.style import label
from fmbench.store.parquet import write_table
from fmbench.store.records import read_rows

ESTIMATORS = {
    "nll_exact": "exact divergence",
    "nll_averaged": "probes averaged first",
    "nll_paper": "the paper's estimator",
}
COLUMNS = ["dataset", "method", "estimator", "k", "probes", "n", "seeds", "nll_mean", "nll_std", "nll_stderr"]
COLUMNS += ["probe_bias", "probe_std", "paper_nll", "status"]
VARIANCE = "probe_variance"
"""A last column, present where the rows have this metric."""
SECOND_ORDER_UP_TO = 1.0
"""Variance of log p, in nats^2, above which the second-order estimate of the probe bias is too small
(:func:`fmbench.flow.likelihood.probe_bias`)."""


def table4(rows: pd.DataFrame, spec: dict[str, Any]) -> pd.DataFrame:
    """Return a row for each data set, method, estimator and K.

    ``nll_std`` is over seeds, ``nll_stderr`` over test images (mean over seeds). ``probe_bias`` estimates how far the probes'
    noise lowered the NLL (a negative number); ``probe_std`` is the standard deviation that the probes leave in the NLL of one
    draw, where several probes show it. ``probe_variance`` is the variance of log p of one draw in nats^2: above
    :data:`SECOND_ORDER_UP_TO` the true bias is larger than the estimate.
    """
    printed = paper("table4").set_index(["dataset", "method", "k"]).nll_bpd
    found = []
    for dataset in spec["datasets"]:
        for method in spec["methods"]:
            mine = rows[(rows.dataset == dataset) & (rows.method == method) & rows.seed.isin(spec["seeds"])]
            for metric in ESTIMATORS:
                for k in spec["draws"][dataset]:
                    at = mine[mine.draws == k]
                    if (at.metric == metric).any():
                        row = {"dataset": dataset, "method": method, "k": k, "paper_nll": printed.get((dataset, method, k))}
                        found.append(row | _measured(at, metric))
    columns = [*COLUMNS, VARIANCE] if (rows.metric == "nll_probe_variance").any() else COLUMNS
    table = pd.DataFrame(found, columns=columns).astype({"probes": "Int64", "n": "Int64"})
    return table.astype(dict.fromkeys(("nll_mean", "probe_bias", "probe_std", *columns[len(COLUMNS) :]), float))


def _measured(at: pd.DataFrame, metric: str) -> dict[str, Any]:
    """The columns that come from one method's rows at one K."""
    cell = of_metric(at, metric)
    bad = cell[cell.status != "ok"]
    row: dict[str, Any] = {
        "estimator": metric.removeprefix("nll_"),
        "probes": cell.probes.iloc[0],
        "n": cell.n.iloc[0],
        "seeds": int((cell.status == "ok").sum()),
        "nll_mean": cell.value.mean(),
        "nll_std": cell.value.std(),
        "nll_stderr": of_metric(at, f"{metric}_stderr").value.mean(),
        "status": "ok" if bad.empty else "; ".join(each_once((r.seed, f": {r.reason}") for r in bad.itertuples())),
    }
    for what in ("bias", "std", "variance"):
        averaged = metric == "nll_averaged"
        row[f"probe_{what}"] = of_metric(at, f"nll_probe_{what}").value.mean() if averaged else None
    return row


def _is_lower_bound(cells: pd.DataFrame) -> pd.Series:
    """Whether the size of each probe bias is only a lower bound, because the noise is large."""
    return cells[VARIANCE] > SECOND_ORDER_UP_TO if VARIANCE in cells else pd.Series(False, cells.index)


def _rows(part: pd.DataFrame, draws: list[int], style: Style) -> list[list[str]]:
    """Rows of text: method, estimator, NLL at each K, probe bias. Bold is each estimator's lowest mean at each K."""
    competing = part.dropna(subset="nll_mean").groupby(["estimator", "k"]).nll_mean
    lowest = competing.min()[competing.count() > 1].to_dict()
    lines = []
    for (method, estimator), cells in part.groupby(["method", "estimator"], sort=False):
        line = [label(str(method)), ESTIMATORS[f"nll_{estimator}"]]
        by_k = {row["k"]: row for row in cells.to_dict("records")}
        for k in draws:
            if k not in by_k:
                line.append(NONE)
                continue
            row = by_k[k]
            best = bool(pd.notna(row["nll_mean"]) and row["nll_mean"] == lowest.get((estimator, k)))
            line.append(beside(spread(row["nll_mean"], row["nll_std"], 3, style, best), row["paper_nll"], 2))
        bias = cells.probe_bias.iloc[-1]
        line.append("" if pd.isna(bias) else ("≤ " if _is_lower_bound(cells).iloc[-1] else "") + f"{bias:.4f}")
        lines.append(line)
    return lines


def _failures(part: pd.DataFrame) -> list[str]:
    """One text for each method and reason that a seed's number is missing."""
    return list(dict.fromkeys(f"{label(str(r.method))}: {r.status}" for r in part[part.status != "ok"].itertuples()))


def _notes(part: pd.DataFrame, seeds: int) -> list[str]:
    failures, error = _failures(part), part.nll_stderr.mean()
    notes = [
        f"NLL of the first {part.n.iloc[0]} test images: mean ± standard deviation over {seeds} seed{'s' if seeds > 1 else ''}.",
        *([] if pd.isna(error) else [f"The standard error over test images is {error:.3f} bits/dim."]),
        *(["Where a seed failed (see below), the numbers are over the other seeds."] if failures else []),
        "Bold is the lowest mean of an estimator at a K.",
        "The paper's estimator uses one Hutchinson probe for the log p of each draw. The probe's noise does not average out "
        "under the logarithm of a mean of exponentials, so part of the gain with K is noise, not likelihood.",
    ]
    averaged = part[part.estimator == "averaged"]
    if len(averaged):
        probes, bounded = averaged.probes.iloc[0], _is_lower_bound(averaged)
        notes.append(f"Probes averaged first: {probes} probes a draw, in one solve.")
        notes.append("Probe bias: how much the remaining probe noise changes the NLL, estimated to second order.")
        if bounded.any():
            notes.append(
                f"≤: the noise is large (a variance of {averaged[VARIANCE][bounded].mean():.1f} nats² in the log p of a draw), "
                "so the NLL is too low by at least this much, and that of the paper's estimator by more."
            )
        else:
            notes.append(f"The probe bias of the paper's estimator is about {probes} times as large.")
        if pd.notna(averaged.probe_std.mean()):
            std = averaged.probe_std.mean()
            notes.append(f"The probes give the NLL of one draw of one image a standard deviation of {std:.3f} bits/dim.")
    return notes


def markdown(table: pd.DataFrame, spec: dict[str, Any]) -> str:
    """Return a section per data set with a column per K and the paper's number in brackets."""
    lines = ["# Table 4: NLL (bits/dim) against the number K of dequantisation draws", ""]
    if table.empty:
        lines += ["This run has no trained method on a data set of images.", ""]
    for dataset in spec["datasets"]:
        draws, part = spec["draws"][dataset], table[table.dataset == dataset]
        if part.empty:
            continue
        header = ["Method", "Estimator", *(f"K = {k}" for k in draws), f"Probe bias at K = {draws[-1]}"]
        lines += [heading(2, dataset), "", *markdown_table(header, _rows(part, draws, MARKDOWN))]
        lines += note_lines(_notes(part, len(spec["seeds"])))
        failures = [f"* {block(text)}" for text in _failures(part)]
        lines += [*failures, ""] if failures else []
    return "\n".join(lines)


def latex(table: pd.DataFrame, spec: dict[str, Any]) -> str:
    """Return a booktabs table for each data set, with a footnote for each failure."""
    lines = []
    for dataset in spec["datasets"]:
        draws, part = spec["draws"][dataset], table[table.dataset == dataset]
        if part.empty:
            continue
        header = " & ".join(["Method", "Estimator", *(f"$K = {k}$" for k in draws)]) + r" \\"
        rows = [[*map(tex, row[:2]), *row[2:-1]] for row in _rows(part, draws, LATEX)]
        lines.append(comment(f"{dataset}, bits/dim; in brackets: the paper"))
        lines += latex_table("ll" + "r" * len(draws), [header], rows, [tex(text) for text in _failures(part)])
    return "\n".join(lines)


def write_table4(rows: list[Path], spec: dict[str, Any], out: Path, gathered: Path | None = None) -> pd.DataFrame:
    """Write ``out`` (CSV) and beside it ``.md`` and ``.tex``; return the table.

    Args:
        spec: what :func:`fmbench.config.specs.table4` returns.
        gathered: write all rows into this file, too.
    """
    records = read_rows(rows)
    if gathered is not None:
        write_table(gathered, records, spec["of"])
    table = table4(records.to_pandas(), spec)
    write_all(out, table, markdown(table, spec), latex(table, spec))
    return table
