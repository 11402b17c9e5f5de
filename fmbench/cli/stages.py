"""Commands that run one stage of the workflow each. Snakemake's rules call them."""

import importlib
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from fmbench.cli.job import JobOptions, open_console, open_job, read_json, read_spec
from fmbench.cli.options import (
    Baselines,
    Cache,
    Code,
    Data,
    Device,
    Features,
    Log,
    Model,
    Out,
    Progress,
    ResultsFolder,
    Samples,
    Spec,
    Threads,
    Tracking,
    TrackingModels,
    TrackingUri,
)
from fmbench.config.stages import DATA_STAGES, MODEL_STAGES, STAGES


def prepare(spec: Spec, out: Out, threads: Threads = 1, log: Log = None, mode: Progress = "auto") -> None:
    """Prepare a data set: arrays and a manifest.

    As many processes as threads decode image files.
    """
    from fmbench.stages.prepare import run

    values = read_spec(spec, "prepare")
    run(values, out, open_console(values, mode, log), threads)


def check(
    spec: Spec,
    data: Annotated[Path, typer.Option(help="folder that holds the prepared folder of each data set")],
    out: Annotated[Path, typer.Option(help="the file that says that the check has passed")],
    log: Log = None,
    mode: Progress = "auto",
) -> None:
    """Build every method and network once, before any training."""
    from fmbench.stages.check import run

    values = read_spec(spec, "check")
    run(values, {name: data / name for name in values["datasets"]}, out, open_console(values, mode, log))


def train(
    spec: Spec,
    data: Data,
    out: Out,
    checkpoints: Annotated[Path, typer.Option(help="folder for the checkpoints of all trainings")],
    pairs: Annotated[Path | None, typer.Option(help="folder that the stage pairs wrote, for a method with a teacher")] = None,
    tracking: Tracking = None,
    tracking_uri: TrackingUri = None,
    live_after: Annotated[
        float, typer.Option(help="seconds before MLflow is written during the training", envvar="FMBENCH_TRACKING_LIVE_AFTER")
    ] = 0,
    system_metrics_after: Annotated[
        float,
        typer.Option(
            help="seconds before MLflow also shows processor, memory, disk, network and GPUs; inf for never",
            envvar="FMBENCH_TRACKING_SYSTEM_METRICS_AFTER",
        ),
    ] = math.inf,
    log: Log = None,
    mode: Progress = "auto",
    device: Device = "",
    threads: Threads = 1,
    code: Code = "",
) -> None:
    """Train one method on one data set with one seed. A training that was killed continues from its checkpoint.

    With `processes: N` in the config, start it by
    `torchrun --standalone --local-addr 127.0.0.1 --nproc-per-node N -m -- fmbench train ...`.
    """
    from fmbench.config.hashing import settings_hash
    from fmbench.stages import marginal_training, oracles
    from fmbench.stages.train import run
    from fmbench.store.provenance import commit
    from fmbench.store.tracker import Tracker
    from fmbench.store.tracking import OFF
    from fmbench.store.tracking_runs import training_identity

    values = read_spec(spec, "train")
    job = open_job(values, JobOptions(log, mode, device, threads, code))
    if values["method"].get("oracle") is not None:
        oracles.run(job, data, out)
        return
    identity = training_identity(values, (settings_hash(values), job.code_hash), commit(), values, None)
    uri = tracking_uri if tracking and job.group.main else OFF
    tracker = Tracker(tracking or out, uri, identity, job.console.say, live_after, system_metrics_after)
    if values["method"].get("target") is not None:
        marginal_training.run(job, data, out, checkpoints, tracker)
    else:
        run(job, data, out, checkpoints, tracker, pairs)
    job.group.close()


FOLDERS = {
    "data": Data,
    "model": Model,
    "samples": Samples,
    "features": Features,
    "baselines": Baselines,
    "out": Out,
    "cache": Cache,
}


def job_command(stage: str) -> Callable[..., None]:
    """Return the command of one of ``STAGES``. Its options are a spec, the stage's folders, and the options of every job."""
    names = STAGES[stage].folders

    def command(
        spec: Spec,
        log: Log = None,
        mode: Progress = "auto",
        device: Device = "",
        threads: Threads = 1,
        code: Code = "",
        **folders: Path,
    ) -> None:
        run = importlib.import_module(f"fmbench.stages.{stage}").run
        job = open_job(read_spec(spec, stage), JobOptions(log, mode, device, threads, code))
        run(job, *(folders[name] for name in names))
        job.group.close()

    # typer reads the options from the signature: it gets one parameter for each folder in place of **folders.
    keyword = inspect.Parameter.KEYWORD_ONLY
    first, *others, _ = (parameter.replace(kind=keyword) for parameter in inspect.signature(command).parameters.values())
    folders = [inspect.Parameter(name, keyword, annotation=FOLDERS[name]) for name in names]
    command.__signature__ = inspect.Signature([first, *folders, *others])  # type: ignore[attr-defined]
    command.__name__, command.__doc__ = stage, STAGES[stage].does
    return command


def theory(
    spec: Spec,
    out: Out,
    summary: Annotated[Path, typer.Option(help="the table of equivalences, as CSV")],
    log: Log = None,
    mode: Progress = "auto",
    threads: Threads = 1,
) -> None:
    """Tabulate what follows from definitions alone: noise levels, fields, densities, equivalences, samplers."""
    import torch

    from fmbench.stages.theory import run
    from fmbench.system.heap import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()
    values = read_spec(spec, "theory")
    run(values, out, summary, open_console(values, mode, log))


def collect(
    spec: Spec,
    results: ResultsFolder,
    config: Annotated[
        str,
        typer.Option(help="the whole config as JSON (`fmbench spec benchmark`); without it benchmark.json is not written"),
    ] = "",
    tracking: Tracking = None,
    tracking_uri: TrackingUri = None,
    models: TrackingModels = False,
    log: Log = None,
    mode: Progress = "auto",
) -> None:
    """Write all rows into records.parquet and mirror them to MLflow."""
    from fmbench.stages.collect import run
    from fmbench.stages.shared.mlflow_trainings import mirror

    values = read_spec(spec, "collect")
    console = open_console(values, mode, log)
    run(values, results, console, read_json(config, "--config") if config else None)
    if tracking is not None:
        mirror(results, tracking, tracking_uri, console, models)


def gather(spec: Spec, results: ResultsFolder, log: Log = None, mode: Progress = "auto") -> None:
    """Gather one file of every model, such as nfe.parquet, into one file of the results folder."""
    from fmbench.stages.gather import run

    values = read_spec(spec, "gather")
    run(values, results, open_console(values, mode, log))


_of_data, _of_models = map(job_command, DATA_STAGES), map(job_command, MODEL_STAGES)
COMMANDS: tuple[Callable[..., Any], ...] = (prepare, check, *_of_data, train, *_of_models, theory, collect, gather)
