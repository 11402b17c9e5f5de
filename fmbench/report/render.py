"""Every table and figure that a results folder's parquet files allow, drawn for somebody who trained none of it."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from fmbench.config import specs
from fmbench.config.config import Config
from fmbench.config.names import FIGURES
from fmbench.errors import DataError
from fmbench.report.claims import write_claims
from fmbench.report.figures import write_figure
from fmbench.report.table1 import write_table1
from fmbench.report.table2 import write_table2
from fmbench.report.table3 import write_table3
from fmbench.report.table4 import write_table4
from fmbench.store.benchmark import config_of, stale_files
from fmbench.store.share import draws_files


class Rendered(NamedTuple):
    """One item: its file below the output folder, and why it is not there, or nothing."""

    file: str
    reason: str


def _table1(results: Path, config: Config, out: Path) -> None:
    write_table1(results / "records.parquet", specs.table1(config), out)


def _table2(results: Path, config: Config, out: Path) -> None:
    write_table2(results / "records.parquet", out)


def _table3(results: Path, config: Config, out: Path) -> None:
    write_table3(results / "settings.parquet", out)


def _claims(results: Path, config: Config, out: Path) -> None:
    write_claims(results, out)


def _table4(results: Path, config: Config, out: Path) -> None:
    files = draws_files(results, config)
    if not files:
        raise DataError("dequantisation.parquet is missing")
    write_table4(files, specs.table4(config), out)


def _equivalence(results: Path, config: Config, out: Path) -> None:
    if not (results / "equivalence.csv").exists():
        raise DataError("equivalence.csv is missing")
    out.parent.mkdir(parents=True, exist_ok=True)
    if (results / "equivalence.csv").resolve() != out.resolve():
        shutil.copyfile(results / "equivalence.csv", out)


TABLES: dict[str, tuple[tuple[str, ...], Callable[[Path, Config, Path], None]]] = {
    "table1": (("records.parquet",), _table1),
    "table2": (("records.parquet",), _table2),
    "table3": (("settings.parquet",), _table3),
    "table4": ((), _table4),
    "equivalence": ((), _equivalence),
    "claims": (("records.parquet",), _claims),
}
"""Tables: the files below the results folder that each is made from, and what writes it from (results, config, CSV to write)."""


def render(
    results: Path, out: Path, config: Config | None = None, formats: Sequence[str] = ("png", "svg", "pdf")
) -> list[Rendered]:
    """Write tables into ``out`` and figures, each with the data it shows, into ``out/figures``.

    Args:
        results: a results folder, whoever made it.
        config: whose tables these are; by default that of the folder's ``benchmark.json``.
        formats: of the figures.

    Returns:
        Every table and figure there is, with the reason for each that could not be made.
    """
    done = tables(results, out, list(TABLES), config)
    for name, needed in FIGURES.items():
        reason = _lacking(results, needed)
        if not reason:
            try:
                outputs = [out / "figures" / f"{name}.{kind}" for kind in formats]
                write_figure(name, results, outputs, out / "figures" / f"{name}.parquet")
            except DataError as error:
                reason = str(error)
        done.append(Rendered(f"figures/{name}.{formats[0]}", reason))
    if all(item.reason for item in done):
        reasons = "; ".join(f"{item.file}: {item.reason}" for item in done)
        raise DataError(f"nothing can be rendered from {results}: {reasons}")
    return done


def tables(results: Path, out: Path, names: Sequence[str], config: Config | None = None) -> list[Rendered]:
    """Write these of :data:`TABLES` into ``out``, as :func:`render` does."""
    done = []
    for name in dict.fromkeys(names):
        needed, write = TABLES[name]
        reason = _lacking(results, needed)
        if not reason:
            try:
                write(results, config or config_of(results), out / f"{name}.csv")
            except DataError as error:
                reason = str(error)
        done.append(Rendered(f"{name}.csv", reason))
    return done


def made_anew(results: Path) -> dict[str, bytes | None]:
    """The content of every form of every table, from the folder's rows; None for one that cannot be made.

    Those that lie there may be from before the rows were made anew.
    """
    with tempfile.TemporaryDirectory() as folder:
        tables(results, Path(folder), list(TABLES))
        made = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    return {f"{name}.{kind}": made.get(f"{name}.{kind}") for name in TABLES for kind in ("csv", "md", "tex")}


def _lacking(results: Path, needed: Sequence[str]) -> str:
    others = stale_files(results)
    reasons = []
    for names, what in (
        ([name for name in needed if not (results / name).exists()], "missing"),
        ([name for name in needed if name in others], "of another config: run snakemake where the results were made"),
    ):
        if names:
            reasons.append(f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} {what}")
    return "; ".join(reasons)
