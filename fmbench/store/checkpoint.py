"""Checkpoints: atomic, whole, and never a pickled class.

A checkpoint is not one of Snakemake's declared outputs. It lies in a folder named by the hash of the training's spec. A killed
training therefore resumes from it, and a changed training starts afresh.
"""

import json
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout

from fmbench.config.hashing import canonical
from fmbench.errors import CheckpointError, DataError, LockedError, first_line
from fmbench.store.documents import read_document, write_document
from fmbench.store.files import atomic
from fmbench.store.flatten import flatten
from fmbench.store.locks import FolderLock
from fmbench.store.seal import UNSEALED, check_seal, seal
from fmbench.store.shapes import TrainingOfCheckpoints
from fmbench.store.temporary import remove_abandoned

ABOUT = "about.json"
"""The file beside the checkpoints that says what their training depends on."""
BEGAN = "began"
"""Its key for the time at which the training began."""
SHOWN = 5
"""The largest number of differences that a message names."""


class CheckpointFolder:
    """The last two checkpoints of one training; a lock keeps a second trainer out.

    The file system only has to rename files. Whatever kills the trainer, one of the two checkpoints is whole.

    Args:
        about: what the training depends on, nested. The message about a checkpoint of another training names the differences.

    Attributes:
        began: when the training began, in seconds since 1970. A training that continues keeps the time of its first attempt.

    Raises:
        LockedError: (on entering) another process is training the same thing.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.about = about
        self.latest, self.previous = folder / "checkpoint.pt", folder / "checkpoint.previous.pt"
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FolderLock(folder)
        self._latest_is_good = True
        self.began = time.time()

    def __enter__(self) -> "CheckpointFolder":
        try:
            self._lock.acquire()
        except Timeout:
            raise LockedError(
                f"another process is training into {self.folder} right now. If a killed snakemake left it behind, "
                "wait for it to end or end it, then rerun"
            ) from None
        remove_abandoned(self.folder)  # from a trainer that was killed while it wrote
        self.began = self._first_attempt()
        if self.about is not None:
            try:
                write_document(self.folder / ABOUT, dict(self.about) | {BEGAN: self.began})
            except OSError as error:
                self._lock.release()
                raise self._unwritable(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def begun(self) -> bool:
        """Whether the folder has a checkpoint, good or damaged."""
        return self.latest.exists() or self.previous.exists()

    def written(self) -> float:
        """When the newest checkpoint was written, in seconds since 1970; now if there is none."""
        return self.latest.stat().st_mtime if self.latest.exists() else time.time()

    def _first_attempt(self) -> float:
        values = _about(self.folder) if self.begun() else None
        return time.time() if values is None else float(values.get(BEGAN) or time.time())

    def save(self, state: dict[str, Any]) -> None:
        """Write ``state`` as the newest checkpoint and keep the one before it.

        Raises:
            CheckpointError: the file cannot be written; the earlier checkpoints are untouched.
        """
        if self.about is not None:
            state = state | {"about": canonical(self.about)}
        try:
            with atomic(self.latest) as temporary:
                torch.save(state, temporary)
                _make_room(temporary)
                seal(temporary)  # flushes to the disk, so the older files may move from here on
                # A damaged checkpoint must not replace the good one before it. Between the two renames the newest good
                # checkpoint is the previous one, where load finds it.
                if self.latest.exists() and self._latest_is_good:
                    os.replace(self.latest, self.previous)
        except (OSError, RuntimeError, ValueError) as error:  # torch turns a full disk into a RuntimeError
            raise self._unwritable(error) from error
        self._latest_is_good = True

    def _unwritable(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"cannot write a checkpoint to {self.folder}: {error}. Make room or fix the folder, then rerun: the training "
            "resumes from its last checkpoint. `fmbench prune` shows the checkpoints that no model needs"
        )

    def load(self, key: str) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest good checkpoint of the training ``key``, and a complaint about each bad one that was passed over."""
        complaints: list[str] = []
        for path in (self.latest, self.previous):
            if not path.exists():
                continue
            try:
                check_seal(path)
                state = torch.load(path, map_location="cpu", weights_only=True)
                if state["key"] != key:
                    raise ValueError(f"it belongs to the training {state['key']}, not {key}{self._differences(state)}")
                return state, complaints
            except Exception as error:  # damage, a forbidden pickle and a missing key all mean the same here
                complaints.append(f"{path} cannot be used ({first_line(error)})")
                if path == self.latest:
                    self._latest_is_good = False
        return None, complaints

    def _differences(self, state: dict[str, Any]) -> str:
        if self.about is None or "about" not in state:
            return ""
        return f": {differences(json.loads(state['about']), self.about)}"


def _make_room(path: Path) -> None:
    """Give the zip archive that ``torch.save`` wrote a comment with room for a seal. torch.load and unzip do not mind it."""
    with open(path, "r+b") as stream:
        stream.seek(-22, os.SEEK_END)
        if stream.read(4) != b"PK\x05\x06":
            raise ValueError(f"{path} does not end like a zip archive without a comment")
        stream.seek(-2, os.SEEK_END)  # the length of the comment, which is 0 so far
        stream.write(struct.pack("<H", len(UNSEALED)) + UNSEALED.encode())


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """What differs between the settings of two trainings, as a text for a message."""
    there, here = flatten(theirs), flatten(ours)
    absent = "not set"
    found = [
        f"{name} was {there.get(name, absent)} there and is {here.get(name, absent)} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name, absent) != here.get(name, absent)
    ]
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return ", ".join(found[:SHOWN] + more) or "no difference in the settings written down"


def described(folder: Path) -> dict[str, Any] | None:
    """What the training of a checkpoint folder depends on; None if the folder does not say, or says it in another form."""
    values = _about(folder)
    return None if values is None else {key: value for key, value in values.items() if key != BEGAN}


def _about(folder: Path) -> dict[str, Any] | None:
    try:
        return read_document(folder / ABOUT, TrainingOfCheckpoints)
    except DataError:
        return None
