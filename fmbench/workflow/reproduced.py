"""The last thing that the Snakefile does: say whether the run reproduced the reference."""

import atexit
import os
import subprocess
import sys
from pathlib import Path

from fmbench.config.config import Config
from fmbench.system.forkserver import OFF

VARIABLE = "FMBENCH_LAST_LINE"
"""``off`` in this environment variable if the caller of Snakemake says the sentence itself."""


def say_whether_reproduced(config: Config) -> None:
    """Compare a finished run with the reference, and print the sentence when Snakemake ends, below its own messages."""
    results = Path(config.results_dir)
    if os.environ.get(VARIABLE) == OFF or not (results / "records.parquet").exists():
        return
    command = [
        sys.executable,
        "-m",
        "fmbench",
        "reproduce",
        "--results",
        str(results),
        "--out",
        str(results / "reproduction.csv"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    said = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    atexit.register(print, said[-1] if said else f"{' '.join(command)} failed")
