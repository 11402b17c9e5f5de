"""What strangers send: configs with random mistakes, and archives and tables that would take all memory, disk or time."""

import itertools
from pathlib import Path
from random import Random

from careful_child import open_all
from config_fuzzer import mutations, verdict
from hostile_archives import ATTACKS, BOMBS, write_attack
from tiny_benchmark import Bench
from tries import Tries

import fmbench
from fmbench.config.yamlfile import read

MEGABYTES, SECONDS = 200, 60
"""What opening one file may take, on a loaded machine."""
ROOT = Path(fmbench.__file__).parent.parent


def configs(number: int, seed: int) -> Tries:
    """Read ``number`` copies of the default config with one to three mistakes each."""
    tries = Tries("configs", "a config with mistakes is refused in words, one line for each error, or is valid")
    for what, values in itertools.islice(mutations(read(str(ROOT / "config.yaml")), seed), number):
        wrong = verdict(values)
        if wrong:
            tries.fault(f"{what}: {wrong}")
        else:
            tries.count("refused in words or valid")
    return tries


def archives(bench: Bench, work: Path, number: int, seed: int) -> Tries:
    """Open ``number`` hostile archives and tables, made from the archive of a benchmark; each attack comes in turn."""
    tries = Tries("archives", "a stranger's archive or table is refused in words, with little memory and time")
    work.mkdir(parents=True)
    names, paths = [*ATTACKS, *BOMBS], []
    for i in range(number):
        name, folder = names[i % len(names)], work / str(i)
        folder.mkdir()
        if name in ATTACKS:
            paths.append(write_attack(name, bench.results / "set.zip", folder, seed + i))
        else:
            paths.append(folder / f"{name}.parquet")
            paths[-1].write_bytes(BOMBS[name](Random(f"{name} {seed + i}")))
    for i, found in enumerate(open_all(paths)):
        said, name = str(found["said"]), names[i % len(names)]
        if not said or "MemoryError" in said:
            tries.fault(f"{i}: {name}: {said or 'it was opened'}")
        elif float(str(found["megabytes"])) > MEGABYTES or float(str(found["seconds"])) > SECONDS:
            tries.fault(f"{i}: {name} took {found['megabytes']} MB and {found['seconds']} s")
        else:
            tries.count("refused in words")
    return tries
