"""Table 2: super-resolution, the paper's numbers and those of any super-resolution rows in the records."""

from pathlib import Path

import pandas as pd

from fmbench.report.layout import (
    LATEX,
    MARKDOWN,
    Style,
    latex_table,
    markdown_table,
    notes,
    paper,
    spread,
    tex,
    to_csv,
    write_all,
)
from fmbench.report.style import label
from fmbench.report.table1 import records_frame

PAPER = "paper: ImageNet 64 to 256"
METRICS = {
    "fid": ("frechet", "FID", 1, False),
    "inception_score": ("inception_score", "IS", 1, True),
    "psnr": ("psnr", "PSNR", 1, True),
    "ssim": ("ssim", "SSIM", 3, True),
}
"""Columns: the records' metric, the name in print, digits, and whether more is better."""
COLUMNS = [
    "source",
    "dataset",
    "model",
    "seeds",
    *(f"{column}_{what}" for column in METRICS for what in ("mean", "std")),
    "features",
    "n",
    "status",
]
_MODELS = {"reference": "Reference", "regression": "Regression", "sr3": "SR3"}


def table2(records: pd.DataFrame) -> pd.DataFrame:
    """The paper's rows, then one for each data set and method of ours.

    A data set is one of super-resolution if it has rows of psnr or ssim, which compare a sample with its original: nothing
    else here measures them. Means and standard deviations are over seeds.
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
    """What is missing of ours; empty if nothing is."""
    if (table.source == "ours").any():
        return ""
    return "Ours is not run: no data set of these results is one of super-resolution (none has rows of psnr or ssim)."


def _rows(table: pd.DataFrame, dataset: str, style: Style) -> list[list[str]]:
    """Rows of text; bold is the best of what was modelled, the reference being the data themselves."""
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
    """A distance on other features than Inception's is not called FID."""
    part = table[table.dataset == dataset]
    inception = (part.source == "paper").all() or part.features.astype(str).str.startswith("pytorch-fid InceptionV3(").all()
    return [name if column != "fid" or inception else "Frechet" for column, (_, name, _, _) in METRICS.items()]


def markdown(table: pd.DataFrame) -> str:
    """A section for the paper's rows and one for each data set of ours."""
    lines = ["# Table 2: super-resolution", ""]
    for dataset in table.dataset.unique():
        part = table[table.dataset == dataset]
        lines += [f"## {dataset}", "", *markdown_table(["Model", *_header(table, dataset)], _rows(table, dataset, MARKDOWN))]
        said = ["Bold is the best of the models: the lowest in the first column, the highest in the others."]
        if (part.source == "ours").all():
            said.append(f"Mean ± standard deviation over {part.seeds.max()} seed{'s' if part.seeds.max() != 1 else ''}.")
            said += [f"Over {n} pairs." for n in part.n.dropna().unique()]
            said += [f"Features of the distance: {f}." for f in part.features.unique() if f]
        said += [f"{label(str(r.model))}: {r.status}." for r in part.itertuples() if r.status not in ("ok", "as printed")]
        lines += notes(said)
    if absent := missing(table):
        lines += [absent, ""]
    return "\n".join(lines)


def latex(table: pd.DataFrame) -> str:
    """A booktabs table for the paper's rows and for each data set of ours; what is missing is said below."""
    lines = []
    datasets = list(table.dataset.unique())
    for dataset in datasets:
        part = table[table.dataset == dataset]
        header = " & ".join(["Model", *_header(table, dataset)]) + r" \\"
        rows = [[tex(row[0]), *row[1:]] for row in _rows(table, dataset, LATEX)]
        said = [f"{label(str(r.model))}: {r.status}" for r in part.itertuples() if r.status not in ("ok", "as printed")]
        said += [missing(table)] if missing(table) and dataset == datasets[-1] else []
        lines += [f"% {dataset}", *latex_table("l" + "r" * len(METRICS), [header], rows, map(tex, said))]
    return "\n".join(lines)


def write_table2(records: Path, out: Path) -> pd.DataFrame:
    """Write ``out`` (CSV) and beside it ``.md`` and ``.tex``."""
    table = table2(records_frame(records))
    write_all(out, to_csv(table), markdown(table), latex(table))
    return table
