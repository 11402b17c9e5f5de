"""The command line: parse, call one stage, map errors to exit codes.

Exit codes: 0 done (a diverged training is a result, so it is 0 too); 2 the config or the command is wrong;
3 a file is missing, truncated or does not fit; 4 another process is at the same work.
"""

import contextlib
import importlib
import inspect
import itertools
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from fmbench.config.names import FIGURES, GATHERED
from fmbench.errors import CheckpointError, ConfigError, DataError, FmbenchError, LockedError
from fmbench.system.progress import Console, write_note

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Spec = Annotated[str, typer.Option(help="the job's spec: JSON, or @file with JSON (see `fmbench spec`)")]
Log = Annotated[Path | None, typer.Option(help="append plain progress lines to this file")]
Mode = Annotated[str, typer.Option("--progress", help="auto, bar, lines or none", envvar="FMBENCH_PROGRESS")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N in place of the spec's", envvar="FMBENCH_DEVICE")]
Code = Annotated[str, typer.Option(help="hash of the stage's code, where the caller has it already; computed if empty")]
Threads = Annotated[int, typer.Option(help="CPU threads, of all processes together", min=1)]
Folder = Annotated[Path, typer.Option()]
TrackingUri = Annotated[
    str | None,
    typer.Option(help="MLflow server; 'off' for none; by default sqlite in --tracking", envvar="FMBENCH_TRACKING_URI"),
]
ConfigFiles = Annotated[list[Path], typer.Option("--configfile", help="config files, later ones laid over earlier ones")]


def _json(text: str, option: str) -> Any:
    try:
        return json.loads(Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text)
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"{option} is not JSON and not a file with JSON: {error}. Print one with `fmbench spec`") from None


def _spec(text: str, command: str) -> dict[str, Any]:
    spec = _json(text, "--spec")
    if not isinstance(spec, dict) or "stage" not in spec:
        raise ConfigError("--spec must be an object with a stage. Print one with `fmbench spec`")
    wanted = {"prepare": "source", "features": "settings", "train": "method", "sample_quality": "samples", "check": "methods"}
    wanted |= {"table1": "overrides", "table4": "draws", "gather": "kind"}
    if spec["stage"] != command or wanted.get(command, "stage") not in spec:
        raise ConfigError(
            f"--spec is for the stage {spec['stage']!r}, not for `fmbench {command.replace('_', '-')}`. "
            "Print one with `fmbench spec`"
        )
    return spec


def _console(spec: dict[str, Any], mode: str, log: Path | None) -> Console:
    if mode not in ("auto", "bar", "lines", "none"):
        raise ConfigError(f"--progress must be auto, bar, lines or none, not {mode!r}")
    method = spec.get("method")
    if isinstance(method, dict):
        method = method["name"]
    parts = [str(p) for p in (spec.get("dataset"), method, spec.get("seed")) if p is not None]
    return Console(" ".join([spec["stage"], "/".join(parts)]).strip(), mode, log)  # type: ignore[arg-type]


def _job(
    spec: dict[str, Any], code: str, mode: str, log: Path | None, device: str, threads: int, processes: int | None = 1
) -> Any:
    """The job, with the group of its processes: ``processes`` of them, or None for as many as were started."""
    import torch

    from fmbench.config.specs import code_stage, launcher, plugins
    from fmbench.stages.common import Job
    from fmbench.store.codehash import stage_hash
    from fmbench.system.devices import reproducible, round_products
    from fmbench.system.distributed import device_of, join, launched
    from fmbench.system.heap import keep_freed_memory

    started = launched()
    if processes is not None and processes != started:
        raise ConfigError(
            f"the number of processes of this job is {processes}, not {started}; start it by "
            f"{launcher(processes)} fmbench {spec['stage'].replace('_', '-')} ..."
        )
    torch.set_num_threads(max(1, threads // started))
    keep_freed_memory()
    device = device_of(device or spec.get("device", "cpu"))
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"the device {device!r} cannot be used here: {error}") from None
    if chosen.type == "cuda":
        if chosen.index is not None:
            torch.cuda.set_device(chosen)
        reproducible()  # costs two seconds of imports
        # A solver at 1e-5 would pay for rounded products in evaluations. Trainings set their own precision.
        round_products("ieee")
    group = join(chosen)
    console = _console(spec, mode, log) if group.main else _console(spec, "none", None)
    return Job(spec, console, chosen, code or stage_hash(code_stage(spec), plugins(spec)), group=group)


@app.command()
def prepare(spec: Spec, out: Folder, threads: Threads = 1, log: Log = None, mode: Mode = "auto") -> None:
    """Prepare a data set: arrays and a manifest. Image files are decoded by as many processes as there are threads."""
    from fmbench.stages.prepare import run

    values = _spec(spec, "prepare")
    run(values, out, _console(values, mode, log), threads)


@app.command()
def check(
    spec: Spec,
    data: Annotated[Path, typer.Option(help="folder with a prepared folder for each data set")],
    out: Folder,
    log: Log = None,
    mode: Mode = "auto",
) -> None:
    """Build every method and network once, before any training."""
    from fmbench.stages.check import run

    values = _spec(spec, "check")
    run(values, {name: data / name for name in values["datasets"]}, out, _console(values, mode, log))


@app.command()
def features(
    spec: Spec,
    data: Folder,
    out: Folder,
    log: Log = None,
    mode: Mode = "auto",
    device: Device = "",
    threads: Threads = 1,
    code: Code = "",
) -> None:
    """Train the feature extractor of a data set and measure the floors. torchrun may start it by any number of processes."""
    from fmbench.stages.features import run

    job = _job(_spec(spec, "features"), code, mode, log, device, threads, processes=None)
    run(job, data, out)
    job.group.close()


@app.command()
def train(
    spec: Spec,
    data: Folder,
    out: Folder,
    checkpoints: Folder,
    tracking: Annotated[Path | None, typer.Option(help="folder of the MLflow store; without it there is none")] = None,
    tracking_uri: TrackingUri = None,
    live_after: Annotated[
        float, typer.Option(help="seconds before MLflow is written live", envvar="FMBENCH_TRACKING_LIVE_AFTER")
    ] = 0,
    log: Log = None,
    mode: Mode = "auto",
    device: Device = "",
    threads: Threads = 1,
    code: Code = "",
) -> None:
    """Train one method on one data set with one seed; goes on from its checkpoint if it was killed.

    With `processes: N` in the config, start it by `torchrun --standalone --nproc-per-node N -m -- fmbench train ...`.
    """
    from fmbench.config.hashing import settings_hash
    from fmbench.config.specs import processes
    from fmbench.stages import oracles
    from fmbench.stages.collect import run_tags
    from fmbench.stages.train import run
    from fmbench.store.provenance import commit
    from fmbench.store.tracking import OFF, Tracker, run_key

    values = _spec(spec, "train")
    job = _job(values, code, mode, log, device, threads, processes(values))
    if values["method"].get("oracle") is not None:
        oracles.run(job, data, out)
        return
    key = run_key(values, settings_hash(values), job.code_hash)
    tags = run_tags(commit(), values)
    uri = tracking_uri if tracking and job.group.main else OFF
    tracker = Tracker(tracking or out, uri, values, key, tags, job.console.say, live_after)
    run(job, data, out, checkpoints, tracker)
    job.group.close()


MODEL_STAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "sample": ("Sample a model by the adaptive solver and count its evaluations.", ("data", "model", "out")),
    "likelihood": ("Measure a model's NLL on the test split.", ("data", "model", "out")),
    "dequantisation": (
        "Measure a model's NLL against the number K of dequantisation draws (images only).",
        ("data", "model", "out", "cache"),
    ),
    "sweep": ("Run every fixed-step solver at every NFE against the reference.", ("data", "model", "out", "cache")),
    "sample_quality": ("Measure the distance between samples and data.", ("data", "samples", "features", "out")),
    "learning_curve": (
        "Measure NFE and distance during training, at each snapshot.",
        ("data", "model", "features", "out", "cache"),
    ),
    "few_step": (
        "Measure the distance of samples made with few evaluations, and keep pictures of them.",
        ("data", "model", "samples", "features", "out", "cache"),
    ),
    "trajectory": ("Keep states on the way from noise to data.", ("data", "model", "out")),
}
"""Stages of one model: what they do, and the folders that their ``run`` takes behind the job, in its order."""
SHARED_STAGES = ("sample", "sample_quality")
"""Those of them that torchrun may start by any number of processes: the same results."""


def _model_command(stage: str, summary: str, folders: tuple[str, ...]) -> Callable[..., None]:
    """The command of a stage of one model: its spec, a folder option for each folder, and what all such stages take."""

    def command(**options: Any) -> None:
        run = importlib.import_module(f"fmbench.stages.{stage}").run
        common = {name: options[name] for name in ("code", "mode", "log", "device", "threads")}
        job = _job(_spec(options["spec"], stage), **common, processes=None if stage in SHARED_STAGES else 1)
        run(job, *(options[name] for name in folders))
        job.group.close()

    required = {"spec": Spec} | dict.fromkeys(folders, Folder)
    optional: dict[str, tuple[Any, Any]] = {
        "log": (Log, None),
        "mode": (Mode, "auto"),
        "device": (Device, ""),
        "threads": (Threads, 1),
        "code": (Code, ""),
    }
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(name, keyword, annotation=kind) for name, kind in required.items()]
    parameters += [inspect.Parameter(n, keyword, annotation=kind, default=value) for n, (kind, value) in optional.items()]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__name__, command.__doc__ = stage, summary
    return command


for _stage, (_summary, _folders) in MODEL_STAGES.items():
    app.command(_stage.replace("_", "-"))(_model_command(_stage, _summary, _folders))


@app.command()
def theory(
    spec: Spec,
    out: Folder,
    summary: Annotated[Path, typer.Option(help="the table of equivalences, as CSV")],
    log: Log = None,
    mode: Mode = "auto",
    threads: Threads = 1,
) -> None:
    """Tabulate what follows from definitions alone: noise levels, fields, densities, equivalences, samplers."""
    import torch

    from fmbench.stages.theory import run
    from fmbench.system.heap import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()
    values = _spec(spec, "theory")
    run(values, out, summary, _console(values, mode, log))


@app.command()
def collect(
    spec: Spec,
    results: Folder,
    config: Annotated[
        str,
        typer.Option(help="the whole config as JSON, for benchmark.json (`fmbench spec benchmark`); without it there is none"),
    ] = "",
    tracking: Annotated[Path | None, typer.Option(help="folder of the MLflow store; without it there is none")] = None,
    tracking_uri: TrackingUri = None,
    log: Log = None,
    mode: Mode = "auto",
) -> None:
    """Join all rows into records.parquet and mirror them to MLflow."""
    from fmbench.stages.collect import mirror, run

    values = _spec(spec, "collect")
    console = _console(values, mode, log)
    run(values, results, console, _json(config, "--config") if config else None)
    if tracking is not None:
        mirror(results, tracking, tracking_uri, console)


@app.command()
def gather(spec: Spec, results: Folder, log: Log = None, mode: Mode = "auto") -> None:
    """Gather one file of every model into one of the results folder: nfe, learning_curve, few_step, ..."""
    from fmbench.stages.gather import run

    values = _spec(spec, "gather")
    run(values, results, _console(values, mode, log))


@app.command()
def table1(spec: Spec, records: Folder, out: Folder, log: Log = None, mode: Mode = "auto") -> None:
    """Write Table 1 as CSV (--out), Markdown and LaTeX (beside it)."""
    from fmbench.report.table1 import PAPER_ONLY, write_table1

    values = _spec(spec, "table1")
    table = write_table1(records, values, out)
    table = table[table.status != PAPER_ONLY]
    console = _console(values, mode, log)
    console.say(f"{len(table)} rows, {(table.status == 'ok').sum()} ok -> {out}, {out.with_suffix('.md').name}, .tex")


@app.command()
def table2(records: Folder, out: Folder, log: Log = None, mode: Mode = "auto") -> None:
    """Write Table 2, super-resolution, as CSV (--out), Markdown and LaTeX (beside it); from anybody's records.parquet."""
    from fmbench.report.table2 import missing, write_table2

    table = write_table2(records, out)
    ours = (table.source == "ours").sum()
    said = f"{ours} rows of ours, {len(table) - ours} of the paper -> {out}, {out.with_suffix('.md').name}, .tex"
    _console({"stage": "table2"}, mode, log).say(f"{missing(table)} {said}".strip())


@app.command()
def table3(settings: Folder, out: Folder, log: Log = None, mode: Mode = "auto") -> None:
    """Write Table 3, the settings used, as CSV (--out), Markdown and LaTeX (beside it); from anybody's settings.parquet."""
    from fmbench.report.table3 import write_table3

    table = write_table3(settings, out)
    _console({"stage": "table3"}, mode, log).say(f"{len(table)} rows -> {out}, {out.with_suffix('.md').name}, .tex")


@app.command()
def claims(
    results: Annotated[Path, typer.Option(help="a results folder or archive, yours or somebody else's")] = Path("results"),
    out: Annotated[Path, typer.Option(help="the CSV; the page (.md) and the overview (.tex) go beside it")] = Path("claims.csv"),
    log: Log = None,
    mode: Mode = "auto",
) -> None:
    """Test what the paper claims on the parquet files of a results folder; what is not there is not tested."""
    from fmbench.report.claims import write_claims
    from fmbench.store.share import opened

    with opened(results) as folder:
        whole = [line for line in write_claims(folder, out) if line.about == "overall"]
    said = ", ".join(f"{line.claim} {line.verdict}" for line in whole)
    _console({"stage": "claims"}, mode, log).say(f"{said} -> {out}, {out.with_suffix('.md').name}, .tex")


@app.command()
def table4(
    spec: Spec,
    out: Folder,
    rows: Annotated[list[Path] | None, typer.Option(help="rows of the stage dequantisation; give it once for each file")] = None,
    gathered: Annotated[Path | None, typer.Option(help="also write these rows as one parquet file")] = None,
    log: Log = None,
    mode: Mode = "auto",
) -> None:
    """Write Table 4, NLL over the number of draws, as CSV (--out), Markdown and LaTeX (beside it)."""
    from fmbench.report.table4 import write_table4

    values = _spec(spec, "table4")
    table = write_table4(rows or [], values, out, gathered)
    _console(values, mode, log).say(f"{len(table)} rows -> {out}, {out.with_suffix('.md').name}, .tex")


@app.command()
def figure(
    name: Annotated[str, typer.Argument(help=f"one of {', '.join(FIGURES)}")],
    results: Annotated[Path, typer.Option(help="a results folder or archive, yours or somebody else's")] = Path("results"),
    out: Annotated[list[Path] | None, typer.Option(help="a .png, .svg or .pdf; may be given several times")] = None,
    data: Annotated[Path | None, typer.Option(help="also write the data shown, as parquet")] = None,
    method: Annotated[list[str] | None, typer.Option(help="show these methods only; may be given several times")] = None,
    log: Log = None,
    mode: Mode = "auto",
) -> None:
    """Draw a figure from parquet alone."""
    from fmbench.report.figures import write_figure
    from fmbench.store.share import opened

    outputs = out or [Path(f"{name}.png")]
    with opened(results) as folder:
        write_figure(name, folder, outputs, data, method or ())
    Console(f"figure {name}", mode, log).say(f"-> {', '.join(map(str, outputs))}")  # type: ignore[arg-type]


Results = Annotated[Path, typer.Option(help="a results folder, or an archive of `fmbench export`")]


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="the archive: .zip, .tar.gz or .tgz")],
    results: Annotated[Path, typer.Option(help="a results folder")] = Path("results"),
    log: Log = None,
    mode: Mode = "auto",
) -> None:
    """Pack a run's parquet files, config, manifests, provenance and tables into one archive; the same bytes for the same run."""
    from fmbench.report.render import made_anew
    from fmbench.store.benchmark import stale_files
    from fmbench.store.share import export

    console = Console("export", mode, log)  # type: ignore[arg-type]
    if others := [name for name in stale_files(results) if name.endswith(".parquet") and (results / name).exists()]:
        console.say(f"left out, since another config made them: {', '.join(others)}; run snakemake first to have this one's")
    count = export(results, out, made_anew(results))
    console.say(f"{count} files, {out.stat().st_size / 1e6:.1f} MB -> {out}")


@app.command()
def unpack(
    archive: Annotated[Path, typer.Argument(help="an archive of `fmbench export`")],
    out: Annotated[Path, typer.Option(help="a folder that is new or empty")],
    log: Log = None,
    mode: Mode = "auto",
) -> None:
    """Unpack an archive of results, every file held to its hash."""
    from fmbench.store.share import unpack

    Console("unpack", mode, log).say(f"{unpack(archive, out)} files -> {out}")  # type: ignore[arg-type]


@app.command()
def merge(
    sets: Annotated[list[Path], typer.Argument(help="results folders or archives, two or more")],
    out: Annotated[Path, typer.Option(help="a folder that is new or empty")],
    allow: Annotated[
        list[str] | None, typer.Option(help="let sets differ in code, device, extractor or rows; may be given several times")
    ] = None,
    log: Log = None,
    mode: Mode = "auto",
) -> None:
    """Join results of several machines: other seeds, methods or data sets of one benchmark. Refuses what does not agree."""
    from fmbench.store.share import merge, opened, read_set

    console = Console("merge", mode, log)  # type: ignore[arg-type]
    with contextlib.ExitStack() as stack:
        found = [read_set(str(path), stack.enter_context(opened(path))) for path in sets]
        merged = merge(found, out, allow or [])
    for note in merged["notes"]:
        console.say(note)
    config = merged["config"]
    parts = (config["methods"], config["datasets"], config["seeds"])
    methods, datasets, seeds = map(len, parts)
    console.say(f"{merged['rows']} rows: {datasets} data sets, {methods} methods, {seeds} seeds -> {out}")
    console.say(f"tables and figures: fmbench render --results {out} --out {out}")


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="a results folder or archive")],
    b: Annotated[Path, typer.Argument(help="another")],
    out: Annotated[Path | None, typer.Option(help="also write the table there: .csv or .md")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV, not Markdown")] = False,
    fail: Annotated[bool, typer.Option("--fail", help="exit code 1 if a difference exceeds the seeds' spread")] = False,
) -> None:
    """Print every number of two result sets, the difference, and whether it exceeds the spread over seeds."""
    from fmbench.report.compare import compare_sets, markdown
    from fmbench.report.layout import to_csv
    from fmbench.store.files import write_text
    from fmbench.store.share import opened

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


@app.command()
def render(
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option(help="folder for tables, and figures/ in it")] = Path("rendered"),
    configfile: Annotated[
        list[Path] | None, typer.Option(help="config files whose tables these are; by default the results say themselves")
    ] = None,
    formats: Annotated[list[str] | None, typer.Option("--format", help="of figures: png, svg, pdf; all by default")] = None,
    log: Log = None,
    mode: Mode = "auto",
) -> None:
    """Make every table and figure that the parquet files of a result set allow, and say which are missing and why."""
    from fmbench.config.reading import load
    from fmbench.report.render import render
    from fmbench.store.share import opened

    kinds = formats or ["png", "svg", "pdf"]
    for kind in kinds:
        if kind not in ("png", "svg", "pdf"):
            raise ConfigError(f"--format must be png, svg or pdf, not {kind!r}")
    config = load(*map(str, configfile)) if configfile else None
    console = Console("render", mode, log)  # type: ignore[arg-type]
    with opened(results) as folder:
        done = render(folder, out, config, kinds)
    for item in done:
        if item.reason:
            console.say(f"not made: {item.file}: {item.reason}")
    console.say(f"{sum(not item.reason for item in done)} of {len(done)} tables and figures -> {out}")


@app.command("mlflow-summary")
def mlflow_summary(
    results: Folder,
    tracking: Annotated[Path, typer.Option(help="folder of the MLflow store")],
    out: Annotated[Path | None, typer.Option(help="a JSON file for the list of what is attached")] = None,
    tracking_uri: TrackingUri = None,
    log: Log = None,
    mode: Mode = "auto",
) -> None:
    """Attach tables, figures and claims to the config's summary run in MLflow."""
    from fmbench.stages.mlflow_summary import run

    run(results, tracking, tracking_uri, out, Console("mlflow-summary", mode, log))  # type: ignore[arg-type]


@app.command("mlflow-rebuild")
def mlflow_rebuild(
    results: Results = Path("results"),
    tracking: Annotated[Path | None, typer.Option(help="folder of the store; mlflow in the results folder if not given")] = None,
    tracking_uri: TrackingUri = None,
    log: Log = None,
    mode: Mode = "auto",
) -> None:
    """Make the whole MLflow store anew, or complete it, from the parquet and JSON files of a result set alone."""
    from fmbench.stages.mlflow_summary import rebuild
    from fmbench.store.share import opened

    if tracking is None and not results.is_dir():
        raise ConfigError(f"{results} is not a folder: say with --tracking where the MLflow store shall be")
    with opened(results) as folder:
        rebuild(folder, tracking or results / "mlflow", tracking_uri, Console("mlflow-rebuild", mode, log))  # type: ignore[arg-type]


@app.command()
def page(
    results: Annotated[Path, typer.Option(help="a results folder or archive, yours or somebody else's")] = Path("results"),
    out: Annotated[Path, typer.Option(help="the page, .html")] = Path("index.html"),
    fragment: Annotated[Path | None, typer.Option(help="also write its head, claims and Table 1, for Snakemake's report")] = None,
    captions: Annotated[Path | None, typer.Option(help="folder with a caption (.rst) for each figure")] = None,
    log: Log = None,
    mode: Mode = "auto",
) -> None:
    """Write one page for a browser from the tables and figures of a result set; an archive has no figures (`render`)."""
    from fmbench.report.page import write_page
    from fmbench.store.share import opened

    with opened(results) as folder:
        write_page(folder, out, fragment, captions)
    Console("page", mode, log).say(f"-> {out}")  # type: ignore[arg-type]


@app.command()
def spec(
    stage: Annotated[str, typer.Argument(help="check, theory, prepare, features, train, sample, ..., gather")],
    dataset: Annotated[str | None, typer.Argument(help="a data set; of gather, what is gathered")] = None,
    method: Annotated[str | None, typer.Argument()] = None,
    seed: Annotated[int, typer.Argument()] = 0,
    configfile: ConfigFiles = [Path("config.yaml")],  # noqa: B006 - typer copies it
    results: Annotated[Path | None, typer.Option(help="take the config of this results folder or archive instead")] = None,
) -> None:
    """Print the spec of a job, to run its stage by hand."""
    from fmbench.config import specs
    from fmbench.config.hashing import canonical
    from fmbench.config.reading import load

    if results is None:
        config = load(*map(str, configfile))
    else:
        from fmbench.store.benchmark import config_of
        from fmbench.store.share import opened

        with opened(results) as folder:
            config = config_of(folder)
    whole: dict[str, Callable[..., Any]] = {
        "check": specs.check,
        "theory": specs.theory,
        "benchmark": specs.describe,
        "collect": specs.collect,
        "table1": specs.table1,
        "table4": specs.table4,
    }
    by_data: dict[str, Callable[..., Any]] = {"prepare": specs.prepare, "features": specs.features}
    by_model = ("train", *MODEL_STAGES)
    stage = stage.replace("-", "_")
    if stage not in (*whole, *by_data, *by_model, "gather"):
        raise ConfigError(f"unknown stage {stage!r}; known: {', '.join((*whole, *by_data, *by_model, 'gather'))}")
    if stage in whole:
        values = whole[stage](config)
    elif stage == "gather":
        if dataset not in GATHERED:
            raise ConfigError(f"stage 'gather' needs what to gather in place of a data set: {', '.join(GATHERED)}")
        values = specs.gather(dataset, config)
    elif dataset is None:
        raise ConfigError(f"stage {stage!r} needs a data set; this config has {', '.join(config.datasets)}")
    elif stage in by_data:
        values = by_data[stage](config, dataset)
    elif method is None:
        raise ConfigError(f"stage {stage!r} needs a method; this config has {', '.join(m.name for m in config.methods)}")
    elif stage == "train":
        values = specs.train(config, dataset, method, seed)
    else:
        values = specs.evaluate(stage, config, dataset, method, seed)
    typer.echo(canonical(values))


@app.command()
def validate(configfile: ConfigFiles = [Path("config.yaml")]) -> None:  # noqa: B006 - typer copies it
    """Check config files without running anything: names, types, and that everything can be built and combined."""
    from fmbench.config.reading import load
    from fmbench.workflow import preflight

    config = load(*map(str, configfile))
    preflight(config)
    methods = ", ".join(m.name for m in config.methods)
    typer.echo(f"ok: {methods} on {', '.join(config.datasets)}, seeds {', '.join(map(str, config.seeds))}")


@app.command()
def doctor(
    configfile: ConfigFiles = [Path("config.yaml")],  # noqa: B006 - typer copies it
    presets: Annotated[Path, typer.Option(help="folder of presets, each laid over the config and looked at too")] = Path(
        "configs"
    ),
) -> None:
    """Say what this machine has and lacks: for the config (exit code 3 if it cannot run), and in short for every preset."""
    from fmbench.config.reading import load
    from fmbench.stages import doctor

    findings = [*doctor.machine(), *doctor.check(load(*map(str, configfile)))]
    typer.echo(doctor.text(findings, " + ".join(map(str, configfile))))
    for preset in sorted(presets.glob("*.yaml")) if presets.is_dir() else []:
        if preset in configfile:
            continue
        try:
            found = [f for f in doctor.check(load(*map(str, configfile), str(preset))) if f.level != doctor.OK]
        except ConfigError as error:
            typer.echo(f"{preset}: {error}")
            continue
        verdict = "cannot run here" if any(f.level == doctor.LACKING for f in found) else "can run here"
        typer.echo(doctor.text(found, f"{preset}: {verdict}"))
    if any(f.level == doctor.LACKING for f in findings):
        raise typer.Exit(3)


@app.command()
def plan(
    configfile: ConfigFiles = [Path("config.yaml")],  # noqa: B006 - typer copies it
    gpu: Annotated[list[str] | None, typer.Option(help="a GPU to estimate hours for; may be given several times")] = None,
    probe: Annotated[float, typer.Option(help="seconds to try this machine for, for each data set; 0 for none", min=0)] = 5.0,
    threads: Threads = 1,
    out: Annotated[Path | None, typer.Option(help="where the numbers go; plan.json in the results folder if not given")] = None,
) -> None:
    """Print what a config costs before anything runs: operations, memory, disk, hours."""
    from fmbench.config.reading import load
    from fmbench.stages.plan import run, text
    from fmbench.store.files import write_json
    from fmbench.system.heap import keep_freed_memory

    config = load(*map(str, configfile))
    keep_freed_memory()  # as the jobs will have it
    results = Path(config.results_dir)
    plans = run(config, gpu or ["h100"], results, probe, threads)
    path = out or results / "plan.json"
    write_json(path, plans)
    typer.echo(text(plans))
    typer.echo(f"-> {path}")


@app.command()
def prune(
    results: Annotated[Path, typer.Option(help="a results folder")] = Path("results"),
    yes: Annotated[bool, typer.Option("--yes", help="remove them; without it they are only listed")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="also those of finished models and of trainings that could go on; all but those in use")
    ] = False,
) -> None:
    """List the checkpoints of a results folder, and with --yes remove those that no model of it was trained from.

    Files that a killed process left half written go with them, and with --all preparations of data that did not end.
    """
    from fmbench.stages.prune import find, half_written, remove, text

    found, halves = find(results), half_written(results)
    going = [one for one in found if one.stale_files or (everything and not one.in_use)]
    if found:
        typer.echo(text(found, going))
    for path in halves:
        typer.echo(f"remove {path.stat().st_size / 2**20:9.1f} MiB  {path}  half written")
    size = f"{sum(one.size for one in going) / 2**20:.1f} MiB"
    if yes:
        for path in halves:
            path.unlink(missing_ok=True)
    if not yes:
        typer.echo(f"{len(going)} of {len(found)} folders, {size}, can go; nothing was removed, --yes does it")
        return
    typer.echo(f"{remove(going) / 2**20:.1f} MiB of {size} removed")


@app.command()
def schema() -> None:
    """Print the config's JSON schema (workflow/schemas/config.schema.json is this, for editors)."""
    from fmbench.config.config import Config

    values = Config.model_json_schema()
    typer.echo(json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **values}, indent=2, sort_keys=True))


def main() -> None:
    """Entry point. An error ends the command and is the last thing in its log, which Snakemake shows of a failed job."""
    with contextlib.suppress(OSError):  # there is no such folder any more
        sys.path.append(os.getcwd())  # for modules of one's own, which Snakemake's jobs (`python -m fmbench`) find there, too
    try:
        app()
    except Exception as error:
        message, code = _in_words(error)
        _note_error(message or traceback.format_exc().rstrip())
        if not message:
            raise
        print(message, file=sys.stderr)
        sys.exit(code)


def _in_words(error: Exception) -> tuple[str, int]:
    """An error's message and exit code; no message for one that nobody foresaw, which is shown with its traceback."""
    codes: list[tuple[type[FmbenchError], int]] = [(ConfigError, 2), (DataError, 3), (CheckpointError, 3), (LockedError, 4)]
    if isinstance(error, FmbenchError):
        return f"fmbench: error: {error}", next((code for kind, code in codes if isinstance(error, kind)), 1)
    if os.environ.get("FMBENCH_DEBUG"):
        return "", 1
    if isinstance(error, ValueError):
        return f"fmbench: error: {error} (FMBENCH_DEBUG=1 shows where)", 2
    if isinstance(error, OSError) and error.errno is not None:
        remedy = "Nothing finished so far is lost; mend the cause (a full disk, a missing permission) and rerun"
        return f"fmbench: error: {error}. {remedy}", 3
    return "", 1


def _note_error(text: str) -> None:
    """Append to the file of ``--log``; read here, as a command may end before it has opened it."""
    given = sys.argv[1:]
    logs = [value for option, value in itertools.pairwise(given) if option == "--log"]
    logs += [option.removeprefix("--log=") for option in given if option.startswith("--log=")]
    with contextlib.suppress(OSError):  # the error itself may be that there is no room
        for path in map(Path, logs[-1:]):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a", encoding="utf-8") as log:
                write_note(log, text)


if __name__ == "__main__":
    main()
