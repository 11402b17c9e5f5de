"""Commands that begin a project and say how far it is."""

from pathlib import Path
from typing import Annotated

import typer

from fmbench.cli.output import echo


def init(folder: Annotated[Path, typer.Argument(help="the folder to write to; it is made if it is not there")]) -> None:
    """Write a project folder: Snakefile, config.yaml, presets and profiles. It needs no clone of the repository."""
    from fmbench.workflow.project import lay_out

    for path in lay_out(folder):
        echo(str(path))
    echo(f"next: cd {folder} && snakemake --cores all results/table1.csv")


COMMANDS = (init,)
