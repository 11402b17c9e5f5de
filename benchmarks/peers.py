"""Table 1 by other libraries' parts against ours, whole: all trainings and measurements, in processor time and by the clock.

Theirs (:mod:`_peer_table`) is one process without a workflow, which keeps nothing. It has the data, sizes of networks,
iterations, batches, numbers of samples and tolerances of the default config, and the same step for every method. Ours is
``snakemake results/table1.csv`` of the same models, with everything that belongs to it: the feature extractor, further
metrics, a second solve, checkpoints, rows with provenance, MLflow. The oracles are left out, and so is the sweep of solvers,
whose numbers are not in the table: one cell stands for it. Data are prepared before. Both sides run in turn. Theirs has one
thread. Each of our jobs has one thread, and ``--cores`` says how many run at once.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from _timing import machine, show, write

ROOT = Path(__file__).resolve().parent.parent


def scaled(scale: float, seeds: int, results: str) -> dict[str, Any]:
    """The default config without oracles and with one cell of the sweep, with a share of its iterations."""
    values: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    values |= {"results_dir": results, "seeds": list(range(seeds))}
    values["methods"] = [method for method in values["methods"] if not method.startswith("oracle")]
    for settings in values["settings"].values():
        settings["training"]["iterations"] = max(60, round(scale * settings["training"]["iterations"]))
        settings["evaluation"]["sweep"] = {"n": 8, "solvers": ["euler"], "nfe": [4], "reference_nfe": 40, "reference_check_n": 1}
    return values


def used(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Processor time of a command with all processes that it has waited for, and its seconds by the clock."""
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with exit code {os.waitstatus_to_exitcode(status)}")
    return usage.ru_utime + usage.ru_stime, time.monotonic() - began


def compare(scale: float, seeds: int, cores: int) -> dict[str, float]:
    """Run both sides once."""
    with tempfile.TemporaryDirectory() as folder:
        config, results = Path(folder) / "config.yaml", f"{folder}/results"
        config.write_text(yaml.safe_dump(scaled(scale, seeds, results)), encoding="utf-8")
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        snakemake = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--quiet", "all", "--configfile", str(config)]
        manifests = [f"{results}/data/{name}/manifest.json" for name in ("checkerboard", "digits")]
        subprocess.run([*snakemake, "--", *manifests], cwd=ROOT, env=environment, check=True)
        peer = [sys.executable, str(Path(__file__).parent / "_peer_table.py"), str(config)]
        theirs, their_seconds = used(peer, environment)
        ours, our_seconds = used([*snakemake, "--", f"{results}/table1.csv"], environment)
    found = {"ours_s": ours, "theirs_s": theirs, "ratio": theirs / ours}
    clock = {"ours_clock_s": our_seconds, "theirs_clock_s": their_seconds, "clock_ratio": their_seconds / our_seconds}
    return found | clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the default iterations")
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds; the default benchmark has 2")
    parser.add_argument("--cores", type=int, default=1, help="how many of our jobs run at once")
    parser.add_argument("--rounds", type=int, default=1, help="how often both sides run")
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    chosen = parser.parse_args()
    before = machine()
    rows = [compare(chosen.scale, chosen.seeds, chosen.cores) for _ in range(chosen.rounds)]
    show(rows, list(rows[0]))
    ratio, clock = (statistics.median(row[name] for row in rows) for name in ("ratio", "clock_ratio"))
    print(f"\ntheirs / ours: {ratio:.2f} in processor time, {clock:.2f} by the clock")
    write(chosen.out, before | {"scale": chosen.scale, "seeds": chosen.seeds, "cores": chosen.cores}, {"table1": rows})


if __name__ == "__main__":
    main()
