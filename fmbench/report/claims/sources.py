"""The parquet files that the tests of claims read."""

from pathlib import Path

from fmbench.errors import DataError
from fmbench.report.claims.claim import Sources
from fmbench.store.stale import stale_files
from fmbench.store.tables import read_member

FILES = {
    "records": "records.parquet",
    "learning_curve": "learning_curve.parquet",
    "few_step": "few_step.parquet",
    "half_way": "half_way.parquet",
    "dequantisation": "dequantisation.parquet",
    "fields": "theory/fields.parquet",
    "trajectories": "theory/trajectories.parquet",
    "identities": "theory/identities.parquet",
}
"""The sources by name, and their files below the results folder. Any may be missing, but not all."""


def read_sources(results: Path) -> Sources:
    """Every file of :data:`FILES` that a results folder has, without stale files of another config.

    Raises:
        DataError: the folder has none of them, or one cannot be read.
    """
    found, stale = {}, stale_files(results)
    for name, file in FILES.items():
        if (results / file).exists() and file not in stale:
            found[name] = read_member(results, file).to_pandas()
    if not found:
        raise DataError(f"{results} has none of {', '.join(FILES.values())}: give the folder of a finished run")
    return found


def missing_source(name: str) -> str:
    """A sentence on the file that is missing, with the command that makes it."""
    return f"These results have no {FILES[name]}; run `snakemake --cores all results/{FILES[name]}` to make it"
