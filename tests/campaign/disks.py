"""Full disks: jobs on a small file system (as root), or under a limit on the size of files, then again with room."""

import contextlib
import os
import random
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from children import in_child
from jobs import Job, at, clear, jobs, result
from tiny_benchmark import Bench
from tries import ERRORS, Tries, in_words
from user_code import Said

ROOM = 256 << 20


def run(bench: Bench, work: Path, number: int, seed: int) -> Tries:
    """Run ``number`` jobs of a benchmark where the disk gets full after a random number of bytes.

    A job fails in words, with every earlier file as it was, and ends with the same result once there is room.
    """
    tries = Tries("disks", "a full disk is an error in words, earlier files stay, and with room the result is the same")
    dice, known = random.Random(seed), list(jobs(bench).values())
    with _small_disk(work) as limited:
        for _ in range(number):
            _try(tries, bench, work, dice.choice(known), dice, limited)
    return tries


Limit = Callable[[Callable[[], Said], int], Callable[[], Said]]
"""From work and a number of bytes to the same work on a disk that has this room left."""


def _try(tries: Tries, bench: Bench, work: Path, job: Job, dice: random.Random, limited: Limit) -> None:
    folder, report = work / "results", work.with_name(f"{work.name}.said")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bench.results, folder)
    here = at(bench, folder)
    needed = sum(p.stat().st_size for name in job.outputs for p in _files(folder / name))
    clear(folder, job, memory=True)
    before, room = _hashes(folder), dice.randrange(max(1, needed))
    said = in_child(limited(lambda: job.run(here), room), report)
    what = f"{job.name} with room for {room} of {needed} bytes"
    changed = [name for name, content in before.items() if _hashes(folder).get(name) != content]
    if said is None or (said.code and not (in_words(said) and said.code in ERRORS)):
        return tries.fault(f"{what}: {said}")
    if changed:
        return tries.fault(f"{what}: earlier files changed: {changed}")
    again = in_child(limited(lambda: job.run(here), ROOM), report)
    if again is None or again.code or result(here, job) != result(bench, job):
        return tries.fault(f"{what}, then with room: {again and again.err[-300:]}, or another result")
    return tries.count("enough room after all" if not said.code else "error in words, then the same result")


def _files(path: Path) -> list[Path]:
    return [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]


def _hashes(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in _files(folder) if not p.name.startswith(".")}


@contextlib.contextmanager
def _small_disk(work: Path) -> Iterator[Limit]:
    """A file system in memory at ``work``, if this process may mount one; else a limit on the size of each file."""
    work.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(work)]
    if os.getuid() == 0 and shutil.which("mount") and subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        try:
            yield lambda call, room: lambda: _on(work, call, room)
        finally:
            subprocess.run(["umount", str(work)], check=True)
    else:
        yield _with_a_limit


def _on(work: Path, call: Callable[[], Said], room: int) -> Said:
    """Fill the file system up to ``room`` bytes, and work."""
    filler = work / "filler"
    filler.unlink(missing_ok=True)
    free = os.statvfs(work).f_bavail * os.statvfs(work).f_frsize
    if room < free:
        with open(filler, "wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, free - room)
    try:
        return call()
    finally:
        filler.unlink(missing_ok=True)


def _with_a_limit(call: Callable[[], Said], room: int) -> Callable[[], Said]:
    def limited() -> Said:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        said = call()
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return said

    return limited
