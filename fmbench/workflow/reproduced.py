"""The last thing that the Snakefile does: say whether the run reproduced the reference."""

import atexit
import subprocess
import sys
from pathlib import Path

from fmbench.config.config import Config


def say_whether_reproduced(config: Config) -> None:
    """Compare a finished run with the reference, and print the sentence when Snakemake ends, below its own messages."""
    results = Path(config.results_dir)
    if not (results / "records.parquet").exists():
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
