"""The table of every prediction with every loss: a square of numbers for each data set and measure.

Which methods make such a grid follows from their settings in ``models.parquet``; the numbers are those of Table 1.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from fmbench.config.grid3x3 import KINDS, Cell, Grid, grids
from fmbench.config.methods import Part
from fmbench.report.frames import first_known, records_frame
from fmbench.report.layout import LATEX, MARKDOWN, NONE, Style, comment, heading, latex_table, markdown_table, notes, spread, tex
from fmbench.report.layout import write_all as write_table_files
from fmbench.report.table1.cells import ENERGY_NOTE, SHOWN, distance_name, is_points
from fmbench.report.table1.notes import ERROR_NOTE, SHARED_NOTE, SPREAD_NOTE
from fmbench.report.table1.numbers import table1
from fmbench.report.training_cost import method_of
from fmbench.store.tables import read_member

TITLE = "Every prediction with every loss"
NO_GRID = "This run has no methods that differ in nothing but what the network predicts and which error the loss measures."
ABSENT = "the config has no such method"
"""The status of a cell without a method."""
_NUMBERS = ["nll", "fid", "energy_distance", "nfe"]
COLUMNS = ["dataset", "path", "time", "predicted", "measured", "method", "seeds"]
COLUMNS += [f"{name}_{what}" for name in _NUMBERS for what in ("mean", "std", "stderr")]
COLUMNS += ["nll_unit", "fid_features", "status"]


def write_grid3x3(results: Path, out: Path) -> pd.DataFrame:
    """Write ``out`` (CSV) and beside it ``.md`` and ``.tex``, from the rows of a folder; return the table."""
    table = grid_table(results)
    write_table_files(out, table, markdown(table), latex(table))
    return table


def grid_table(results: Path) -> pd.DataFrame:
    """Return nine rows for each data set and grid of methods, with the numbers of Table 1.

    A cell without a method has a row, too. ``status`` says what is missing and why.

    Raises:
        DataError: a file is missing or damaged.
    """
    records, models = records_frame(results / "records.parquet"), read_member(results, "models.parquet").to_pandas()
    rows: list[dict[str, Any]] = []
    for dataset in models.dataset.unique():
        here = models[models.dataset == dataset]
        for grid in grids(map(method_of, here.drop_duplicates("method").config)):
            spec = {"datasets": [dataset], "methods": list(grid.methods.values()), "seeds": list(here.seed.unique())}
            numbers = {row["method"]: row for row in table1(records, spec).to_dict("records") if row["method"] in spec["methods"]}
            rows += [_row(str(dataset), grid, Cell(p, m), numbers) for p in KINDS for m in KINDS]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"seeds": "Int64"})


def _row(dataset: str, grid: Grid, cell: Cell, numbers: dict[str, dict[Any, Any]]) -> dict[str, Any]:
    method = grid.methods.get(cell)
    measured = {"seeds": 0, "status": ABSENT} if method is None else {str(k): v for k, v in numbers[method].items()}
    common = {"path": _text(grid.common.path), "time": _text(grid.common.time)}
    return measured | {"dataset": dataset, "method": method or "", **common, **cell._asdict()}


def _text(part: Part | None) -> str:
    """A part of a method with its parameters."""
    if part is None:
        return NONE
    parameters = ", ".join(f"{k} {v}" for k, v in part.parameters.items())
    return f"{part.name} ({parameters})" if parameters else part.name


def measures(part: pd.DataFrame) -> dict[str, str]:
    """Return the measures of a data set, columns of its rows without ``_mean``, and their names in print."""
    nll = f"NLL ({first_known(part.nll_unit) or 'nats'})"
    points = is_points(part)
    distance = {"energy_distance": "Energy distance (1e-4)"} if points else {"fid": distance_name(part)}
    return {"nll": nll, **distance, "nfe": "NFE"}


def parts(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the nine rows of each grid with a title: its data set, and its path and times."""
    for (dataset, path, time), part in table.groupby(["dataset", "path", "time"], sort=False):
        yield f"{dataset}, {path} path, {time} times", part


def by_cell(part: pd.DataFrame) -> dict[Cell, dict[str, Any]]:
    """Return the nine rows of a grid by cell."""
    rows = [{str(key): value for key, value in row.items()} for row in part.to_dict("records")]
    return {Cell(row["predicted"], row["measured"]): row for row in rows}


def _square(part: pd.DataFrame, measure: str, style: Style) -> list[list[str]]:
    """A row for each prediction with a number for each loss; the lowest is bold, where that means something."""
    shown, rows = SHOWN[measure], by_cell(part)
    least = part[f"{measure}_mean"].min()
    lines = []
    for predicted in KINDS:
        line = [predicted]
        for measured in KINDS:
            row = rows[Cell(predicted, measured)]
            mean, std, error = (shown.scale * row[f"{measure}_{what}"] for what in ("mean", "std", "stderr"))
            line.append(spread(mean, std, shown.digits, style, shown.bold and bool(row[f"{measure}_mean"] == least), error))
        lines.append(line)
    return lines


def _notes(part: pd.DataFrame) -> list[str]:
    seeds = int(part.seeds.max())
    over = f"{seeds} seeds" if seeds != 1 else "1 seed"
    found = ["Rows: what the network predicts. Columns: whose squared error the loss is. All else is equal."]
    found += [f"Mean ± standard deviation over {over}. Bold is the lowest mean.", ERROR_NOTE]
    found += [SPREAD_NOTE, SHARED_NOTE] if seeds > 1 else []
    found += [ENERGY_NOTE] if is_points(part) else []
    failed = part[part.status != "ok"]
    return found + [f"Predicts {row.predicted}, {row.measured} loss: {row.status}." for row in failed.itertuples()]


def _tables(table: pd.DataFrame, style: Style) -> Iterator[tuple[str, list[tuple[str, list[list[str]]]], list[str]]]:
    """Each grid: its title, its measures in print with their squares, and its notes."""
    for title, part in parts(table):
        yield title, [(name, _square(part, measure, style)) for measure, name in measures(part).items()], _notes(part)


def _header(text: Callable[[str], str] = str) -> list[str]:
    return [text("Predicts"), *(text(f"{kind} loss") for kind in KINDS)]


def markdown(table: pd.DataFrame) -> str:
    """Return a section for each data set and grid, with a square for each measure."""
    lines = [f"# {TITLE}", ""]
    if table.empty:
        lines += [NO_GRID, ""]
    for title, squares, said in _tables(table, MARKDOWN):
        lines += [heading(2, title), ""]
        for name, rows in squares:
            lines += [heading(3, name), "", *markdown_table(_header(), rows), ""]
        lines += notes(said)
    return "\n".join(lines)


def latex(table: pd.DataFrame) -> str:
    """Return a booktabs table for each data set, grid and measure."""
    lines = []
    for title, squares, said in _tables(table, LATEX):
        for name, rows in squares:
            header = " & ".join(_header(tex)) + r" \\"
            last = name == squares[-1][0]
            lines.append(comment(f"{title}: {name}"))
            lines += latex_table("l" + "r" * len(KINDS), [header], rows, map(tex, said) if last else ())
    return "\n".join(lines)
