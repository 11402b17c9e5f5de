"""Every table, figure and animation that the parquet files of a results folder allow, without training anything."""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from fmbench.config import specs
from fmbench.config.config import Config
from fmbench.config.names import FIGURES
from fmbench.config.outputs import absent
from fmbench.errors import DataError
from fmbench.report.claims import write_claims
from fmbench.report.figures import write_figure
from fmbench.report.figures.animation import NAME as ANIMATION
from fmbench.report.figures.animation import write_animation
from fmbench.report.grid3x3 import write_grid3x3
from fmbench.report.pareto import write_pareto
from fmbench.report.solvers import write_solvers
from fmbench.report.table1 import write_table1
from fmbench.report.table2 import write_table2
from fmbench.report.table3 import write_table3
from fmbench.report.table4 import write_table4
from fmbench.store.benchmark import config_of
from fmbench.store.equivalence import equivalence_csv
from fmbench.store.files import write_text
from fmbench.store.result_set import table4_files
from fmbench.store.stale import STALE, stale_files
from fmbench.store.tables import read_member
from fmbench.store.usable import usable


class Rendered(NamedTuple):
    """A table, figure or animation: its file below the output folder, and why it could not be made (empty if it was)."""

    file: str
    reason: str


class Made(NamedTuple):
    """A table in memory: its files by name (CSV, Markdown, LaTeX), or why it could not be made."""

    files: dict[str, bytes]
    reason: str


def _table4(results: Path, config: Config, out: Path) -> None:
    files = table4_files(results, config)
    if not files:
        raise DataError("dequantisation.parquet is missing")
    write_table4(files, specs.table4(config), out)


def _equivalence(results: Path, config: Config, out: Path) -> None:
    write_text(out, equivalence_csv(read_member(results, "theory/equivalence.parquet")))


TABLES: dict[str, tuple[tuple[str, ...], Callable[[Path, Config, Path], object]]] = {
    "table1": (("records.parquet",), lambda r, config, out: write_table1(r / "records.parquet", specs.table1(config), out)),
    "table2": (("records.parquet",), lambda r, config, out: write_table2(r / "records.parquet", out)),
    "table3": (("settings.parquet",), lambda r, config, out: write_table3(r / "settings.parquet", out)),
    "table4": ((), _table4),
    "solvers": (
        ("records.parquet", "few_step.parquet"),
        lambda r, config, out: write_solvers(r / "records.parquet", r / "few_step.parquet", out),
    ),
    "pareto": (("records.parquet", "models.parquet", "few_step.parquet"), lambda r, config, out: write_pareto(r, out)),
    "grid3x3": (("records.parquet", "models.parquet"), lambda r, config, out: write_grid3x3(r, out)),
    "equivalence": (("theory/equivalence.parquet",), _equivalence),
    "claims": (("records.parquet",), lambda r, config, out: write_claims(r, out)),
}
"""By table: the files of the results folder that it needs, and the function (results, config, CSV to write) that writes it."""


def render(
    results: Path, out: Path, config: Config | None = None, formats: Sequence[str] = ("png", "svg", "pdf")
) -> list[Rendered]:
    """Write tables into ``out``, and figures, each with the data it shows, and the animation into ``out/figures``.

    Args:
        results: a results folder.
        config: the config of the tables; by default the one in the folder's ``benchmark.json``.
        formats: the file formats of figures.

    Returns:
        Every table, figure and animation of the config, with the reason for each that could not be made.

    Raises:
        DataError: nothing could be made.
    """
    unwanted = _absent(results, config)
    done = [Rendered(f"{name}.csv", _write(name, results, out, config)) for name in TABLES if name not in unwanted]
    for name, needed in FIGURES.items():
        if name in unwanted:
            continue
        outputs = [out / "figures" / f"{name}.{kind}" for kind in formats]

        def write(name: str = name, outputs: list[Path] = outputs) -> None:
            write_figure(name, results, outputs, out / "figures" / f"{name}.parquet")

        done.append(Rendered(f"figures/{name}.{formats[0]}", _attempt(results, needed, write)))
    moving = ("trajectory.parquet", "previews.parquet")
    reason = _attempt(results, moving, lambda: write_animation(results, out / "figures" / ANIMATION))
    done.append(Rendered(f"figures/{ANIMATION}", reason))
    if all(item.reason for item in done):
        reasons = "; ".join(f"{item.file}: {item.reason}" for item in done)
        raise DataError(f"nothing can be rendered from {results}: {reasons}")
    return done


def _write(name: str, results: Path, out: Path, config: Config | None = None) -> str:
    """Write a table of :data:`TABLES` into ``out`` and return why it cannot be made, or an empty text."""
    needed, write = TABLES[name]

    def made() -> None:
        with usable(f"{name} of {results}"):
            write(results, config or config_of(results), out / f"{name}.csv")

    return _attempt(results, needed, made)


def _absent(results: Path, config: Config | None) -> set[str]:
    """The tables and figures that a run of the config does not have; none if the config is not known."""
    try:
        return absent(config or config_of(results))
    except DataError:
        return set()


def made_tables(results: Path, names: Iterable[str] = TABLES, config: Config | None = None) -> dict[str, Made]:
    """Return the run's tables by name, made from the folder's rows. Those in the folder may be older, damaged or forged.

    Args:
        config: as for :func:`render`.
    """
    found, unwanted = {}, _absent(results, config)
    for name in names:
        if name in unwanted:
            continue
        with tempfile.TemporaryDirectory() as folder:
            reason = _write(name, results, Path(folder), config)
            files = {} if reason else {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        found[name] = Made(files, reason)
    return found


def remade_tables(results: Path) -> dict[str, bytes | None]:
    """Return the content of every table's files, made from the folder's rows; None for one that cannot be made."""
    made = made_tables(results)
    files = {file: content for table in made.values() for file, content in table.files.items()}
    return {f"{name}.{kind}": files.get(f"{name}.{kind}") for name in TABLES for kind in ("csv", "md", "tex")}


def _attempt(results: Path, needed: Sequence[str], write: Callable[[], object]) -> str:
    """Write something and return why it cannot be made, or an empty text."""
    reason = _missing(results, needed)
    if not reason:
        try:
            write()
        except DataError as error:
            reason = str(error)
    return reason


def _missing(results: Path, needed: Sequence[str]) -> str:
    """Why needed files cannot be used, or an empty text."""
    stale = stale_files(results)
    reasons = [f"{name} is missing" for name in needed if not (results / name).exists()]
    reasons += [f"{name} is {STALE}" for name in needed if name in stale]
    return "; ".join(reasons)
