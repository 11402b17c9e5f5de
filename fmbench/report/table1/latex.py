"""Table 1 as LaTeX, in the paper's layout."""

from typing import Any

import pandas as pd

from fmbench.report.frames import first_known
from fmbench.report.layout import LATEX, NONE, comment, latex_table, tex
from fmbench.report.style import label
from fmbench.report.table1.cells import ENERGY_NOTE, cells, distance_name, is_points, method_name
from fmbench.report.table1.notes import override_notes
from fmbench.report.table1.numbers import PAPER_ONLY, PUBLISHED


def latex(table: pd.DataFrame, spec: dict[str, Any]) -> str:
    """Return a booktabs table: one row per method, three columns per data set.

    Published methods stand below a rule. Every status that is not ``ok`` is a footnote.
    """
    datasets = spec["datasets"]
    parts = {d: table[table.dataset == d] for d in datasets}
    points = [d for d in datasets if is_points(parts[d])]
    bodies = {}
    for d in datasets:
        columns = ["nll", "energy_distance" if d in points else "fid", "nfe"]
        lines = cells(parts[d], spec["oracles"], LATEX, columns)
        bodies[d] = {method: line[1:4] for method, line in zip(parts[d].method, lines, strict=True)}
    distances = {d: r"Energy ($10^{-4}$)" if d in points else distance_name(parts[d]) for d in datasets}
    header = [
        " & ".join(["", *(rf"\multicolumn{{3}}{{c}}{{{tex(d)}}}" for d in datasets)]) + r" \\",
        "".join(rf"\cmidrule(lr){{{2 + 3 * i}-{4 + 3 * i}}}" for i in range(len(datasets))),
        " & ".join(["Method", *(f"NLL & {distances[d]} & NFE" for d in datasets)]) + r" \\",
    ]
    published = [m for m in PUBLISHED if ((table.method == m) & (table.status == PAPER_ONLY)).any()]
    rows: list[list[str] | None] = [
        None if method is None else [tex(method_name(method)), *(c for d in datasets for c in bodies[d].get(method, [NONE] * 3))]
        for method in [*spec["methods"], *([None, *published] if published else [])]
    ]
    bad = table[~table.status.isin(["ok", PAPER_ONLY])]
    footnotes = [tex(f"{row.dataset}, {label(str(row.method))}: {row.status}") for row in bad.itertuples()]
    return _remarks(parts, points, spec) + "\n".join(latex_table("l" + "rrr" * len(datasets), header, rows, footnotes))


def _remarks(parts: dict[str, pd.DataFrame], points: list[str], spec: dict[str, Any]) -> str:
    """Comment lines above the table: units, features and what the columns hold."""
    units = ", ".join(f"{d}: {first_known(part.nll_unit)}" for d, part in parts.items())
    features = ", ".join(f"{d}: {first_known(part.fid_features) or 'none'}" for d, part in parts.items())
    remarks = [f"NLL in {units}. Features of the distance: {features}. In brackets: the paper."]
    if points:
        remarks.append(f"{', '.join(points)}: the column after NLL is the energy distance in units of 1e-4.")
        remarks.append(ENERGY_NOTE)
    if len(points) < len(parts):
        remarks.append("NLL of images is for K = 1 dequantisation draw; the paper's is for its largest K.")
    return "".join(f"{comment(line)}\n" for line in [*remarks, *override_notes(spec)])
