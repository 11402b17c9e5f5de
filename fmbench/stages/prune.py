"""Finds and removes what a results folder no longer needs: stale checkpoints, unfinished preparations, half-written files.

A training whose settings, code, data or versions changed keeps its checkpoints in a new folder, and the old folder stays. It is
stale once the results hold a model of the same data set, method and seed that was trained from another folder. A process that
was killed while it wrote leaves a temporary folder (:mod:`fmbench.store.temporary`), which may be as large as the file.

Only files that fmbench writes, in folders that fmbench made, inside of the results folder, are removed. Databases of MLflow that
fmbench set aside are listed and never removed: one may be somebody's own file.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from fmbench.config.hashing import settings_hash
from fmbench.config.specs import model_folder
from fmbench.data.writer import PARTIAL
from fmbench.errors import DataError
from fmbench.store.checkpoint import described, differences
from fmbench.store.documents import read_document
from fmbench.store.locks import locked
from fmbench.store.seal import check_seal
from fmbench.store.shapes import ModelConfig
from fmbench.store.temporary import PREFIX, abandoned
from fmbench.store.tracking_store import is_aside

CHECKPOINTS = re.compile(r"about\.json|checkpoint(\.previous)?\.pt|snapshot-\d{8}\.safetensors|lock")
"""The names of the files that a training writes into its folder of checkpoints."""
PREPARATION = re.compile(r"(train|test)(_labels)?\.npy|(train|test)\.json|lock")
"""The names of the files that a preparation writes into its folder."""


@dataclass(frozen=True)
class Found:
    """A folder of checkpoints or of an unfinished preparation, or a file that was set aside."""

    path: Path
    size: int  # bytes of the files that fmbench wrote
    stale: bool  # whether a newer training replaced it
    removable: bool  # whether it may be removed at all: fmbench made it, and no process works in it
    reason: str  # what it belongs to, and why it can be removed or not


def find(results: Path) -> list[Found]:
    """Every folder of checkpoints, every unfinished preparation and every set-aside database in a results folder.

    Raises:
        DataError: there is none, so this is hardly a results folder.
    """
    checkpoints, unprepared = results / "checkpoints", sorted(results.glob(f"data/*/{PARTIAL}"))
    aside = sorted(path for path in results.glob("mlflow/*") if is_aside(path))
    if not checkpoints.is_dir() and not unprepared and not aside:
        raise DataError(f"{results} has no folder checkpoints; give the results folder of a run (--results)")
    folders = [folder for folder in (*sorted(checkpoints.glob("*")), *unprepared) if folder.is_dir()]
    kept = "MLflow's, set aside by fmbench; delete it yourself if you do not need it"
    return [_look(folder, results) for folder in folders] + [Found(path, size_of(path), False, False, kept) for path in aside]


def _look(folder: Path, results: Path) -> Found:
    size = sum(size_of(path) for path in _ours(folder))
    if folder.is_symlink() or not folder.resolve().is_relative_to(results.resolve()):
        return Found(folder, size, False, False, "a link leads to it from the results folder, so fmbench does not remove it")
    if not _made_by_fmbench(folder):
        return Found(folder, size, False, False, "it does not say which training it belongs to, so fmbench may not have made it")
    try:
        with locked(folder):
            if folder.name == PARTIAL:
                return Found(folder, size, False, True, f"{folder.parent.name}: its preparation has not finished")
            stale, reason = _judge(folder, results)
            return Found(folder, size, stale, True, reason)
    except Timeout:
        work = "preparation" if folder.name == PARTIAL else "training"
        return Found(folder, size, False, False, f"a {work} is using it")
    except OSError as error:
        return Found(folder, size, False, False, f"it cannot be locked ({error.strerror})")


def _made_by_fmbench(folder: Path) -> bool:
    """Whether a folder says so itself: by its name, or by the description or the checksum of checkpoints."""
    if folder.name == PARTIAL or described(folder) is not None:
        return True
    for path in folder.glob("checkpoint*.pt"):
        with contextlib.suppress(ValueError, OSError):
            check_seal(path)
            return True
    return False


def _ours(folder: Path) -> Iterator[Path]:
    """The entries of a folder that fmbench wrote, as far as names tell."""
    names = PREPARATION if folder.name == PARTIAL else CHECKPOINTS
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if abandoned(path) or (names.fullmatch(path.name) and (path.is_file() or path.is_symlink())):
                yield path


def _judge(folder: Path, results: Path) -> tuple[bool, str]:
    """Whether a folder of checkpoints is stale, and the reason."""
    about = described(folder)
    if about is None:
        return False, "it does not say which training it belongs to"
    spec = about["spec"]
    dataset, method, seed = spec["dataset"], spec["method"]["name"], spec["seed"]
    name = f"{dataset}/{method}/{seed}"
    try:
        model = read_document(results / model_folder("models", dataset, method, seed) / "config.json", ModelConfig)
        now = {"spec": model["spec"], "code": model["code_hash"]}
        if (model["spec_hash"], model["code_hash"]) == (settings_hash(spec), about["code"]):
            return False, f"{name}: the results hold its model"
        return True, f"{name}: trained again since, {differences({'spec': spec, 'code': about['code']}, now)}"
    except DataError:
        there = (results / model_folder("models", dataset, method, seed) / "config.json").exists()
        return False, f"{name}: {'the config.json of its model cannot be read' if there else 'its training has not finished'}"


def half_written(results: Path) -> list[Path]:
    """The temporary folders that killed processes left in a results folder. Links are not followed."""
    found = (Path(folder) / name for folder, names, _ in os.walk(results) for name in names if name.startswith(PREFIX))
    return sorted(path for path in found if abandoned(path))


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files in a folder. What another process removes meanwhile counts 0."""
    files = (Path(folder) / name for folder, _, names in os.walk(path) for name in names) if path.is_dir() else [path]
    size = 0
    for file in files:
        with contextlib.suppress(OSError):
            size += file.lstat().st_size
    return size


def choose(found: Iterable[Found], everything: bool) -> list[Found]:
    """What to remove: the stale folders, or every folder that fmbench made and that no process uses."""
    return [one for one in found if one.removable and (one.stale or everything)]


def remove(chosen: Iterable[Found]) -> tuple[int, list[Path]]:
    """Remove folders, and return the bytes of the removed files and the folders that stay.

    A folder that a process took in the meantime stays, and so does one with a file that fmbench did not write.
    """
    freed, staying = 0, []
    for one in chosen:
        try:
            with locked(one.path) as lock:
                ours = {path: size_of(path) for path in _ours(one.path)}
                lock.remove(ours.__contains__)
        except (Timeout, OSError):
            ours = {}
        freed += sum(size for path, size in ours.items() if not os.path.lexists(path))
        if one.path.exists():
            staying.append(one.path)
    return freed, staying


def text(found: Iterable[Found], chosen: Iterable[Found]) -> str:
    """A line for each folder: whether it is to be removed, its size and the reason."""
    removed = {one.path for one in chosen}
    return "\n".join(
        f"{'remove' if one.path in removed else 'keep  '} {one.size / 2**20:9.1f} MiB  {one.path.name}  {one.reason}"
        for one in found
    )
