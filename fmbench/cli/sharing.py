"""Commands that pack, merge and compare result sets, and that copy them to MLflow."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from fmbench.cli.options import Log, Progress, Results, ResultsFolder, TrackingModels, TrackingUri
from fmbench.errors import ConfigError
from fmbench.system.progress import Console

NewFolder = Annotated[Path, typer.Option("--out", help="a folder that is new or empty")]


def export(
    out: Annotated[Path, typer.Option(help="the archive: .zip, .tar.gz or .tgz")],
    results: ResultsFolder = Path("results"),
    log: Log = None,
    mode: Progress = "auto",
) -> None:
    """Pack a run's parquet files, config, manifests, provenance and tables into one archive.

    The same run gives the same bytes.
    """
    from fmbench.report.render import remade_tables
    from fmbench.store.archive import export
    from fmbench.store.stale import stale_files
    from fmbench.store.usable import usable

    console = Console("export", mode, log)
    with usable(str(results)):
        stale = [name for name in stale_files(results) if name.endswith(".parquet") and (results / name).exists()]
        if stale:
            console.say(f"left out, because another config made them: {', '.join(stale)}; run snakemake first to update them")
        count = export(results, out, remade_tables(results))
    console.say(f"{count} files, {out.stat().st_size / 1e6:.1f} MB -> {out}")


def unpack(
    archive: Annotated[Path, typer.Argument(help="an archive made by `fmbench export`")],
    out: NewFolder,
    log: Log = None,
    mode: Progress = "auto",
) -> None:
    """Unpack an archive of results and check the hash of every file."""
    from fmbench.store.unpack import unpack

    Console("unpack", mode, log).say(f"{unpack(archive, out)} files -> {out}")


def merge(
    sets: Annotated[list[Path], typer.Argument(help="two or more results folders or archives")],
    out: NewFolder,
    allow: Annotated[
        list[str] | None, typer.Option(help="let the sets differ in code, device, extractor or rows; repeatable")
    ] = None,
    log: Log = None,
    mode: Progress = "auto",
) -> None:
    """Merge results of several machines: other seeds, methods or data sets of one benchmark.

    fmbench refuses sets that do not agree.
    """
    from fmbench.store.merge import merge
    from fmbench.store.result_set import read_set
    from fmbench.store.unpack import opened

    console = Console("merge", mode, log)
    with contextlib.ExitStack() as stack:
        found = [read_set(str(path), stack.enter_context(opened(path))) for path in sets]
        merged = merge(found, out, allow or [])
    for note in merged["notes"]:
        console.say(note)
    config = merged["config"]
    datasets, methods, seeds = (len(config[key]) for key in ("datasets", "methods", "seeds"))
    console.say(f"{merged['rows']} rows: {datasets} data sets, {methods} methods, {seeds} seeds -> {out}")
    console.say(f"tables and figures: fmbench render --results {out} --out {out}")


def compare(
    a: Annotated[Path, typer.Argument(help="a results folder or archive")],
    b: Annotated[Path, typer.Argument(help="another results folder or archive")],
    out: Annotated[Path | None, typer.Option(help="also write the table to this file: .csv or .md")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV, not Markdown")] = False,
    fail: Annotated[bool, typer.Option("--fail", help="exit code 1 if a difference exceeds the spread over seeds")] = False,
) -> None:
    """Print every number of two result sets, the difference, and whether it exceeds the spread over seeds."""
    from fmbench.report.compare import compare_sets, markdown
    from fmbench.report.layout import to_csv
    from fmbench.store.files import write_text
    from fmbench.store.unpack import opened

    if out is not None and out.suffix not in (".csv", ".md"):
        raise ConfigError(f"--out must end in .csv or .md, not {str(out)!r}")
    with opened(a) as one, opened(b) as other:
        table, different = compare_sets(one, other)
    texts = {".csv": to_csv(table), ".md": markdown(table, different, (str(a), str(b)))}
    if out is not None:
        write_text(out, texts[out.suffix])
    typer.echo(texts[".csv" if as_csv else ".md"], nl=False)
    if fail and (table.exceeds == "yes").any():
        raise typer.Exit(1)


def mlflow_summary(
    results: ResultsFolder,
    tracking: Annotated[Path, typer.Option(help="folder of the MLflow store")],
    out: Annotated[Path | None, typer.Option(help="a JSON file for the list of attached files")] = None,
    tracking_uri: TrackingUri = None,
    models: TrackingModels = False,
    log: Log = None,
    mode: Progress = "auto",
) -> None:
    """Attach tables, figures and claims to the config's summary run in MLflow."""
    from fmbench.stages.mlflow_summary import run

    run(results, tracking, tracking_uri, out, Console("mlflow-summary", mode, log), models)


def mlflow_rebuild(
    results: Results = Path("results"),
    tracking: Annotated[Path | None, typer.Option(help="folder of the MLflow store; by default mlflow/ in --results")] = None,
    tracking_uri: TrackingUri = None,
    models: TrackingModels = False,
    log: Log = None,
    mode: Progress = "auto",
) -> None:
    """Make or complete the whole MLflow store from the parquet and JSON files of a result set alone."""
    from fmbench.stages.mlflow_summary import rebuild
    from fmbench.store.unpack import opened

    if tracking is None and not results.is_dir():
        raise ConfigError(f"{results} is not a folder, so the MLflow store cannot be in it; name a folder for it with --tracking")
    with opened(results) as folder:
        rebuild(folder, tracking or results / "mlflow", tracking_uri, Console("mlflow-rebuild", mode, log), models)


SHARE = (export, unpack, merge, compare)
ADMIN = (mlflow_rebuild,)
STAGES = (mlflow_summary,)
