"""Writing a prepared data set: in pieces, in little memory, whole or not at all.

A data set grows in ``.partial`` beside its final place and moves there at the end, the manifest last. A killed preparation
therefore leaves nothing that looks whole. If the source can start in the middle, the next preparation continues where it stopped.
"""

import contextlib
import itertools
import math
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import Timeout
from numpy.typing import NDArray

from fmbench.data.conditions import Condition, make_condition
from fmbench.data.fit import warnings
from fmbench.data.labels import Classes, Codes, classes_of_splits
from fmbench.data.npy import rows_per_piece
from fmbench.data.raw import Piece, RawData, Stream, per_column
from fmbench.data.split import Split
from fmbench.data.statistics import Moments
from fmbench.errors import DataError, LockedError, printable
from fmbench.store.documents import write_document
from fmbench.store.locks import FolderLock
from fmbench.system.progress import Console

PARTIAL = ".partial"
"""The folder that a preparation grows in, with its lock."""
SAVE_EVERY = 30.0
"""Seconds between two notes of a resumable split's progress. After a kill, at most this much work is repeated."""


def write(
    raw: RawData, folder: Path, spec: dict[str, Any], code: str = "", workers: int = 1, console: Console | None = None
) -> dict[str, Any]:
    """Write a data set's arrays and its manifest, and return the manifest.

    Args:
        spec, code: what the arrays depend on; a split written with another spec or code is written again.
        workers: the number of processes that a source may use.

    Raises:
        DataError: the data are not what :class:`~fmbench.data.raw.RawData` promises, cannot have the condition of the spec, or
            the disk is too small. The previous content of ``folder`` stays.
        LockedError: another process is preparing the same folder.
    """
    raw.check()
    levels = None if raw.levels is None else int(raw.levels)
    scale, shift = per_column("scale", raw.scale), per_column("shift", raw.shift)
    condition = make_condition(spec.get("condition"), levels, None)
    streams = {"train": _stream("train", raw.train, raw.train_labels), "test": _stream("test", raw.test, raw.test_labels)}
    partial = folder / PARTIAL
    splits: dict[str, Split] = {}
    with _locked(partial) as lock, _cleared(lock, keep=all(s.prefix is not None for s in streams.values())):
        for name, stream in streams.items():
            key = {"spec": spec, "code": code}
            fresh = Split(Codes(name, raw.class_names, raw.decline), partial, levels, shift, splits.get("train"))
            resumed, reason = fresh.resumed(stream, key)
            if reason and console is not None:
                console.say(f"{name}: the samples on the disk cannot be used, because {reason}; they are made again")
            splits[name] = resumed or fresh
            _fill(splits[name], stream, key, condition, workers, console)
            _check_scale(splits[name], scale)
        classes = _numbered(splits["train"], splits["test"])
        names = raw.class_names if classes is None else classes.names
        manifest = {
            "dataset": spec["dataset"],
            "source": spec.get("source"),
            "variant": raw.variant,
            "description": raw.description,
            "preprocessing": raw.preprocessing,
            "spec": spec,
            "shape": list(splits["train"].shape),
            "levels": levels,
            "scale": scale.tolist(),
            "shift": shift.tolist(),
            "support": raw.support,
            "entropy": raw.entropy,
            "classes": None if classes is None else classes.count,
            "class_names": None if names is None else [printable(name) for name in names],
            "notes": [*raw.notes, *(() if classes is None else classes.notes)],
            "splits": {name: split.entry() | condition.store(partial, name) for name, split in splits.items()},
        }
        manifest["warnings"] = _warnings(manifest, splits, shift, scale)
        _publish(partial, folder, manifest)
        lock.remove()  # while it is held, so that no other process can have begun to work in the folder
    return manifest


def _publish(partial: Path, folder: Path, manifest: dict[str, Any]) -> None:
    """Move whole splits to their final place, and write the manifest last."""
    # From here on the folder is neither the old set nor the new one, so it has no manifest.
    (folder / "manifest.json").unlink(missing_ok=True)
    for split, what in itertools.product(("train", "test"), ("", "_labels", "_low_resolution")):
        written, final = partial / f"{split}{what}.npy", folder / f"{split}{what}.npy"
        final.unlink(missing_ok=True)
        if written.exists():
            os.replace(written, final)
    write_document(folder / "manifest.json", manifest)


def _numbered(train: Split, test: Split) -> Classes | None:
    """The classes of two whole splits, after the class numbers of their samples are on the disk; None without labels."""
    if train.labelled != test.labelled:
        bare = train if not train.labelled else test
        raise bare.codes.refuse(
            "there are none, but the other split has labels; labels must be given for both splits or for none"
        )
    if not train.labelled:
        return None
    classes = classes_of_splits(train.codes, test.codes)
    for split in (train, test):
        split.number(classes.maps[split.name])
    return classes


@contextlib.contextmanager
def _locked(partial: Path) -> Iterator[FolderLock]:
    lock = FolderLock(partial)
    try:
        lock.acquire()
    except Timeout:
        raise LockedError(f"another process is preparing {partial.parent}; wait until it ends, then rerun") from None
    try:
        yield lock
    finally:
        lock.release()


@contextlib.contextmanager
def _cleared(lock: FolderLock, keep: bool) -> Iterator[None]:
    """Remove what a failed preparation left, unless the next one can continue from it."""
    try:
        yield
    except BaseException:
        if not keep:
            lock.remove()
        raise


def _check_scale(split: Split, scale: NDArray[np.float64]) -> None:
    """Check that a scale has a number for each column, and that scaled points are within float32's range."""
    if not isinstance(split.statistics, Moments):
        return
    columns = split.statistics.columns
    if scale.shape not in ((), columns.mean.shape):
        raise DataError(f"scale has {scale.size} numbers, but the points have {columns.mean.size} columns")
    largest = np.maximum(np.abs(columns.low), np.abs(columns.high)) * scale
    if (largest > np.finfo(np.float32).max).any():
        raise DataError(
            f"{split.name}: scaled points are as large as {largest.max():.2g}, beyond the range of float32, in which fmbench "
            "computes; give a smaller scale"
        )


def _warnings(
    manifest: dict[str, Any], splits: dict[str, Split], shift: NDArray[np.float64], scale: NDArray[np.float64]
) -> list[str]:
    """What a user should know of the data, in sentences."""
    known = {name: (split.statistics, split.conversion.step) for name, split in splits.items()}
    found = warnings(known, splits["train"].shape, manifest["levels"], shift, scale)
    if manifest["splits"]["test"].get("sorted_by_class"):
        found.append(
            "the test samples are sorted by class. likelihood.n, dequantisation.n and the pictures take the first "
            "samples, which are of few classes; shuffle the samples of the source"
        )
    return found


def _stream(name: str, values: NDArray | Stream, labels: NDArray | None) -> Stream:
    if isinstance(values, Stream):
        if labels is not None:
            raise DataError(f"{name}_labels: the labels of a stream must be in its pieces")
        return values
    for what, found in ((name, values), (f"{name}_labels", labels)):
        if found is not None and not isinstance(found, np.ndarray):
            raise DataError(f"{what}: expected a numpy array, found a {type(found).__name__}; convert it, as by np.asarray")
    if labels is not None and labels.shape[:1] != values.shape[:1]:
        raise DataError(f"{name}_labels: expected {len(values)} labels, found shape {labels.shape} of {labels.dtype}")
    return Stream(lambda start, workers: pieces(values, labels), n=len(values) if values.ndim else None)


def pieces(values: NDArray, labels: NDArray | None = None) -> Iterable[Piece]:
    """An array (N, ...) in pieces of about :data:`PIECE_BYTES`."""
    if values.ndim == 0 or len(values) == 0:
        yield values, labels  # the checks report what is wrong with it
        return
    rows = rows_per_piece(values[0].nbytes)
    for i in range(0, len(values), rows):
        yield values[i : i + rows], None if labels is None else labels[i : i + rows]


def _fill(split: Split, stream: Stream, key: dict[str, Any], condition: Condition, workers: int, console: Console | None) -> None:
    """Write the samples of a stream that are not on the disk yet."""
    start = split.n
    if start and console is not None:
        console.say(f"{split.name}: {start} samples are on the disk already")
    progress = None if console is None or stream.n is None else console.progress(stream.n, f"{split.name} samples", start)
    saved = time.monotonic()
    try:
        for values, labels in stream.pieces(start, workers):
            if split.n == 0 and (problem := condition.problem(values, labels)):
                raise DataError(f"{split.name}: {problem}")
            if split.n == 0 and values.ndim and stream.n is not None:
                _check_disk(split.folder, stream.n * math.prod(values.shape[1:]) * (4 if split.levels is None else 1))
            split.append(values, labels)
            if stream.prefix is not None and time.monotonic() - saved >= SAVE_EVERY:
                split.save(stream.prefix(split.n), key)
                saved = time.monotonic()
            if progress is not None:
                progress.update(split.n)
    except BaseException:
        split.close()
        if stream.prefix is not None and split.n:
            split.save(stream.prefix(split.n), key)
        raise
    finally:
        if progress is not None:
            progress.close()
    if stream.n is not None and split.n != stream.n:
        raise DataError(f"{split.name}: the source promised {stream.n} samples and gave {split.n}")
    if split.n < 2:
        raise DataError(f"{split.name}: shape {(split.n, *split.shape)}, but at least two samples are needed")
    split.conversion.check()
    split.close()
    if stream.prefix is not None:
        split.save(stream.prefix(split.n), key)


def _check_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{folder.parent}: these samples need {needed / 1e9:.1f} GB, and the disk has only {free / 1e9:.1f} GB free"
        )
