"""Commands that begin a project and say how far it is."""

from pathlib import Path
from typing import Annotated

import typer

from fmbench.cli.options import ConfigFiles
from fmbench.cli.output import echo


def init(folder: Annotated[Path, typer.Argument(help="the folder to write to; it is made if it is not there")]) -> None:
    """Write a project folder: Snakefile, config.yaml, presets and profiles. It needs no clone of the repository."""
    from fmbench.workflow.project import lay_out

    for path in lay_out(folder):
        echo(str(path))
    echo(f"next: cd {folder} && snakemake --cores all results/table1.csv")


def status(configfile: ConfigFiles) -> None:
    """Show which jobs of a run are done, running, failed or left, the time that is left, and the next command.

    A file that is there counts as done; `snakemake --dry-run` says what would run again because settings have changed. Running
    jobs are those of this machine (on Linux). The time left is that of similar jobs that are done.
    """
    from fmbench.config.reading import load
    from fmbench.workflow import status as run

    config = load(*map(str, configfile))
    more = " ".join(str(file) for file in configfile if str(file) != "config.yaml")  # which snakemake reads by itself
    command = f"snakemake --cores all --configfile {more}" if more else "snakemake --cores all"
    echo(run.text(run.status(config), config, command))


BEGIN = (init,)
WATCH = (status,)
