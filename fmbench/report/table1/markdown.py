"""Table 1 as Markdown: per data set the table, its notes, and a second table of further measures."""

from typing import Any

import pandas as pd

from fmbench.report import layout
from fmbench.report.frames import first_known
from fmbench.report.layout import MARKDOWN, block, heading, markdown_table, paper
from fmbench.report.style import label
from fmbench.report.table1.cells import cells, distance_name, is_points
from fmbench.report.table1.further import further_measures, further_notes, further_rows
from fmbench.report.table1.notes import notes


def markdown(table: pd.DataFrame, records: pd.DataFrame, spec: dict[str, Any]) -> str:
    """Return a section per data set, with the paper's numbers in brackets. Notes on all data sets come once, at the end."""
    parts = {dataset: (table[table.dataset == dataset], records[records.dataset == dataset]) for dataset in spec["datasets"]}
    below = {dataset: notes(part, mine, spec) for dataset, (part, mine) in parts.items()}
    common = layout.common(list(below.values()))
    lines = ["# Table 1", ""]
    for dataset, (part, mine) in parts.items():
        columns = {"nll": f"NLL ({first_known(part.nll_unit) or 'nats'})", "fid": distance_name(part), "nfe": "NFE"}
        if is_points(part):
            distances = {"energy_distance": "Energy distance (1e-4)", "off_support": "Off support"}
            columns = {"nll": columns["nll"], **distances, "nfe": "NFE"}
        header = ["Method", *columns.values(), "Sample std", "Status"]
        lines += [heading(2, dataset), "", *markdown_table(header, cells(part, spec["oracles"], MARKDOWN, list(columns)))]
        lines += layout.notes(text for text in below[dataset] if text not in common)
        if measures := further_measures(mine):
            header = ["Method", *(measure.heading for measure in measures)]
            lines += [heading(3, f"Further measures of {dataset}"), ""]
            lines += markdown_table(header, further_rows(measures, spec["methods"]))
            lines += layout.notes(further_notes(mine))
    if common:
        lines += [heading(2, "On every data set"), *layout.notes(common)]
    if absent := _not_run(spec):
        lines += [block(f"In the paper's Table 1 but not in this run: {absent}."), ""]
    return "\n".join(lines)


def _not_run(spec: dict[str, Any]) -> str:
    """The data sets, and those of the paper's five methods, that this run leaves out."""
    printed = paper("table1")
    datasets = [d for d in printed.dataset.unique() if d not in spec["datasets"]]
    five = printed[printed.dataset == "cifar10"].method
    return "; ".join([*datasets, *(label(str(m)) for m in five if m not in spec["methods"])])
