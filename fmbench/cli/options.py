"""Options that several commands share, as types of their parameters."""

from pathlib import Path
from typing import Annotated

import typer

from fmbench.errors import ConfigError
from fmbench.system.progress import MODES, Mode


def read_mode(text: str) -> Mode:
    """Return the value of ``--progress``.

    Raises:
        ConfigError: ``text`` is not one of :data:`fmbench.system.progress.MODES`.
    """
    for mode in MODES:
        if text == mode:
            return mode
    raise ConfigError(f"--progress must be {', '.join(MODES[:-1])} or {MODES[-1]}, not {text!r}")


# How a command reports
Log = Annotated[Path | None, typer.Option(help="append plain progress lines to this file")]
Progress = Annotated[
    Mode,
    typer.Option("--progress", parser=read_mode, metavar="MODE", help="auto, bar, lines or none", envvar="FMBENCH_PROGRESS"),
]

# What a job is and where it runs
Spec = Annotated[str, typer.Option(help="the job's spec: JSON, or @file with JSON; `fmbench spec` prints one")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N; by default the device in the spec", envvar="FMBENCH_DEVICE")]
Threads = Annotated[int, typer.Option(help="number of CPU threads, shared by all processes of the job", min=1)]
Code = Annotated[str, typer.Option(help="hash of the stage's code; computed if it is empty")]

# Folders that a job reads and writes
Data = Annotated[Path, typer.Option(help="folder of the prepared data set")]
Model = Annotated[Path, typer.Option(help="folder of the trained model")]
Samples = Annotated[Path, typer.Option(help="folder of the model's samples")]
Features = Annotated[Path, typer.Option(help="folder of the feature extractor")]
Baselines = Annotated[Path, typer.Option(help="folder of the baselines of super-resolution")]
Out = Annotated[Path, typer.Option(help="folder to write to")]
Cache = Annotated[Path, typer.Option(help="folder for parts of the result, so that a killed job can continue")]

# Results, configs and MLflow
ResultsFolder = Annotated[Path, typer.Option(help="a results folder")]
Results = Annotated[Path, typer.Option(help="a results folder, or an archive made by `fmbench export`")]
Table = Annotated[Path, typer.Option(help="the table as CSV; .md and .tex are written next to it")]
ConfigFiles = Annotated[
    list[Path],
    typer.Option(
        "--configfile",
        default_factory=lambda: [Path("config.yaml")],
        show_default="config.yaml",
        help="a config file; repeatable, each is merged into those before it",
    ),
]
Tracking = Annotated[Path | None, typer.Option(help="folder of the MLflow store; without it nothing goes to MLflow")]
TrackingUri = Annotated[
    str | None,
    typer.Option(help="MLflow server, or 'off'; by default an sqlite store in --tracking", envvar="FMBENCH_TRACKING_URI"),
]
TrackingModels = Annotated[bool, typer.Option(help="copy finished networks to MLflow", envvar="FMBENCH_TRACKING_MODELS")]
