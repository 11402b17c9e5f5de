"""Quality and cost of every trained method: what it reaches, with how many evaluations, and what its training took.

The numbers are those of Table 1, and those of samples by one evaluation, of straightness and of training, with an interval over
seeds. An oracle is not trained, so it has no row.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fmbench.report.claims.rows import main_distance, metric_name
from fmbench.report.claims.student import student
from fmbench.report.claims.verdicts import LEVEL
from fmbench.report.frames import first_known, of_metric, records_frame
from fmbench.report.layout import LATEX, MARKDOWN, Style, comment, heading, latex_table, markdown_table, notes, spread, tex
from fmbench.report.layout import write_all as write_table_files
from fmbench.report.solvers.numbers import by_seed
from fmbench.report.style import DISTANCES, label, solver_label
from fmbench.report.table1.cells import ENERGY_NOTE, ENERGY_SCALE
from fmbench.report.table1.numbers import table1
from fmbench.report.training_cost import training_costs

TITLE = "Quality and cost"
ADAPTIVE = "dopri5"
ENERGY = DISTANCES["energy_distance"]
_MEASURES = ("quality", "one_step", "nll", "nfe", "straightness", "passes")
COLUMNS = ["dataset", "method", "seeds", "metric", *(f"{m}_{what}" for m in _MEASURES for what in ("mean", "low", "high"))]
COLUMNS += ["quality_n", "one_step_solver", "one_step_n", "nll_unit", "status"]


def write_pareto(results: Path, out: Path) -> pd.DataFrame:
    """Write ``out`` (CSV) and beside it ``.md`` and ``.tex``, from the files of a folder; return the table."""
    table = pareto_table(results)
    write_table_files(out, table, markdown(table), latex(table))
    return table


def pareto_table(results: Path) -> pd.DataFrame:
    """Return a row for each data set and trained method: means over seeds with Student's interval from ``low`` to ``high``.

    ``quality`` is the primary distance of Table 1's samples, ``one_step`` that of samples by one evaluation, of the best solver.
    ``passes`` are the cost of training (:func:`training_costs`), with that of a teacher and its pairs.

    Raises:
        DataError: a file is missing or damaged.
    """
    records, few_step = records_frame(results / "records.parquet"), records_frame(results / "few_step.parquet")
    costs = training_costs(results)
    costs["passes"] += costs["before_passes"]
    rows = []
    for (dataset, method), spent in costs.groupby(["dataset", "method"], sort=False):
        mine = records[(records.dataset == dataset) & (records.method == method)]
        few = few_step[(few_step.dataset == dataset) & (few_step.method == method)]
        spec = {"datasets": [dataset], "methods": [method], "seeds": list(spent.seed)}
        printed = table1(mine, spec).iloc[0]
        row: dict[str, Any] = {"dataset": dataset, "method": method, "seeds": printed.seeds, "status": printed.status}
        quality = mine[mine.metric == main_distance(mine[mine.stage == "sample_quality"])]
        row |= {"metric": metric_name(quality, first_known(quality.metric) or ""), "nll_unit": printed.nll_unit}
        first: dict[str, Any] = next((f for f in by_budget(few) if f["at"] == 1), {"values": [], "solver": "", "n": None})
        row |= {"quality_n": first_known(quality.n), "one_step_solver": first["solver"], "one_step_n": first["n"]}
        values = {"quality": quality.value, "one_step": first["values"], "passes": spent.passes}
        values |= {name: of_metric(mine, name).value for name in ("nll", "nfe", "straightness")}
        for name, numbers in values.items():
            row |= {f"{name}_{what}": value for what, value in interval(numbers).items()}
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(("seeds", "quality_n", "one_step_n"), "Int64"))


def trained(results: Path) -> list[tuple[str, str]]:
    """Return data set and name of each trained method, in the order of the models."""
    return list(training_costs(results)[["dataset", "method"]].drop_duplicates().itertuples(index=False, name=None))


def interval(values: Any) -> dict[str, float]:
    """Return ``mean``, ``low`` and ``high``: the mean over seeds and Student's interval; NaN where there is none."""
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    low, high = student(known)
    return {"mean": float(known.mean()) if len(known) else np.nan, "low": low, "high": high}


def by_budget(few_step: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the best solver at each number of evaluations of one method, and the adaptive one at its mean number.

    The best has the lowest mean of those with a number at every seed. Each has ``at`` (NFE), ``solver``, ``values`` and ``n``.
    """
    distances = few_step[few_step.metric == main_distance(few_step)]
    fixed, adaptive = distances[distances.solver != ADAPTIVE], distances[distances.solver == ADAPTIVE]
    for nfe, here in fixed.groupby("nfe"):
        values = by_seed(here)
        if values.size:
            yield {"at": nfe, "solver": values.columns[0], "values": values.iloc[:, 0].tolist(), "n": first_known(here.n)}
    solved = adaptive[adaptive.status == "ok"]
    if len(solved):
        yield {"at": solved.nfe.mean(), "solver": ADAPTIVE, "values": solved.value.tolist(), "n": first_known(solved.n)}


def _columns(part: pd.DataFrame) -> dict[str, tuple[str, float, int, bool]]:
    """The columns of a data set in print: heading, factor, digits, and whether the lowest mean is bold."""
    name, points = first_known(part.metric) or "Distance", ENERGY in set(part.metric)
    scale, digits, unit = (ENERGY_SCALE, 1, " (1e-4)") if points else (1.0, 2, "")
    name = name[0].upper() + name[1:]
    shown = {
        "quality": (f"{name}{unit}", scale, digits, not points),
        "one_step": (f"By one evaluation{unit}", scale, digits, True),
        "nll": (f"NLL ({first_known(part.nll_unit) or 'nats'})", 1.0, 3, True),
        "nfe": ("NFE", 1.0, 1, True),
        "straightness": ("Straightness", 1.0, 3, True),
        "passes": ("Training passes (1e6)", 1e-6, 3, False),
    }
    return {name: column for name, column in shown.items() if part[f"{name}_mean"].notna().any()}


def _cells(part: pd.DataFrame, style: Style) -> list[list[str]]:
    """One row of text per method: its name, its numbers and its status."""
    lines = []
    for row in part.to_dict("records"):
        line = [label(row["method"])]
        for name, (_, scale, digits, bold) in _columns(part).items():
            mean, half = row[f"{name}_mean"], (row[f"{name}_high"] - row[f"{name}_low"]) / 2
            best = bold and bool(mean == part[f"{name}_mean"].min())
            line.append(spread(scale * mean, scale * half if half else None, digits, style, best))
        lines.append([*line, row["status"]])
    return lines


def _notes(part: pd.DataFrame) -> list[str]:
    seeds, columns = int(part.seeds.max()), _columns(part)
    over = f"{seeds} seeds" if seeds != 1 else "1 seed"
    found = [f"Mean over {over} ± half of Student's {LEVEL:.0%} interval of the mean. Bold is the lowest mean."]
    if "quality" in columns:
        found.append(f"{columns['quality'][0]}: of {first_known(part.quality_n)} samples of the adaptive solver.")
        if not columns["quality"][-1]:
            found.append(ENERGY_NOTE.replace("No energy distance", "No energy distance of the adaptive solver"))
        else:
            found.append("A Frechet distance falls with the number of samples, so it compares only at equal numbers.")
    if "one_step" in columns:
        solvers: dict[str, list[str]] = {}
        for row in part[part.one_step_solver != ""].itertuples():
            solvers.setdefault(solver_label(str(row.one_step_solver)), []).append(label(str(row.method)))
        by = "; ".join(f"{solver}: {', '.join(methods)}" for solver, methods in solvers.items())
        n = first_known(part.one_step_n)
        found.append(f"By one evaluation: {n} samples of the solver with the lowest mean ({by}).")
    if "straightness" in columns:
        found.append("Straightness: squared deviation of the velocity from that of a straight path; 0 is straight.")
    found.append("Training passes: forward passes of the network, each for one sample. A backward pass counts as two.")
    found.append("Training of a method with a teacher includes the teacher's training and the evaluations of its pairs.")
    return found


def markdown(table: pd.DataFrame) -> str:
    """Return a section for each data set."""
    lines = [f"# {TITLE}", ""]
    for dataset, part in table.groupby("dataset", sort=False):
        header = ["Method", *(column[0] for column in _columns(part).values()), "Status"]
        lines += [heading(2, str(dataset)), "", *markdown_table(header, _cells(part, MARKDOWN)), *notes(_notes(part))]
    return "\n".join(lines)


def latex(table: pd.DataFrame) -> str:
    """Return a booktabs table for each data set. A status that is not ``ok`` is a footnote."""
    lines = []
    for dataset, part in table.groupby("dataset", sort=False):
        columns = _columns(part)
        header = " & ".join(["Method", *(tex(column[0]) for column in columns.values())]) + r" \\"
        rows = [[tex(name), *numbers] for name, *numbers, _ in _cells(part, LATEX)]
        bad = [f"{label(str(row.method))}: {row.status}" for row in part[part.status != "ok"].itertuples()]
        lines.append(comment(f"{TITLE}: {dataset}"))
        lines += latex_table("l" + "r" * len(columns), [header], rows, map(tex, [*_notes(part), *bad]))
    return "\n".join(lines)
