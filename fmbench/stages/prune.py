"""Which checkpoints, half-prepared data and half-written files of a results folder are left over, and removing them.

A training whose settings, code, data or versions changed has its checkpoints in a folder of its own, and the old one stays. It
is left over once the results hold a model of the same data set, method and seed that was trained from another one. A process
that was killed while it wrote leaves the temporary file of :func:`fmbench.store.files.atomic`, as large as the file
itself may be.
"""

import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from fmbench.config.hashing import settings_hash
from fmbench.config.specs import model_folder
from fmbench.data.writer import PARTIAL
from fmbench.errors import DataError
from fmbench.store.checkpoint import described, differences
from fmbench.store.files import read_json


@dataclass(frozen=True)
class Found:
    """A folder of checkpoints or of a preparation that did not end, its bytes, and why it can go or not."""

    folder: Path
    size: int
    stale_files: bool
    in_use: bool
    reason: str


def find(results: Path) -> list[Found]:
    """Every folder of checkpoints below a results folder, and every preparation that did not end.

    Raises:
        DataError: there are none at all, so it is hardly a results folder.
    """
    checkpoints, unprepared = results / "checkpoints", sorted(results.glob(f"data/*/{PARTIAL}"))
    if not checkpoints.is_dir() and not unprepared:
        raise DataError(f"{results} has no folder checkpoints; give the results folder of a run (--results)")
    trained = sorted(folder for folder in checkpoints.glob("*") if folder.is_dir())
    return [_look(folder, results) for folder in (*trained, *unprepared)]


def _look(folder: Path, results: Path) -> Found:
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    lock = FileLock(folder / "lock")
    try:
        with lock.acquire(timeout=0):
            return Found(folder, size, *_why(folder, results))
    except Timeout:
        work = "preparation" if folder.name == PARTIAL else "training"
        return Found(folder, size, False, True, f"a {work} is under way in it")


def _why(folder: Path, results: Path) -> tuple[bool, bool, str]:
    if folder.name == PARTIAL:
        return False, False, f"{folder.parent.name}, whose preparation has not ended"
    about = described(folder)
    if about is None:
        return False, False, "does not say what it belongs to"
    spec = about["spec"]
    name = f"{spec['dataset']}/{spec['method']['name']}/{spec['seed']}"
    try:
        model = read_json(results / model_folder("models", spec["dataset"], spec["method"]["name"], spec["seed"]) / "config.json")
    except DataError:
        return False, False, f"{name}, whose training has not ended"
    if (model["spec_hash"], model["code_hash"]) == (settings_hash(spec), about["code"]):
        return False, False, f"{name}, the model that the results hold"
    theirs = {"spec": spec, "code": about["code"]}
    differs = differences(theirs, {"spec": model["spec"], "code": model["code_hash"]})
    return True, False, f"{name}, trained anew since: {differs}"


TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}(\.\w+)?")
OLD = 3600.0
"""Seconds since a temporary file was written to after which nobody is writing it."""


def half_written(results: Path, now: float | None = None) -> list[Path]:
    """Temporary files below a results folder that a killed process left; those of the last hour may be at work."""
    now = time.time() if now is None else now
    found = []
    for path in sorted(results.rglob(".*")):
        if TEMPORARY.fullmatch(path.name) and path.is_file() and now - path.stat().st_mtime > OLD:
            found.append(path)
    return found


def remove(found: Iterable[Found]) -> int:
    """Remove folders and return their bytes; one that a trainer has taken meanwhile stays."""
    freed = 0
    for one in found:
        try:
            with FileLock(one.folder / "lock").acquire(timeout=0):
                shutil.rmtree(one.folder)
        except Timeout:
            continue
        freed += one.size
    return freed


def text(found: Iterable[Found], going: Iterable[Found]) -> str:
    """A line for each folder: whether it goes, its size and why."""
    gone = {one.folder for one in going}
    return "\n".join(
        f"{'remove' if one.folder in gone else 'keep  '} {one.size / 2**20:9.1f} MiB  {one.folder.name}  {one.reason}"
        for one in found
    )
