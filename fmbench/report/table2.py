"""Table 2: super-resolution. The paper's numbers, and those of the super-resolution data sets in the records."""

from pathlib import Path

import pandas as pd

from fmbench.report.frames import records_frame
from fmbench.report.layout import (
    LATEX,
    MARKDOWN,
    Style,
    comment,
    heading,
    latex_table,
    markdown_table,
    notes,
    paper,
    spread,
    tex,
    write_all,
)
from fmbench.report.style import is_inception, label

PAPER = "paper: ImageNet 64 to 256"
METRICS = {
    "fid": ("frechet", "FID", 1, False),
    "inception_score": ("inception_score", "IS", 1, True),
    "psnr": ("psnr", "PSNR", 1, True),
    "ssim": ("ssim", "SSIM", 3, True),
}
"""By column: the metric in the records, its name in print, its digits, and whether higher is better."""
COLUMNS = ["source", "dataset", "model", "seeds", *(f"{column}_{what}" for column in METRICS for what in ("mean", "std"))]
COLUMNS += ["features", "n", "status"]
_MODELS = {"reference": "Reference", "regression": "Regression", "sr3": "SR3"}


def table2(records: pd.DataFrame) -> pd.DataFrame:
    """Return the paper's rows, then one row for each super-resolution data set and method of the records.

    A data set is a super-resolution data set if it has rows of psnr or ssim: only there is a sample compared with its
    original. Means and standard deviations are over seeds.
    """
    rows = []
    for printed in paper("table2").to_dict("records"):
        values = {f"{column}_mean": printed[column] for column in METRICS}
        rows.append({"source": "paper", "dataset": PAPER, "model": printed["model"], "status": "as printed", **values})
    measured = records[records.metric.isin(["psnr", "ssim"]) & (records.method != "")]
    for dataset, method in dict.fromkeys(zip(measured.dataset, measured.method, strict=True)):
        mine = records[(records.dataset == dataset) & (records.method == method)]
        row = {"source": "ours", "dataset": dataset, "model": method}
        complaints = []
        for column, (metric, name, _, _) in METRICS.items():
            found = mine[mine.metric == metric]
            good, bad = found[found.status == "ok"], found[found.status != "ok"]
            row |= {f"{column}_mean": good.value.mean(), f"{column}_std": good.value.std()}
            if found.empty:
                complaints.append(f"no {name}")
            complaints += [f"{name}, seed {r.seed}: {r.reason}" for r in bad.itertuples()]
        distance, sharp = mine[mine.metric == "frechet"], mine[mine.metric.isin(["psnr", "ssim"]) & (mine.status == "ok")]
        row |= {"features": distance.features.iloc[0] if len(distance) else "", "seeds": sharp.seed.nunique()}
        row |= {"n": sharp.n.iloc[0] if len(sharp) else None, "status": "; ".join(complaints) or "ok"}
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS).astype({"seeds": "Int64", "n": "Int64"})


def missing(table: pd.DataFrame) -> str:
    """Return the sentence that says that these results have no super-resolution; empty where they have."""
    if (table.source == "ours").any():
        return ""
    return "These results have no super-resolution: no data set has records of psnr or ssim."


def _rows(table: pd.DataFrame, dataset: str, style: Style) -> list[list[str]]:
    """One row of text per model. Bold is the best model; the reference is real data and does not compete."""
    part = table[table.dataset == dataset]
    competing = part[part.model != "reference"]
    lines = []
    for row in part.to_dict("records"):
        cells = [_MODELS.get(row["model"], label(row["model"]))]
        for column, (_, _, digits, more) in METRICS.items():
            values = competing[f"{column}_mean"]
            best = values.max() if more else values.min()
            mean = row[f"{column}_mean"]
            bold = row["model"] != "reference" and bool(pd.notna(mean) and mean == best)
            cells.append(spread(mean, row[f"{column}_std"], digits, style, bold))
        lines.append(cells)
    return lines


def _header(table: pd.DataFrame, dataset: str) -> list[str]:
    """The columns' names. The distance is called FID only with Inception's features."""
    part = table[table.dataset == dataset]
    inception = (part.source == "paper").all() or part.features.map(is_inception).all()
    return [name if column != "fid" or inception else "Frechet" for column, (_, name, _, _) in METRICS.items()]


def markdown(table: pd.DataFrame) -> str:
    """Return a section for the paper's rows and one for each data set of ours."""
    lines = ["# Table 2: super-resolution", ""]
    for dataset in table.dataset.unique():
        part = table[table.dataset == dataset]
        header = _header(table, dataset)
        lines += [heading(2, dataset), "", *markdown_table(["Model", *header], _rows(table, dataset, MARKDOWN))]
        said = [f"Bold is the best model: the lowest {header[0]}, the highest {', '.join(header[1:-1])} and {header[-1]}."]
        if (part.model == "reference").any():
            said.append("The reference is real data and is never bold.")
        if (part.source == "ours").all():
            said.append(f"Mean ± standard deviation over {part.seeds.max()} seed{'s' if part.seeds.max() != 1 else ''}.")
            said += [f"PSNR and SSIM compare {n} samples with their originals." for n in part.n.dropna().unique()]
            said += [f"{header[0]} is in the features of the {f}." for f in part.features.unique() if f]
        said += [f"{label(str(r.model))}: {r.status}." for r in part.itertuples() if r.status not in ("ok", "as printed")]
        lines += notes(said)
    if absent := missing(table):
        lines += [absent, ""]
    return "\n".join(lines)


def latex(table: pd.DataFrame) -> str:
    """Return a booktabs table for the paper's rows and one for each data set of ours, with footnotes for what is missing."""
    lines = []
    datasets = list(table.dataset.unique())
    for dataset in datasets:
        part = table[table.dataset == dataset]
        header = " & ".join(["Model", *_header(table, dataset)]) + r" \\"
        rows = [[tex(row[0]), *row[1:]] for row in _rows(table, dataset, LATEX)]
        said = [f"{label(str(r.model))}: {r.status}" for r in part.itertuples() if r.status not in ("ok", "as printed")]
        said += [missing(table)] if missing(table) and dataset == datasets[-1] else []
        lines += [comment(dataset), *latex_table("l" + "r" * len(METRICS), [header], rows, map(tex, said))]
    return "\n".join(lines)


def write_table2(records: Path, out: Path) -> pd.DataFrame:
    """Write ``out`` (CSV) and beside it ``.md`` and ``.tex``; return the table."""
    table = table2(records_frame(records))
    write_all(out, table, markdown(table), latex(table))
    return table
