"""Table 4: NLL of images over the number of dequantisation draws K, by each estimator."""

from pathlib import Path
from typing import Any

import pandas as pd

from fmbench.files import write_text
from fmbench.records import read_rows
from fmbench.report.style import label
from fmbench.report.tables import paper, tex, to_csv

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


def table4(rows: pd.DataFrame, spec: dict[str, Any]) -> pd.DataFrame:
    """A row for each data set, method, estimator and K.

    ``nll_std`` is over seeds, ``nll_stderr`` over test images (mean over seeds); ``probe_bias`` is what the probes' noise is
    estimated to have lowered the number by (negative) and ``probe_std`` the spread they leave in one draw's number, where
    several probes show it.
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
                    bias, spread = (
                        at[at.metric == f"nll_probe_{what}"].value.mean() if averaged else None for what in ("bias", "std")
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
                            "paper_nll": printed.get((dataset, method, k)),
                            "status": "ok" if bad.empty else "; ".join(f"seed {r.seed}: {r.reason}" for r in bad.itertuples()),
                        }
                    )
    table = pd.DataFrame(found, columns=COLUMNS).astype({"probes": "Int64", "n": "Int64"})
    return table.astype(dict.fromkeys(("nll_mean", "probe_bias", "probe_std"), float))


def _rows(table: pd.DataFrame, dataset: str, draws: list[int], plus_minus: str) -> list[list[str]]:
    part = table[table.dataset == dataset]
    lines = []
    for (method, estimator), cells in part.groupby(["method", "estimator"], sort=False):
        line = [label(str(method)), ESTIMATORS[f"nll_{estimator}"]]
        for k in draws:
            if not (cells.k == k).any():
                line.append("-")
                continue
            row = cells[cells.k == k].iloc[0]
            text = "-" if pd.isna(row.nll_mean) else f"{row.nll_mean:.3f}"
            if pd.notna(row.nll_std):
                text += f" {plus_minus} {row.nll_std:.3f}"
            if pd.notna(row.paper_nll):
                text += f" ({row.paper_nll:g})"
            line.append(text)
        bias = cells.probe_bias.iloc[-1]
        line.append("" if pd.isna(bias) else f"{bias:.4f}")
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
        lines += [f"## {dataset}", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        lines += ["| " + " | ".join(row) + " |" for row in _rows(table, dataset, draws, "±")]
        averaged = part[part.estimator == "averaged"]
        error = part.nll_stderr.mean()
        notes = [
            f"Over the first {part.n.iloc[0]} test images{'' if pd.isna(error) else f' (standard error {error:.3f})'}, "
            f"mean ± standard deviation over {len(spec['seeds'])} seed{'s' if len(spec['seeds']) > 1 else ''}.",
            "The paper's estimator has one Hutchinson probe in each draw's log p. Its noise does not average out under the "
            "logarithm of a mean of exponentials, so that part of what it gains with K is no likelihood.",
        ]
        if len(averaged):
            spread = averaged.probe_std.mean()
            notes.append(
                f"Probes averaged first: {averaged.probes.iloc[0]} a draw, in one solve. Probe bias: what their remaining noise "
                "is estimated to do to the number, to second order; the paper's estimator has about "
                f"{averaged.probes.iloc[0]} times that."
            )
            if pd.notna(spread):
                notes[-1] += f" The spread they leave in the number of one draw of one image is {spread:.3f}."
        lines += ["", *(f"* {note}" for note in notes), ""]
        bad = part[part.status != "ok"]
        failures = dict.fromkeys(f"* {label(r.method)}: {r.status}" for r in bad.itertuples())
        lines += [*failures, ""] if failures else []
    return "\n".join(lines)


def latex(table: pd.DataFrame, spec: dict[str, Any]) -> str:
    """A booktabs table for each data set."""
    lines = []
    for dataset in spec["datasets"]:
        draws = spec["draws"][dataset]
        if table[table.dataset == dataset].empty:
            continue
        lines += [rf"% {dataset}, bits/dim; in brackets: the paper", r"\begin{tabular}{ll" + "r" * len(draws) + "}", r"\toprule"]
        lines += [" & ".join(["Method", "Estimator", *(f"$K = {k}$" for k in draws)]) + r" \\", r"\midrule"]
        lines += [" & ".join(map(tex, row[:-1])) + r" \\" for row in _rows(table, dataset, draws, r"±")]
        lines += [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines)


def write_table4(rows: list[Path], spec: dict[str, Any], out: Path) -> pd.DataFrame:
    """Write ``out`` (CSV) and beside it ``.md`` and ``.tex``."""
    table = table4(read_rows(rows).to_pandas(), spec)
    write_text(out.with_suffix(".md"), markdown(table, spec))
    write_text(out.with_suffix(".tex"), latex(table, spec))
    write_text(out, to_csv(table))
    return table
