"""Starts scripts of this folder in several processes, by torchrun."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node"]


def launch(program: str, *arguments: str | Path, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """Run a script of this folder, or ``-m`` and a module, in several processes with one thread each."""
    paths = [str(HERE), str(HERE.parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    start = str(HERE / program) if program.endswith(".py") else program
    command = [*LAUNCH, str(processes), start, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
