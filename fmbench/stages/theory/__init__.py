"""Stage ``theory``: tables that follow from the definitions alone, without data and without training.

They are drawn as figures and written as ``equivalence.csv``. Each module makes the rows of its tables;
:data:`fmbench.store.tables.THEORY` has their columns.
"""

from pathlib import Path
from typing import Any

from fmbench.stages.theory.conditional_fields import field_rows, trajectory_rows
from fmbench.stages.theory.densities import density_rows
from fmbench.stages.theory.equivalence import equivalence_rows
from fmbench.stages.theory.identities import identity_rows
from fmbench.stages.theory.noise_levels import noise_level_rows
from fmbench.stages.theory.samplers import sampler_rows
from fmbench.store.equivalence import equivalence_csv
from fmbench.store.files import write_text
from fmbench.store.parquet import table, write_table
from fmbench.store.tables import THEORY
from fmbench.system.progress import Console


def run(spec: dict[str, Any], out: Path, summary: Path, console: Console) -> None:
    """Write all tables as parquet, and the equivalences also as CSV.

    Args:
        out: the folder of ``noise_levels``, ``fields``, ``trajectories``, ``densities``, ``samplers``, ``equivalence`` and
            ``identities``.
        summary: the CSV file.
    """
    equivalence = list(equivalence_rows())
    tables = {
        "noise_levels": list(noise_level_rows(spec["methods"])),
        "fields": list(field_rows()),
        "trajectories": list(trajectory_rows()),
        "densities": list(density_rows()),
        "samplers": list(sampler_rows()),
        "equivalence": equivalence,
        "identities": list(identity_rows()),
    }
    for name, rows in tables.items():
        write_table(out / f"{name}.parquet", table(rows, THEORY[name]))
    write_text(summary, equivalence_csv(table(equivalence, THEORY["equivalence"])))
    unexpected = [row for row in equivalence if row["expected"] != row["found"]]
    counts = ", ".join(f"{name} {len(rows)}" for name, rows in tables.items())
    console.say(f"rows: {counts}; {len(unexpected)} equivalences not as expected -> {out}, {summary}")
