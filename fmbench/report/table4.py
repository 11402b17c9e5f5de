"""Table 4: NLL of images over the number of dequantisation draws K, by each estimator."""

from pathlib import Path
from typing import Any

import pandas as pd

from fmbench.report.layout import (
    LATEX,
    MARKDOWN,
    NONE,
    SECOND_ORDER_UP_TO,
    Style,
    beside,
    latex_table,
    markdown_table,
    paper,
    spread,
    tex,
    to_csv,
    write_all,
)
from fmbench.report.layout import notes as note_lines
from fmbench.report.style import label
from fmbench.store.records import read_rows, write_table

ESTIMATORS = {
    "nll_exact": "exact divergence",
    "nll_averaged": "probes averaged first",
    "nll_paper": "the paper's estimator",
}
COLUMNS = [
    "dataset",
    "method",
    "estimator",
    "k",
    "probes",
    "n",
    "seeds",
    "nll_mean",
    "nll_std",
    "nll_stderr",
    "probe_bias",
    "probe_std",
    "paper_nll",
    "status",
]
VARIANCE = "probe_variance"
"""A column beside these, of sets whose rows have it: those from before do not."""


def table4(rows: pd.DataFrame, spec: dict[str, Any]) -> pd.DataFrame:
    """A row for each data set, method, estimator and K.

    ``nll_std`` is over seeds, ``nll_stderr`` over test images (mean over seeds); ``probe_bias`` is what the probes' noise is
    estimated to have lowered the number by (negative) and ``probe_std`` the spread they leave in one draw's number, where
    several probes show it. ``probe_variance`` is that of a draw's log p in nats^2: where it is large, the bias is a least value.
    """
    printed = paper("table4").set_index(["dataset", "method", "k"]).nll_bpd
    found = []
    for dataset in spec["datasets"]:
        for method in spec["methods"]:
            mine = rows[(rows.dataset == dataset) & (rows.method == method) & rows.seed.isin(spec["seeds"])]
            for metric in ESTIMATORS:
                for k in spec["draws"][dataset]:
                    at = mine[mine.draws == k]
                    cell, stderr = at[at.metric == metric], at[at.metric == f"{metric}_stderr"]
                    if cell.empty:
                        continue
                    bad = cell[cell.status != "ok"]
                    averaged = metric == "nll_averaged"
                    bias, spread, variance = (
                        at[at.metric == f"nll_probe_{what}"].value.mean() if averaged else None
                        for what in ("bias", "std", "variance")
                    )
                    found.append(
                        {
                            "dataset": dataset,
                            "method": method,
                            "estimator": metric.removeprefix("nll_"),
                            "k": k,
                            "probes": cell.probes.iloc[0],
                            "n": cell.n.iloc[0],
                            "seeds": int((cell.status == "ok").sum()),
                            "nll_mean": cell.value.mean(),
                            "nll_std": cell.value.std(),
                            "nll_stderr": stderr.value.mean(),
                            "probe_bias": bias,
                            "probe_std": spread,
                            VARIANCE: variance,
                            "paper_nll": printed.get((dataset, method, k)),
                            "status": "ok" if bad.empty else "; ".join(f"seed {r.seed}: {r.reason}" for r in bad.itertuples()),
                        }
                    )
    columns = [*COLUMNS, VARIANCE] if (rows.metric == "nll_probe_variance").any() else COLUMNS
    table = pd.DataFrame(found, columns=columns).astype({"probes": "Int64", "n": "Int64"})
    return table.astype(dict.fromkeys(("nll_mean", "probe_bias", "probe_std", *columns[len(COLUMNS) :]), float))


def _least(cells: pd.DataFrame) -> pd.Series:
    """Where the probe bias is a least value, for the noise is large."""
    return cells[VARIANCE] > SECOND_ORDER_UP_TO if VARIANCE in cells else pd.Series(False, cells.index)


def _rows(table: pd.DataFrame, dataset: str, draws: list[int], style: Style) -> list[list[str]]:
    """Rows of text: method, estimator, NLL at each K, probe bias. Bold is each estimator's lowest mean at a K."""
    part = table[table.dataset == dataset]
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
        line.append("" if pd.isna(bias) else f"{bias:.4f}" + (" at least" if _least(cells).iloc[-1] else ""))
        lines.append(line)
    return lines


def markdown(table: pd.DataFrame, spec: dict[str, Any]) -> str:
    """Table 4 for reading: a section per data set, a column per K, the paper's number in brackets."""
    lines = ["# Table 4: NLL (bits/dim) over the number of dequantisation draws", ""]
    if table.empty:
        lines += ["No data set of images with a trained method.", ""]
    for dataset in spec["datasets"]:
        draws, part = spec["draws"][dataset], table[table.dataset == dataset]
        if part.empty:
            continue
        header = ["Method", "Estimator", *(f"K = {k}" for k in draws), f"Probe bias at K = {draws[-1]}"]
        lines += [f"## {dataset}", "", *markdown_table(header, _rows(table, dataset, draws, MARKDOWN))]
        averaged = part[part.estimator == "averaged"]
        error = part.nll_stderr.mean()
        notes = [
            f"Over the first {part.n.iloc[0]} test images{'' if pd.isna(error) else f' (standard error {error:.3f})'}, "
            f"mean ± standard deviation over {len(spec['seeds'])} seed{'s' if len(spec['seeds']) > 1 else ''}. "
            f"{'What is lost is said below; such a mean is over the other seeds. ' if (part.status != 'ok').any() else ''}"
            "Bold is an estimator's lowest mean at a K.",
            "The paper's estimator has one Hutchinson probe in each draw's log p. Its noise does not average out under the "
            "logarithm of a mean of exponentials, so that part of what it gains with K is no likelihood.",
        ]
        if len(averaged):
            spread = averaged.probe_std.mean()
            notes.append(
                f"Probes averaged first: {averaged.probes.iloc[0]} a draw, in one solve. Probe bias: what their remaining noise "
                "is estimated to do to the number, to second order"
            )
            least = _least(averaged)
            if least.any():
                notes[-1] += (
                    f". Where this noise is large, as it is here (a variance of {averaged[VARIANCE][least].mean():.1f} nats² in "
                    "a draw's log p), that is too little: the number is too low by that at least, the paper's estimator by more."
                )
            else:
                notes[-1] += f"; the paper's estimator has about {averaged.probes.iloc[0]} times that."
            if pd.notna(spread):
                notes[-1] += f" The spread they leave in the number of one draw of one image is {spread:.3f}."
        lines += note_lines(notes)
        bad = part[part.status != "ok"]
        failures = dict.fromkeys(f"* {label(r.method)}: {r.status}" for r in bad.itertuples())
        lines += [*failures, ""] if failures else []
    return "\n".join(lines)


def latex(table: pd.DataFrame, spec: dict[str, Any]) -> str:
    """A booktabs table for each data set; what diverged is said below it."""
    lines = []
    for dataset in spec["datasets"]:
        draws, part = spec["draws"][dataset], table[table.dataset == dataset]
        if part.empty:
            continue
        header = " & ".join(["Method", "Estimator", *(f"$K = {k}$" for k in draws)]) + r" \\"
        rows = [[*map(tex, row[:2]), *row[2:-1]] for row in _rows(table, dataset, draws, LATEX)]
        bad = part[part.status != "ok"]
        footnotes = list(dict.fromkeys(tex(f"{label(r.method)}: {r.status}") for r in bad.itertuples()))
        lines.append(f"% {dataset}, bits/dim; in brackets: the paper")
        lines += latex_table("ll" + "r" * len(draws), [header], rows, footnotes)
    return "\n".join(lines)


def write_table4(rows: list[Path], spec: dict[str, Any], out: Path, gathered: Path | None = None) -> pd.DataFrame:
    """Write ``out`` (CSV) and beside it ``.md`` and ``.tex``; the rows it was made from, as one file, into ``gathered``."""
    records = read_rows(rows)
    if gathered is not None:
        write_table(gathered, records, spec["of"])
    table = table4(records.to_pandas(), spec)
    write_all(out, to_csv(table), markdown(table, spec), latex(table, spec))
    return table
