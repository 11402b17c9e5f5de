"""The table of solvers: for each data set, method and number of evaluations, the best solver and time grid.

By sample quality (few-step samples) and by error (the sweep). :mod:`~fmbench.report.solvers.choice` says how the best is found,
:mod:`~fmbench.report.solvers.numbers` which rows compete.
"""

from pathlib import Path

import pandas as pd

from fmbench.report.frames import records_frame
from fmbench.report.layout import write_all
from fmbench.report.solvers.numbers import solvers
from fmbench.report.solvers.text import latex, markdown


def write_solvers(records: Path, few_step: Path, out: Path) -> pd.DataFrame:
    """Write ``out`` (CSV) and beside it ``.md`` and ``.tex``; return the table.

    Args:
        records, few_step: ``records.parquet`` and ``few_step.parquet`` of a run.
    """
    table = solvers(records_frame(records), records_frame(few_step))
    write_all(out, table, markdown(table), latex(table))
    return table
