"""The cost of seals: the share of a run's processor time in which files are hashed, to seal them and to check them.

Runs a config from nothing into a temporary folder and times, in every process of the run, each file that is hashed. Writing a
seal and checking one read a file once each. ``--configfile`` names the config; ``configs/smoke.yaml`` takes minutes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from _timing import machine, show, write

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ["command", "processes", "process_s", "hash_s", "share", "files", "mib"]


def run(configfile: Path, cores: int) -> list[dict[str, Any]]:
    """Run a config and return the line of each process (:mod:`_seal_meter.sitecustomize`)."""
    with tempfile.TemporaryDirectory() as folder:
        meter = Path(folder) / "meter"
        paths = [str(Path(__file__).parent / "_seal_meter"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "FMBENCH_SEAL_METER": str(meter)}
        environment["FMBENCH_FORKSERVER"] = "off"  # a meter counts from the start of its process
        command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--configfile", str(configfile), "--quiet"]
        results = ["--config", f"results_dir={folder}/results"]
        subprocess.run([*command, *results], cwd=ROOT, env=environment, check=True)
        return [json.loads(line) for line in meter.read_text(encoding="utf-8").splitlines()]


def summary(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The sums over the processes of each command, and over all of them."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        words = line["command"].split()
        groups[words[1] if len(words) > 1 and "fmbench" in words[0] else "snakemake"].append(line)
    rows = []
    for name, group in [*sorted(groups.items()), ("all", lines)]:
        total = {key: sum(line[key] for line in group) for key in ("process_s", "hash_s", "bytes", "files")}
        total |= {"command": name, "processes": len(group), "share": total["hash_s"] / total["process_s"]}
        rows.append(total | {"mib": total["bytes"] / 2**20})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configfile", type=Path, default=ROOT / "configs" / "smoke.yaml")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    chosen = parser.parse_args()
    before = machine()
    rows = summary(run(chosen.configfile.resolve(), chosen.cores))
    show(rows, COLUMNS)
    write(chosen.out, before, {"seals": rows})


if __name__ == "__main__":
    main()
