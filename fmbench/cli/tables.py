"""Commands that write tables, claims, figures and the page from the files of a results folder."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from fmbench.cli.job import open_console, read_spec
from fmbench.cli.options import Log, Progress, Results, Spec, Table
from fmbench.cli.output import echo
from fmbench.config.installation import CAPTIONS
from fmbench.config.names import FIGURES
from fmbench.errors import ConfigError, DataError
from fmbench.system.progress import Console

Records = Annotated[Path, typer.Option(help="records.parquet of a run")]
FORMATS = ("png", "svg", "pdf")
OFF_LINES = 10
"""How many numbers that are off `reproduce` lists; the CSV has all."""


def _written(table: Path) -> str:
    return f"{table}, {table.with_suffix('.md').name}, .tex"


def table1(spec: Spec, records: Records, out: Table, log: Log = None, mode: Progress = "auto") -> None:
    """Write Table 1, the main table, as CSV, Markdown and LaTeX."""
    from fmbench.report.table1 import write_table1
    from fmbench.report.table1.numbers import PAPER_ONLY

    values = read_spec(spec, "table1")
    table = write_table1(records, values, out)
    table = table[table.status != PAPER_ONLY]
    ok = (table.status == "ok").sum()
    open_console(values, mode, log).say(f"{len(table)} rows, {ok} ok -> {_written(out)}")


def table2(records: Records, out: Table, log: Log = None, mode: Progress = "auto") -> None:
    """Write Table 2, super-resolution, as CSV, Markdown and LaTeX."""
    from fmbench.report.table2 import write_table2
    from fmbench.report.table2.notes import missing

    table = write_table2(records, out)
    ours = (table.source == "ours").sum()
    message = f"{ours} rows of ours, {len(table) - ours} of the paper -> {_written(out)}"
    Console("table2", mode, log).say(f"{missing(table)} {message}".strip())


def table3(
    settings: Annotated[Path, typer.Option(help="settings.parquet of any run")],
    out: Table,
    log: Log = None,
    mode: Progress = "auto",
) -> None:
    """Write Table 3, the settings used, as CSV, Markdown and LaTeX."""
    from fmbench.report.table3 import write_table3

    table = write_table3(settings, out)
    Console("table3", mode, log).say(f"{len(table)} rows -> {_written(out)}")


def table4(
    spec: Spec,
    out: Table,
    rows: Annotated[
        list[str] | None,
        typer.Option(help="a file of rows of the stage dequantisation, or @file with such a file on each line; repeatable"),
    ] = None,
    gathered: Annotated[Path | None, typer.Option(help="also write these rows as one parquet file")] = None,
    log: Log = None,
    mode: Progress = "auto",
) -> None:
    """Write Table 4, NLL against the number K of dequantisation draws, as CSV, Markdown and LaTeX."""
    from fmbench.report.table4 import write_table4

    values = read_spec(spec, "table4")
    table = write_table4(_listed(rows or []), values, out, gathered)
    open_console(values, mode, log).say(f"{len(table)} rows -> {_written(out)}")


def solvers(
    records: Records,
    few_step: Annotated[Path, typer.Option(help="few_step.parquet of the same run")],
    out: Table,
    log: Log = None,
    mode: Progress = "auto",
) -> None:
    """Write the best solver and grid at each number of evaluations, as CSV, Markdown and LaTeX."""
    from fmbench.report.solvers import write_solvers

    table = write_solvers(records, few_step, out)
    Console("solvers", mode, log).say(f"{len(table)} rows -> {_written(out)}")


def grid3x3(
    results: Results = Path("results"), out: Table = Path("grid3x3.csv"), log: Log = None, mode: Progress = "auto"
) -> None:
    """Write NLL, distance and NFE by prediction and loss, as CSV, Markdown and LaTeX."""
    from fmbench.report.grid3x3 import write_grid3x3

    table = write_grid3x3(results, out)
    Console("grid3x3", mode, log).say(f"{len(table)} rows, {(table.status == 'ok').sum()} ok -> {_written(out)}")


def pareto(results: Results = Path("results"), out: Table = Path("pareto.csv"), log: Log = None, mode: Progress = "auto") -> None:
    """Write quality and cost of every trained method, as CSV, Markdown and LaTeX."""
    from fmbench.report.pareto import write_pareto

    table = write_pareto(results, out)
    Console("pareto", mode, log).say(f"{len(table)} rows, {(table.status == 'ok').sum()} ok -> {_written(out)}")


def _listed(names: list[str]) -> list[Path]:
    """The files of an option whose values name a file, or a list of files by ``@``."""
    found: list[Path] = []
    for name in names:
        if not name.startswith("@"):
            found.append(Path(name))
            continue
        try:
            found += [Path(line) for line in Path(name[1:]).read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--rows {name} is not a list of files: {error}") from None
    return found


def claims(results: Results = Path("results"), out: Table = Path("claims.csv"), log: Log = None, mode: Progress = "auto") -> None:
    """Test the paper's claims on the parquet files of a results folder. Claims whose files are missing are not tested."""
    from fmbench.report.claims import write_claims
    from fmbench.store.unpack import opened

    with opened(results) as folder:
        overall = [line for line in write_claims(folder, out) if line.about == "overall"]
    verdicts = ", ".join(f"{line.claim} {line.verdict}" for line in overall)
    Console("claims", mode, log).say(f"{verdicts} -> {_written(out)}")


def reproduce(
    results: Results = Path("results"),
    out: Annotated[Path | None, typer.Option(help="also write a row for each number to this file, .csv")] = None,
    reference: Annotated[
        Path | None, typer.Option(help="a results folder or archive; by default the reference that fmbench ships")
    ] = None,
    log: Log = None,
    mode: Progress = "auto",
) -> None:
    """Say how many numbers of a run agree with the reference, and which are off. The last line is the answer."""
    from fmbench.report.reproduction import REFERENCE, write_reproduction
    from fmbench.store.unpack import opened

    console = Console("reproduce", mode, log)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(opened(results))
        found = write_reproduction(folder, out, stack.enter_context(opened(reference)) if reference else REFERENCE)
    for line in found.off[:OFF_LINES]:
        console.say(line)
    if out is not None:
        console.say(f"{len(found.table)} rows -> {out}")
    echo(found.sentence)


def figure(
    name: Annotated[str, typer.Argument(help=f"one of {', '.join(FIGURES)}", autocompletion=lambda: list(FIGURES))],
    results: Results = Path("results"),
    out: Annotated[list[Path] | None, typer.Option(help="a .png, .svg or .pdf file; repeatable; by default NAME.png")] = None,
    data: Annotated[Path | None, typer.Option(help="also write the data shown, as parquet")] = None,
    method: Annotated[list[str] | None, typer.Option(help="show only this method; repeatable")] = None,
    log: Log = None,
    mode: Progress = "auto",
) -> None:
    """Draw a figure from parquet files alone."""
    from fmbench.report.figures import write_figure
    from fmbench.store.unpack import opened

    outputs = out or [Path(f"{name}.png")]
    with opened(results) as folder:
        write_figure(name, folder, outputs, data, method or ())
    Console(f"figure {name}", mode, log).say(f"-> {', '.join(map(str, outputs))}")


def page(
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option(help="the page, .html")] = Path("index.html"),
    fragment: Annotated[Path | None, typer.Option(help="also write the claims and Table 1, for Snakemake's report")] = None,
    captions: Annotated[Path, typer.Option(help="folder with a caption (.rst) for each figure")] = CAPTIONS,
    log: Log = None,
    mode: Progress = "auto",
) -> None:
    """Write one page for a browser from the tables and figures of a result set. `render` draws those of an archive."""
    from fmbench.report.page import write_page
    from fmbench.store.unpack import opened

    with opened(results) as folder:
        write_page(folder, out, fragment, captions)
    Console("page", mode, log).say(f"-> {out}")


def render(
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option(help="folder for the tables and the page; figures go to figures/ in it")] = Path(
        "rendered"
    ),
    configfile: Annotated[
        list[Path] | None, typer.Option(help="config files of the run; by default the config stored with the results")
    ] = None,
    formats: Annotated[list[str] | None, typer.Option("--format", help="png, svg or pdf; repeatable; by default all")] = None,
    log: Log = None,
    mode: Progress = "auto",
) -> None:
    """Make every table, figure and page that the parquet files of a result set allow, and say why others are missing."""
    from fmbench.config.reading import load
    from fmbench.report.layout import to_csv
    from fmbench.report.page import reproduction, write_page
    from fmbench.report.render import Rendered, render
    from fmbench.store.files import write_text
    from fmbench.store.unpack import opened

    kinds = formats or list(FORMATS)
    for kind in kinds:
        if kind not in FORMATS:
            raise ConfigError(f"--format must be png, svg or pdf, not {kind!r}")
    config = load(*map(str, configfile)) if configfile else None
    console = Console("render", mode, log)
    with opened(results) as folder:
        done = render(folder, out, config, kinds)
        compared = reproduction(folder)
        made = [Path(item.file).stem for item in done if item.file.startswith("figures/") and not item.reason]
        reason = "" if "png" in kinds else "its figures are PNG; add --format png"
        try:
            if not reason:
                pictures = {name: out / "figures" / f"{name}.png" for name in made}
                write_page(folder, out / "index.html", captions=CAPTIONS, drawn=pictures, config=config)
        except DataError as error:
            reason = str(error)
        done.append(Rendered("index.html", reason))
    if not compared.table.empty:
        write_text(out / "reproduction.csv", to_csv(compared.table))
    console.say(compared.sentence)
    for item in done:
        if item.reason:
            console.say(f"not made: {item.file}: {item.reason}")
    console.say(f"{sum(not item.reason for item in done)} of {len(done)} tables, figures and pages -> {out}")


COMMANDS = (table1, table2, table3, table4, solvers, grid3x3, pareto, claims, reproduce, figure, page, render)
