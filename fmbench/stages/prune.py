"""Finds and removes what a results folder no longer needs: stale checkpoints, unfinished preparations, half-written files.

A training whose settings, code, data or versions changed keeps its checkpoints in a new folder, and the old folder stays. It is
stale once the results hold a model of the same data set, method and seed that was trained from another folder. A process that
was killed while it wrote leaves a temporary folder (:mod:`fmbench.store.temporary`), which may be as large as the file.
"""

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
from fmbench.store.locks import locked
from fmbench.store.temporary import abandoned


@dataclass(frozen=True)
class Found:
    """A folder of checkpoints or of an unfinished preparation."""

    folder: Path
    size: int  # bytes
    stale: bool  # whether a newer training replaced it
    in_use: bool  # whether a process works in it
    reason: str  # what it belongs to, and why it can be removed or not


def find(results: Path) -> list[Found]:
    """Every folder of checkpoints and every unfinished preparation in a results folder.

    Raises:
        DataError: there is neither, so this is hardly a results folder.
    """
    checkpoints, unprepared = results / "checkpoints", sorted(results.glob(f"data/*/{PARTIAL}"))
    if not checkpoints.is_dir() and not unprepared:
        raise DataError(f"{results} has no folder checkpoints; give the results folder of a run (--results)")
    trained = sorted(folder for folder in checkpoints.glob("*") if folder.is_dir())
    return [_look(folder, results) for folder in (*trained, *unprepared)]


def _look(folder: Path, results: Path) -> Found:
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    try:
        with FileLock(folder / "lock").acquire(timeout=0):
            if folder.name == PARTIAL:
                return Found(folder, size, False, False, f"{folder.parent.name}: its preparation has not finished")
            stale, reason = _judge(folder, results)
            return Found(folder, size, stale, False, reason)
    except Timeout:
        work = "preparation" if folder.name == PARTIAL else "training"
        return Found(folder, size, False, True, f"a {work} is using it")


def _judge(folder: Path, results: Path) -> tuple[bool, str]:
    """Whether a folder of checkpoints is stale, and the reason."""
    about = described(folder)
    if about is None:
        return False, "it does not say which training it belongs to"
    spec = about["spec"]
    dataset, method, seed = spec["dataset"], spec["method"]["name"], spec["seed"]
    name = f"{dataset}/{method}/{seed}"
    try:
        model = read_json(results / model_folder("models", dataset, method, seed) / "config.json")
    except DataError:
        return False, f"{name}: its training has not finished"
    if (model["spec_hash"], model["code_hash"]) == (settings_hash(spec), about["code"]):
        return False, f"{name}: the results hold its model"
    before, now = {"spec": spec, "code": about["code"]}, {"spec": model["spec"], "code": model["code_hash"]}
    return True, f"{name}: trained again since, {differences(before, now)}"


def half_written(results: Path) -> list[Path]:
    """The temporary folders that killed processes left in a results folder."""
    return [path for path in sorted(results.rglob(".*")) if abandoned(path)]


def remove(found: Iterable[Found]) -> int:
    """Remove folders and return their bytes. A folder that a process took in the meantime stays."""
    freed = 0
    for one in found:
        try:
            with locked(one.folder) as lock:
                lock.remove()
        except Timeout:
            continue
        freed += one.size
    return freed


def text(found: Iterable[Found], chosen: Iterable[Found]) -> str:
    """A line for each folder: whether it is to be removed, its size and the reason."""
    removed = {one.folder for one in chosen}
    return "\n".join(
        f"{'remove' if one.folder in removed else 'keep  '} {one.size / 2**20:9.1f} MiB  {one.folder.name}  {one.reason}"
        for one in found
    )
