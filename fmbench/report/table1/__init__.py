"""Table 1, written as tidy CSV, as Markdown for reading and as LaTeX in the paper's layout.

Its numbers are in :mod:`~fmbench.report.table1.numbers`, the notes below it in :mod:`~fmbench.report.table1.notes`.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from fmbench.report.frames import records_frame
from fmbench.report.layout import write_all
from fmbench.report.table1.latex import latex
from fmbench.report.table1.markdown import markdown
from fmbench.report.table1.numbers import table1


def write_table1(records_path: Path, spec: dict[str, Any], out: Path) -> pd.DataFrame:
    """Write ``out`` (CSV) and beside it ``.md`` and ``.tex``; return the table.

    Args:
        spec: what :func:`fmbench.config.specs.table1` returns.
    """
    records = records_frame(records_path)
    table = table1(records, spec)
    write_all(out, table, markdown(table, records, spec), latex(table, spec))
    return table
