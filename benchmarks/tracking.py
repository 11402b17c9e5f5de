"""What MLflow costs: the processor time of a whole run without tracking (ours) and with it (theirs), in turn.

Both sides run a config from nothing, with tables, figures and page. With tracking, the runs, their curves, sheets, parents and
the summary go to the sqlite database in the results folder. The cost hardly depends on the length of the trainings, so its share
is largest for a small preset.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

import yaml
from _timing import machine, show, write
from peers import ROOT, used


def run(configfiles: list[Path], tracking: bool) -> float:
    """Run the configs, one laid over the other. Returns the seconds of processor time."""
    with tempfile.TemporaryDirectory() as folder:
        last = Path(folder) / "tracking.yaml"
        last.write_text(yaml.safe_dump({"results_dir": f"{folder}/results", "tracking": {"enabled": tracking}}), encoding="utf-8")
        command = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "all", "--configfile"]
        processor, _ = used([*command, *map(str, [*configfiles, last])], os.environ | {"OMP_NUM_THREADS": "1"})
        if (Path(folder) / "results/mlflow/mlflow.db").exists() != tracking:
            raise SystemExit("the store of MLflow is not what the config says")
    return processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configfile", type=Path, nargs="+", default=[ROOT / "configs" / "smoke.yaml"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    chosen = parser.parse_args()
    configfiles, before, rows = [path.resolve() for path in chosen.configfile], machine(), []
    for k in range(chosen.rounds):
        times = {tracking: run(configfiles, tracking) for tracking in ((True, False) if k % 2 else (False, True))}
        rows.append({"ours_s": times[False], "theirs_s": times[True], "ratio": times[True] / times[False]})
    show(rows, list(rows[0]))
    print(f"\nwith tracking / without: {statistics.median(row['ratio'] for row in rows):.2f} in processor time")
    write(chosen.out, before | {"configfiles": [path.name for path in configfiles]}, {"tracking": rows})


if __name__ == "__main__":
    main()
