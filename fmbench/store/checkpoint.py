"""Checkpoints and weights: atomic, whole, and never a pickled class.

A checkpoint lives outside of Snakemake's declared outputs, in a folder named by the hash of the training's spec, so that
a killed training goes on where it was and a changed one starts afresh.
"""

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fmbench.config.hashing import canonical
from fmbench.errors import CheckpointError, DataError, LockedError
from fmbench.store.files import atomic, read_json, write_json

ABOUT = "about.json"
"""Beside the checkpoints: what their training depends on, in words."""
MARK = b"sha256:"
"""Begins the seal: a zip archive's comment with the sha256 of all that comes before it."""
SEAL_BYTES = 2 + len(MARK) + 64
SHOWN = 5
"""At most so many differences are named in a message."""


class CheckpointFolder:
    """The checkpoints of one training, the last two; a lock keeps a second trainer out.

    Nothing but renaming is asked of the file system, and whatever kills the trainer, one of the two is whole.

    Args:
        about: what the training depends on, nested; shown where it differs from what a checkpoint was made with.

    Raises:
        LockedError: (on entering) another process is training the same thing.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.about = about
        self.latest, self.previous = folder / "checkpoint.pt", folder / "checkpoint.previous.pt"
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / "lock")
        self._latest_is_good = True

    def __enter__(self) -> "CheckpointFolder":
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise LockedError(
                f"another process is training into {self.folder} right now. If it was left behind by a killed "
                "snakemake, wait for it to end or end it, then rerun"
            ) from None
        for name in (self.latest.name, ABOUT):
            for leftover in self.folder.glob(f".{name}.*"):  # of a trainer killed while it wrote
                leftover.unlink(missing_ok=True)
        if self.about is not None:
            try:
                write_json(self.folder / ABOUT, self.about)
            except OSError as error:
                self._lock.release()
                raise self._unwritable(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def begun(self) -> bool:
        """Whether there is a checkpoint, be it good or not."""
        return self.latest.exists() or self.previous.exists()

    def save(self, state: dict[str, Any]) -> None:
        """Write ``state``, keeping the checkpoint before it.

        Raises:
            CheckpointError: the file cannot be written; the earlier checkpoints are untouched.
        """
        if self.about is not None:
            state = state | {"about": canonical(self.about)}
        try:
            with atomic(self.latest) as temporary:
                torch.save(state, temporary)
                seal(temporary)  # on the disk from here on, so that the old ones may move
                # A damaged one must not take the place of the good one before it. Between the two renames the newest is
                # the previous one, which is where load then finds it.
                if self.latest.exists() and self._latest_is_good:
                    os.replace(self.latest, self.previous)
        except (OSError, RuntimeError, ValueError) as error:  # torch turns a full disk into a RuntimeError
            raise self._unwritable(error) from error
        self._latest_is_good = True

    def _unwritable(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"cannot write a checkpoint to {self.folder}: {error}. Make room or fix the folder, then rerun: the "
            "training goes on from its last checkpoint. `fmbench prune` shows the checkpoints that no model needs"
        )

    def load(self, key: str) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest good checkpoint of the training ``key``, and a complaint for each bad one passed over."""
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
            except Exception as error:  # damaged, wrong pickle, missing key: all mean the same here
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                complaints.append(f"{path} cannot be used ({reason})")
                if path == self.latest:
                    self._latest_is_good = False
        return None, complaints

    def _differences(self, state: dict[str, Any]) -> str:
        if self.about is None or "about" not in state:
            return ""
        return f": {differences(json.loads(state['about']), self.about)}"


def seal(path: Path) -> None:
    """Write the sha256 of a file of ``torch.save`` at its end, and the file to the disk.

    The seal is the comment that a zip archive may have, so ``torch.load`` and ``unzip`` read the file as before.

    Raises:
        ValueError: the file has no end of an archive without a comment.
    """
    with open(path, "r+b") as stream:
        stream.seek(-22, os.SEEK_END)
        if stream.read(4) != b"PK\x05\x06":
            raise ValueError(f"{path} is not a file of torch.save")
        stream.seek(-2, os.SEEK_END)  # the length of the comment, now 0
        end = _seal(stream, stream.tell())
        stream.write(end)
        stream.flush()
        os.fsync(stream.fileno())


def check_seal(path: Path) -> None:
    """Compare a file's content with the sha256 at its end.

    Raises:
        ValueError: they are not the same, or there is none.
    """
    size = path.stat().st_size
    with open(path, "rb") as stream:
        stream.seek(max(0, size - SEAL_BYTES))
        end = stream.read()
        if len(end) < SEAL_BYTES or end[2 : 2 + len(MARK)] != MARK:
            raise ValueError("it has no checksum at its end: it was cut short, or written by an earlier version")
        if end != _seal(stream, size - SEAL_BYTES):
            raise ValueError("its content is not what its checksum says: it is damaged")


def _seal(stream: Any, length: int) -> bytes:
    """The seal of the first ``length`` bytes; leaves the stream behind them."""
    digest, left = hashlib.sha256(), length
    stream.seek(0)
    while left:
        piece = stream.read(min(left, 1 << 20))
        if not piece:
            raise ValueError("the file became shorter while it was read")
        digest.update(piece)
        left -= len(piece)
    comment = MARK + digest.hexdigest().encode()
    return struct.pack("<H", len(comment)) + comment


def flat(values: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, with dotted names."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from flat(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, values


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """What differs between two trainings, in words."""
    there, here = dict(flat(theirs)), dict(flat(ours))
    absent = "nothing"
    found = [
        f"{name} was {there.get(name, absent)} there and is {here.get(name, absent)} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name, absent) != here.get(name, absent)
    ]
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return ", ".join(found[:SHOWN] + more) or "nothing that is written down"


def described(folder: Path) -> dict[str, Any] | None:
    """What the training of a checkpoint folder depends on; ``None`` where it does not say."""
    try:
        about = read_json(folder / ABOUT)
    except (DataError, OSError):
        return None
    return about if isinstance(about, dict) else None


def save_weights(path: Path, network: nn.Module, metadata: dict[str, Any]) -> None:
    """Write a network's state dict as safetensors, atomically, with metadata in its header."""
    write_tensors(path, network.state_dict(), metadata)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write tensors as safetensors, atomically, with metadata in the header; there may be none. Tied ones are written twice.

    Raises:
        CheckpointError: the file cannot be written.
    """
    values, seen = {}, set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        storage = value.untyped_storage().data_ptr()
        values[name] = value.clone() if storage in seen else value  # the format has no two names for one storage
        seen.add(storage)
    try:
        with atomic(path) as temporary:
            save_file(values, temporary, metadata={"fmbench": json.dumps(metadata, sort_keys=True)})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot write {path}: {error}. Make room or fix the folder, then rerun: a training goes on from its last checkpoint"
        ) from error


def load_weights(path: Path, network: nn.Module) -> None:
    """Load safetensors into a network built from the config stored beside them.

    Raises:
        CheckpointError: the file is missing or truncated, or its tensors are not those of the network.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"the weights {path} are missing; rerun the training that makes them") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"the weights {path} cannot be read ({error}); delete the file and rerun the training") from None
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"the weights {path} do not fit the network described beside them: {error}") from None
