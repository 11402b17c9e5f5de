"""The comparison of a results folder with the reference, and its sentence."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from fmbench.config.installation import REFERENCE
from fmbench.errors import DataError
from fmbench.report.compare import all_records
from fmbench.report.layout import to_csv
from fmbench.report.reproduction.settings import Settings
from fmbench.report.reproduction.verdicts import AGREES, COLUMNS, LEVEL, NOT_COMPARED, OFF, compare_runs
from fmbench.store.benchmark import FILE, read_benchmark
from fmbench.store.files import write_text
from fmbench.store.merge_tables import OF_DATA
from fmbench.store.retrained import retrained
from fmbench.store.usable import usable


@dataclass(frozen=True)
class Summary:
    """The comparison of a run with the reference.

    Attributes:
        sentence: how many numbers agree, or why nothing was compared.
        table: a row for each number, as in ``reproduction.csv``.
        off: a line for each number that is off, in plain text.
        verdicts: the reference's verdict on each claim, by the claim's number; empty if nothing was compared.
        seeds: the number of the reference's seeds in words, such as "8 seeds".
    """

    sentence: str
    table: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COLUMNS))
    off: tuple[str, ...] = ()
    verdicts: Mapping[int, str] = field(default_factory=dict)
    seeds: str = ""


def summary(results: Path, reference: Path = REFERENCE) -> Summary:
    """Return the comparison of a results folder with the reference. If they cannot be compared, the sentence says why.

    Raises:
        DataError: the results folder has no records or no description, or one of its files is damaged.
    """
    run = read_benchmark(results)
    if not (reference / FILE).exists():
        return Summary("Not compared with the reference: it is in the repository of fmbench, not in the package")
    try:
        described = read_benchmark(reference)
        with usable(str(reference)):
            settings = Settings(described, run)
            if not settings.any():
                return Summary("Not compared with the reference: no number has the settings of the reference")
            rows, verdicts = all_records(reference), reference_verdicts(reference)
    except DataError as error:
        return Summary(f"Not compared with the reference: {error}")
    with usable(str(results)):
        table, joint = compare_runs(rows, with_one_classifier(rows, all_records(results)), settings)
    off = tuple(map(_line, table[table.verdict == OFF].to_dict("records")))
    count = len(described["config"]["seeds"])
    seeds = f"{count} seed{'s' if count > 1 else ''}"
    return Summary(_sentence(table, joint, seeds), table, off, verdicts, seeds)


def with_one_classifier(reference: pd.DataFrame, run: pd.DataFrame) -> pd.DataFrame:
    """The run's records with the reference's name of each classifier that is the same up to rounding."""
    names = retrained(*(rows[rows.stage == OF_DATA].to_dict("records") for rows in (reference, run)))
    return run.assign(features=run.features.replace(names)) if names else run


def write_reproduction(results: Path, out: Path | None, reference: Path = REFERENCE) -> Summary:
    """Write ``reproduction.csv`` to ``out``, if that is a path and has another content, and return the summary.

    Raises:
        DataError: as in :func:`summary`.
    """
    found = summary(results, reference)
    text = to_csv(found.table)
    # Other jobs depend on the file's time.
    if out is not None and not (out.exists() and out.read_text(encoding="utf-8") == text):
        write_text(out, text)
    return found


def _sentence(table: pd.DataFrame, joint: float, seeds: str) -> str:
    """The comparison in one sentence.

    Numbers that both have and that cannot be compared are counted, but for times, which never can.
    """
    compared = table[table.verdict != NOT_COMPARED]
    if compared.empty:
        return f"Not compared with the reference: {table.why.mode().iloc[0]}"
    agree, count = int((compared.verdict == AGREES).sum()), len(compared)
    text = f"{agree} of {count} numbers agree with the reference ({seeds})"
    if agree < count:
        text += f"; {count - agree} {'is' if count - agree == 1 else 'are'} off"
    if joint <= LEVEL:
        text += f"; together they differ more than seeds do (p = {joint:.2g})"
    in_both = (table.reference_seeds > 0) & (table.run_seeds > 0) & (table.unit != "s")
    if left_out := int(((table.verdict == NOT_COMPARED) & in_both).sum()):
        text += f"; {left_out} {'is' if left_out == 1 else 'are'} not compared (reproduction.csv says why)"
    return text


def _line(row: dict) -> str:
    """A number that is off, in words."""
    at = f" with {row['solver']}" if row["solver"] else ""
    at += "" if pd.isna(row["budget"]) else f" at NFE {row['budget']:g}"
    at += "" if pd.isna(row["step"]) else f" at iteration {row['step']:g}"
    at += "" if pd.isna(row["draws"]) else f" at K = {row['draws']:g}"
    what = f"{row['dataset']}, {row['method']}: {row['metric']}{at}"
    if math.isnan(row["low"]):
        return f"{what}: {row['why']}"
    return f"{what} is {row['run_mean']:.4g} {row['unit']}, not in [{row['low']:.4g}, {row['high']:.4g}]"


def reference_verdicts(reference: Path = REFERENCE) -> dict[int, str]:
    """Return the reference's verdict on each claim as a whole, by the claim's number; empty without its ``claims.csv``.

    Raises:
        DataError: the file is damaged.
    """
    path = reference / "claims.csv"
    if not path.exists():
        return {}
    with usable(str(path)):
        lines = pd.read_csv(path)
        overall = lines[lines.about == "overall"]
        return {int(claim): str(verdict) for claim, verdict in zip(overall.claim, overall.verdict, strict=True)}
