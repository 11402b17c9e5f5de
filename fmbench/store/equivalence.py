"""``equivalence.csv``: the table ``theory/equivalence.parquet`` as CSV, which reports make again."""

import csv
import io

import pyarrow as pa


def equivalence_csv(table: pa.Table) -> str:
    """The table as CSV, numbers with six significant digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.column_names)
    for row in table.to_pylist():
        writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in row.values()])
    return text.getvalue()
