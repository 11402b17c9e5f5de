"""Where the processor time of a run goes: compute, imports, Snakemake, the ends of processes, and waiting.

Runs a config from nothing into a temporary folder. Every Python process of the run reports its own time and the part of it
that imports took (:mod:`_process_meter.sitecustomize`). Processor time hardly depends on what else the machine does; waiting and
the time by the clock do.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from _timing import machine, show, write

ROOT = Path(__file__).resolve().parent.parent
PARTS = ["part", "processor_s", "share"]
COMMANDS = ["command", "processes", "processor_s", "import_s", "compute_s", "memory_mib"]


def run(target: str, configfile: Path | None, cores: int) -> tuple[list[dict[str, Any]], float, float]:
    """Run a target of a config.

    Returns:
        The line of each Python process; the processor time of all processes in seconds; the seconds by the clock.
    """
    with tempfile.TemporaryDirectory() as folder:
        meter = Path(folder) / "meter"
        paths = [str(Path(__file__).parent / "_process_meter"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "FMBENCH_PROCESS_METER": str(meter)}
        results = f"{folder}/results"
        command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--quiet", "--config", f"results_dir={results}"]
        command += [] if configfile is None else ["--configfile", str(configfile)]
        command += ["--", target if target == "all" else f"{results}/{target}"]
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT, env=environment)
        _, status, used = os.wait4(process.pid, 0)
        elapsed = time.monotonic() - began
        if status:
            raise SystemExit(f"snakemake ended with exit code {os.waitstatus_to_exitcode(status)}")
        lines = [json.loads(line) for line in meter.read_text(encoding="utf-8").splitlines()]
    return lines, used.ru_utime + used.ru_stime, elapsed


def name(line: dict[str, Any]) -> str:
    """The command of a process: a command of fmbench, ``snakemake``, or the last part of another module's name."""
    program, *words = [*line["command"].split(), ""]
    module = Path(program)
    if module.name == "__main__.py":
        return words[0] if module.parent.name == "fmbench" else module.parent.name
    return module.stem


def by_command(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The sums over the processes of each command, and the most memory that one of them had."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        groups[name(line)].append(line)
    return [
        {
            "command": command,
            "processes": len(group),
            "processor_s": sum(line["process_s"] for line in group),
            "import_s": sum(line["import_s"] for line in group),
            "compute_s": sum(line["process_s"] - line["import_s"] for line in group),
            "memory_mib": max(line["memory_mib"] for line in group),
        }
        for command, group in sorted(groups.items())
    ]


def parts(commands: list[dict[str, Any]], processor: float, elapsed: float, cores: int) -> list[dict[str, Any]]:
    """The parts of a run. Their shares are of the processor time; that of waiting is of the cores' time."""
    jobs = [row for row in commands if row["command"] != "snakemake"]
    snakemake = sum(row["processor_s"] for row in commands if row["command"] == "snakemake")
    compute, imports = sum(row["compute_s"] for row in jobs), sum(row["import_s"] for row in jobs)
    found = {
        "compute": compute,
        "imports of the jobs": imports,
        "snakemake's own process": snakemake,
        "shells, git, ends of processes": processor - compute - imports - snakemake,
    }
    rows = [{"part": part, "processor_s": value, "share": value / processor} for part, value in found.items()]
    rows.append({"part": "not compute", "processor_s": processor - compute, "share": 1 - compute / processor})
    rows.append({"part": "all", "processor_s": processor, "share": 1.0})
    waiting = cores * elapsed - processor
    return [*rows, {"part": "waiting", "processor_s": waiting, "share": waiting / (cores * elapsed)}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="?", default="table1.csv", help="a file of the results folder, or all")
    parser.add_argument("--configfile", type=Path, help="a preset; by default the default benchmark")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    chosen = parser.parse_args()
    before = machine()
    lines, processor, elapsed = run(chosen.target, chosen.configfile and chosen.configfile.resolve(), chosen.cores)
    commands = by_command(lines)
    split = parts(commands, processor, elapsed, chosen.cores)
    show(commands, COMMANDS)
    print()
    show(split, PARTS)
    processes = sum(row["processes"] for row in commands)
    print(f"\n{processes} Python processes, {elapsed:.0f} s by the clock on {chosen.cores} cores")
    write(chosen.out, before | {"cores": chosen.cores, "seconds": elapsed}, {"parts": split, "commands": commands})


if __name__ == "__main__":
    main()
