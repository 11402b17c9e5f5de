"""Table 2: super-resolution, written as tidy CSV, as Markdown for reading and as LaTeX.

Its numbers are in :mod:`~fmbench.report.table2.numbers`, the notes below it in :mod:`~fmbench.report.table2.notes`.
"""

from pathlib import Path

import pandas as pd

from fmbench.report.frames import records_frame
from fmbench.report.layout import write_all
from fmbench.report.table2.numbers import table2
from fmbench.report.table2.text import latex, markdown


def write_table2(records_path: Path, out: Path) -> pd.DataFrame:
    """Write ``out`` (CSV) and beside it ``.md`` and ``.tex``; return the table."""
    records = records_frame(records_path)
    table = table2(records)
    write_all(out, table, markdown(table, records), latex(table))
    return table
