"""Flipped bits: one random bit in a random file of a results folder, then the jobs that read the file."""

import random
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from jobs import COLLECTED, Job, clear, copy_of, jobs, result
from tiny_benchmark import FOR_FIGURES, STAGES, Bench
from tries import Tries, in_words, names

from fmbench.config import selections
from fmbench.config.names import FIGURES

REMADE = re.compile(r"cache/|checkpoints/")
"""Files that fmbench makes again by itself if they cannot be used."""
EVALUATED = ("models", *STAGES, *FOR_FIGURES, "dequantisation")
"""Folders with a folder for each model."""
NO_NUMBER = re.compile(r"(^|/)(lock|averages\.safetensors|about\.json|checked\.json|table[14]\..*|.*\.svg|unpacked/.*)$|(^|/)\.")
"""Files that no number depends on."""


def run(bench: Bench, work: Path, number: int, seed: int) -> Tries:
    """Flip ``number`` bits of copies of a benchmark. Kinds of files take turns, so that small ones count as much as large ones.

    A try is noticed if a job refuses the file in words that name it. A file that fmbench makes again may also be passed over, if
    the result is that without the flip. A damaged snapshot of a checkpoint is left out with a warning. Anything else is wrong.
    """
    tries = Tries("flips", "a file with one flipped bit is refused in words that name it, or made again with the same result")
    dice, kinds = random.Random(seed), _by_kind(bench)
    for i in range(number):
        kind = sorted(kinds)[i % len(kinds)]
        file = dice.choice(kinds[kind])
        spoilt = copy_of(bench, work)
        bit = flip(spoilt.results / file, dice)
        _judge(tries, bench, spoilt, file, f"{i}: bit {bit} of {file}")
    return tries


def flip(path: Path, dice: random.Random) -> int:
    """Flip a random bit of a file, which may be a link, and return its number."""
    content = bytearray(path.read_bytes())
    bit = dice.randrange(len(content) * 8)
    content[bit // 8] ^= 1 << bit % 8
    path.unlink()
    path.write_bytes(content)
    return bit


def _by_kind(bench: Bench) -> dict[str, list[str]]:
    """The files that a number depends on, by stage and name. An oracle has no learning curve in a whole run."""
    found = defaultdict(list)
    no_curve = tuple(f"learning_curve/{d}/{m}/" for d in bench.config.datasets for m in selections.oracles(bench.config))
    for path in sorted(bench.results.rglob("*")):
        file = path.relative_to(bench.results).as_posix()
        if path.is_file() and path.stat().st_size and not NO_NUMBER.search(file) and not file.startswith(no_curve):
            kind = re.sub(r"[0-9a-f]{16}|\d+", "N", path.name)
            found[f"{file.split('/')[0]}/{kind}"].append(file)
    return dict(found)


def _judge(tries: Tries, bench: Bench, spoilt: Bench, file: str, what: str) -> None:
    read = False
    for job in readers(bench, file):
        read = True
        clear(spoilt.results, job, memory=False)
        try:
            said = job.run(spoilt)
        except Exception as error:
            return tries.fault(f"{what}: {job.name} raised {type(error).__name__}: {error}")
        if said.code:
            if in_words(said) and names(said, Path(file)):
                return tries.count("refused")
            return tries.fault(f"{what}: {job.name} ended with {said.code}: {said.err[-500:]}")
        if "warning" in said.err and names(said, Path(file)):
            return tries.count("left out with a warning")
        if result(spoilt, job) != result(bench, job):
            return tries.fault(f"{what}: {job.name} ended with 0 and another result")
    if not read:
        return tries.fault(f"{what}: no job reads it")
    if REMADE.match(file):
        return tries.count("made again")
    return tries.fault(f"{what}: nobody noticed, though the results are the same")


def readers(bench: Bench, file: str) -> Iterator[Job]:
    """The jobs that read a file, in order."""
    known = jobs(bench)
    for name in _names_of_readers(bench, file):
        if name in known:
            yield known[name]


def _names_of_readers(bench: Bench, file: str) -> list[str]:
    stage, *rest = file.split("/")
    if not rest:
        if file == "set.zip":
            return ["unpack"]
        figures = [f"figure/{figure}" for figure, files in FIGURES.items() if file in files]
        return [*(["table1"] if file in COLLECTED else []), *figures, "export"]
    dataset, first = rest[0], bench.config.methods[0].name
    model = f"{dataset}/{rest[1] if stage in EVALUATED else first}"
    if stage == "data":
        return [f"features/{dataset}", *(f"{reader}/{model}" for reader in ("train", "likelihood", "sample"))]
    if stage == "features" and not file.endswith("rows.parquet"):
        return [f"sample_quality/{model}", f"learning_curve/{model}"]
    if stage == "checkpoints":
        return [name for name in jobs(bench) if name.startswith("train/")]
    if stage == "cache":
        return ["/".join(rest[:3])]
    if file.endswith(("model.safetensors", "snapshots.safetensors", "averages.safetensors", "config.json")):
        return [f"sample/{model}", f"learning_curve/{model}", "collect"]
    if stage == "dequantisation":
        return ["table4"]
    if file.endswith(("samples.npy", "nfe.parquet")):
        return [f"sample_quality/{model}", f"few_step/{model}", "gather/nfe"]
    return ["collect", *(name for name in jobs(bench) if name.startswith("gather/"))]
