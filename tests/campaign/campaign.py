"""Attacks on fmbench, with a seed: flipped bits, kills, full disks and wrong inputs.

The numbers of past runs are in docs/reliability.md.

    python tests/campaign/campaign.py --seed 0 --flips 200 --kills 57 --disks 20 --stores 40 --configs 300 --archives 66

Each kind runs alone too: ``--flips 200``. The tries run on a tiny benchmark, made once. A table of the answers ends the run. The
exit code is 1 if an answer was wrong: silently wrong, a traceback, or a file that did not survive.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "helpers"), str(HERE.parent.parent)]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import disks  # noqa: E402 - the path is set above
import flips  # noqa: E402
import kills  # noqa: E402
import stores  # noqa: E402
import strangers  # noqa: E402
from jobs import SMALL, WHOLE, jobs  # noqa: E402
from tiny_benchmark import Bench  # noqa: E402
from tries import WRONG, Tries  # noqa: E402

ON_A_BENCHMARK: dict[str, Callable[[Bench, Path, int, int], Tries]] = {
    "flips": flips.run,
    "kills": kills.run,
    "disks": disks.run,
    "stores": stores.run,
    "archives": strangers.archives,
}
ALONE: dict[str, Callable[[int, int], Tries]] = {"configs": strangers.configs}


def made(folder: Path, small: bool = False) -> Bench:
    """A tiny benchmark with all of its files, in ``folder``."""
    bench = Bench(folder, SMALL if small else WHOLE).everything()
    for name, job in jobs(bench).items():
        if name.startswith(("collect", "table4", "export", "unpack", "figure/")):
            said = job.run(bench)
            if said.code:
                raise RuntimeError(f"{name} ended with {said.code}: {said.err}")
    return bench


def campaign(numbers: dict[str, int], seed: int, folder: Path, small: bool = False) -> Iterator[Tries]:
    """Run so many tries of each kind, and give what was answered kind by kind.

    Args:
        numbers: tries by kind, of :data:`ON_A_BENCHMARK` and :data:`ALONE`; a kind that is missing does not run.
        folder: for the benchmark and its copies, on one file system.
        small: the benchmark has points and one method alone, for a run of seconds.
    """
    yield from (run(numbers[kind], seed) for kind, run in ALONE.items() if numbers.get(kind))
    wanted = [kind for kind in ON_A_BENCHMARK if numbers.get(kind)]
    if wanted:
        bench = made(folder / "benchmark", small)
        yield from (ON_A_BENCHMARK[kind](bench, folder / kind, numbers[kind], seed) for kind in wanted)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind in (*ON_A_BENCHMARK, *ALONE):
        parser.add_argument(f"--{kind}", type=int, default=0, metavar="N", help=f"tries of the kind {kind}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="points and one method alone")
    options = parser.parse_args()
    began, found = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        numbers = {kind: getattr(options, kind) for kind in (*ON_A_BENCHMARK, *ALONE)}
        for tries in campaign(numbers, options.seed, Path(folder), options.small):
            found.append(tries)
            print(tries, *(f"{WRONG} {wrong}" for wrong in tries.wrong), sep="\n", flush=True)
    print(f"\nseed {options.seed}, {time.monotonic() - began:.0f} s\n{'kind':<12} {'tries':>6}   answers", *found, sep="\n")
    return int(any(tries.wrong for tries in found))


if __name__ == "__main__":
    sys.exit(main())
