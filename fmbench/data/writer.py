"""Writing a prepared data set: piece by piece, in little memory, whole or not at all.

Everything grows in ``.partial`` beside its final place and moves there at the end, the manifest last; so a killed preparation
leaves nothing that looks whole. Where the source can start in the middle, what is there already is kept and gone on from.
"""

import contextlib
import math
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from fmbench.data.raw import Piece, RawData, Stream
from fmbench.errors import DataError, LockedError
from fmbench.store.files import read_json, sha256, write_json
from fmbench.system.progress import Console

PARTIAL = ".partial"
"""The folder that a preparation grows in, with its lock."""
PIECE_BYTES = 4_000_000
"""About how much of a split is in memory at a time, in each of the few places that hold a piece."""
SAVE_EVERY = 30.0
"""Seconds between two notes of how far a resumable split is; after a kill, so much work is done again."""


def write(
    raw: RawData, folder: Path, spec: dict[str, Any], code: str = "", workers: int = 1, console: Console | None = None
) -> dict[str, Any]:
    """Write a data set's arrays and its manifest, and return the manifest.

    Args:
        spec, code: what the arrays depend on: a split written with others is not gone on with.
        workers: how many processes a source may use.

    Raises:
        DataError: the data are not what :class:`~fmbench.data.raw.RawData` promises, or the disk is too small. What was in
            ``folder`` before is still there.
        LockedError: another process is preparing the same folder.
    """
    if raw.levels is not None and not 2 <= raw.levels <= 256:
        raise DataError(f"levels must be between 2 and 256, not {raw.levels}")
    if not (raw.scale > 0 and np.isfinite(raw.scale)):
        raise DataError(f"scale must be positive, not {raw.scale}")
    streams = {"train": _stream("train", raw.train, raw.train_labels), "test": _stream("test", raw.test, raw.test_labels)}
    partial = folder / PARTIAL
    splits: dict[str, _Split] = {}
    with _locked(partial), _cleared(partial, keep=all(s.prefix is not None for s in streams.values())):
        for name, stream in streams.items():
            key = {"spec": spec, "code": code}
            fresh = _Split(name, partial, raw.levels, splits.get("train"))
            splits[name] = fresh.resumed(stream, key) or fresh
            _fill(splits[name], stream, key, workers, console)
        if splits["train"].labelled != splits["test"].labelled:
            raise DataError("labels must be given for both splits or for none")
        manifest = {
            "dataset": spec["dataset"],
            "source": spec.get("source"),
            "variant": raw.variant,
            "description": raw.description,
            "preprocessing": raw.preprocessing,
            "spec": spec,
            "shape": list(splits["train"].shape),
            "levels": raw.levels,
            "scale": raw.scale,
            "support": raw.support,
            "entropy": raw.entropy,
            "classes": splits["train"].classes if splits["train"].labelled else None,
            "class_names": None if raw.class_names is None else list(raw.class_names),
            "splits": {name: split.entry() for name, split in splits.items()},
        }
        # From here on the folder is neither the old set nor the new one, so it has no manifest.
        (folder / "manifest.json").unlink(missing_ok=True)
        for name in ("train", "train_labels", "test", "test_labels"):
            written, final = partial / f"{name}.npy", folder / f"{name}.npy"
            final.unlink(missing_ok=True)
            if written.exists():
                os.replace(written, final)
        write_json(folder / "manifest.json", manifest)
    shutil.rmtree(partial, ignore_errors=True)
    return manifest


@contextlib.contextmanager
def _locked(partial: Path) -> Iterator[None]:
    partial.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(partial / "lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise LockedError(f"another process is preparing {partial.parent} right now; wait for it to end, then rerun") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _cleared(partial: Path, keep: bool) -> Iterator[None]:
    """Leave nothing of a preparation that failed, unless the next one can go on from it."""
    try:
        yield
    except BaseException:
        if not keep:
            shutil.rmtree(partial, ignore_errors=True)
        raise


def _stream(name: str, values: NDArray | Stream, labels: NDArray | None) -> Stream:
    if isinstance(values, Stream):
        if labels is not None:
            raise DataError(f"{name}_labels: the labels of a stream must be in its pieces")
        return values
    if labels is not None and labels.shape != values.shape[:1]:
        raise DataError(f"{name}_labels: expected {len(values)} integers from 0, found shape {labels.shape} of {labels.dtype}")
    return Stream(lambda start, workers: pieces(values, labels), n=len(values) if values.ndim else None)


def pieces(values: NDArray, labels: NDArray | None = None) -> Iterable[Piece]:
    """An array (N, ...) in pieces of about :data:`PIECE_BYTES`."""
    if values.ndim == 0 or len(values) == 0:
        yield values, labels  # for the checks to say what is wrong with it
        return
    rows = rows_per_piece(values[0].nbytes)
    for i in range(0, len(values), rows):
        yield values[i : i + rows], None if labels is None else labels[i : i + rows]


def rows_per_piece(row_bytes: int) -> int:
    """How many samples make a piece."""
    return max(1, PIECE_BYTES // max(row_bytes, 1))


def _fill(split: "_Split", stream: Stream, key: dict[str, Any], workers: int, console: Console | None) -> None:
    """Write what of a stream is not there yet."""
    start = split.n
    if start and console is not None:
        console.say(f"{split.name}: {start} samples were there already")
    progress = None if console is None or stream.n is None else console.progress(stream.n, f"{split.name} samples", start)
    saved = time.monotonic()
    try:
        for values, labels in stream.pieces(start, workers):
            if split.n == 0 and values.ndim and stream.n is not None:
                _check_disk(split.folder, stream.n * math.prod(values.shape[1:]) * values.itemsize)
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
        raise DataError(f"{split.name}: the source said that there are {stream.n} samples, and gave {split.n}")
    if split.n < 2:
        raise DataError(f"{split.name}: shape {(split.n, *split.shape)}, but at least two samples are needed")
    split.close()
    if stream.prefix is not None:
        split.save(stream.prefix(split.n), key)


def _check_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(f"{folder.parent}: these samples need {needed / 1e9:.1f} GB, and the disk has {free / 1e9:.1f} GB free")


class _Split:
    """One split while it is written: its files, and what is known of its samples so far."""

    def __init__(self, name: str, folder: Path, levels: int | None, train: "_Split | None") -> None:
        self.name, self.folder, self.levels, self.train = name, folder, levels, train
        self.n, self.classes = 0, 0
        self.shape: tuple[int, ...] = ()
        self.labelled = False
        self.statistics: Histogram | Moments = Moments() if levels is None else Histogram()
        self.values = ArrayFile(folder / f"{name}.npy")
        self.labels = ArrayFile(folder / f"{name}_labels.npy")
        self.note = folder / f"{name}.json"

    def append(self, values: NDArray, labels: NDArray | None) -> None:
        """Check a piece and write it.

        Raises:
            DataError: the piece is not of the promised kind.
        """
        self._look(values, labels)
        self.values.append(values)
        if labels is not None:
            self.labels.append(labels.astype(np.int64))
        self.n += len(values)  # at last, or what ends the process in a write would leave a note of more than there is

    def _look(self, values: NDArray, labels: NDArray | None) -> None:
        images = self.levels is not None
        if values.ndim != (4 if images else 2) or values.dtype != (np.uint8 if images else np.float32):
            kind = "images (N, C, H, W) of uint8" if images else "points (N, D) of float32"
            raise DataError(f"{self.name}: expected {kind}, found shape {values.shape} of {values.dtype}")
        if self.train is not None and values.shape[1:] != self.train.shape:
            whole = (self.train.n, *self.train.shape)
            raise DataError(f"{self.name}: shape {values.shape} does not go with train's {whole}")
        if self.n and values.shape[1:] != self.shape:
            raise DataError(f"{self.name}: samples of shape {values.shape[1:]} after {self.n} of {self.shape}")
        if self.n and (labels is not None) != self.labelled:
            raise DataError(f"{self.name}_labels: labels must be given for all samples or for none")
        if 0 in values.shape[1:]:
            raise DataError(f"{self.name}: samples of shape {values.shape[1:]} have no numbers")
        self.shape, self.labelled = values.shape[1:], labels is not None
        if len(values) == 0:
            return
        if self.levels is not None and values.max() >= self.levels:
            raise DataError(f"{self.name}: a pixel has the value {values.max()}, but there are only {self.levels} levels")
        if not images and not np.isfinite(values).all():
            raise DataError(f"{self.name}: some points are not finite")
        if labels is not None:
            if labels.shape != values.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0:
                found = f"found shape {labels.shape} of {labels.dtype}"
                if labels.dtype.kind in "iu" and labels.size:
                    found += f" from {labels.min()}"
                raise DataError(f"{self.name}_labels: expected {len(values)} integers from 0, {found}")
            self.classes = max(self.classes, int(labels.max()) + 1)
        self.statistics.add(values)

    def resumed(self, stream: Stream, key: dict[str, Any]) -> "_Split | None":
        """What an earlier writing left of this split, or None where that was nothing, or of other samples."""
        if stream.prefix is None or not self.note.exists():
            return None
        found = _Split(self.name, self.folder, self.levels, self.train)
        try:
            note = read_json(self.note)
            if note["key"] != key or note["prefix"] != stream.prefix(note["n"]):
                return None
            # What is there is read again rather than trusted: the statistics need it anyway.
            for values, labels in _reread(self.values.path, self.labels.path if note["labelled"] else None, note["n"]):
                found._look(values, labels)
                found.n += len(values)
            found.values.reopen(found.n)
            if found.labelled:
                found.labels.reopen(found.n)
        except (DataError, OSError, ValueError, KeyError, TypeError):
            return None
        return found

    def save(self, prefix: str, key: dict[str, Any]) -> None:
        """Note how far this split is, after what it counts is on the disk."""
        self.values.sync()
        self.labels.sync()
        write_json(self.note, {"key": key, "prefix": prefix, "n": self.n, "labelled": self.labelled})

    def close(self) -> None:
        self.values.close()
        self.labels.close()

    def entry(self) -> dict[str, Any]:
        """What the manifest says about this split."""
        entry: dict[str, Any] = {"n": self.n, **self.statistics.summary(), "sha256": sha256(self.values.path)}
        if self.labelled:
            labels = np.load(self.labels.path, mmap_mode="r")
            entry["labels_sha256"] = sha256(self.labels.path)
            entry["sorted_by_class"] = bool((labels[1:] >= labels[:-1]).all() and labels[-1] > labels[0])
        return entry


def _reread(values: Path, labels: Path | None, n: int) -> Iterable[Piece]:
    with open(values, "rb") as stream, contextlib.ExitStack() as stack:
        rows = read_rows(stream, n)
        if labels is None:
            yield from ((piece, None) for piece in rows)
            return
        of_labels = stack.enter_context(open(labels, "rb"))
        _, dtype = read_header(of_labels)
        for piece in rows:
            yield piece, np.frombuffer(of_labels.read(len(piece) * dtype.itemsize), dtype)


class ArrayFile:
    """An .npy file that grows by rows. Its bytes are those that ``np.save`` writes of the whole array.

    Written rather than mapped, so that what is on the disk is not in this process's memory too.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.n = path, 0
        self._file: IO[bytes] | None = None
        self._shape: tuple[int, ...] = ()
        self._dtype = np.dtype(np.uint8)

    def append(self, rows: NDArray) -> None:
        """Add rows (n, ...), all of the shape and type of the first."""
        if self._file is None:
            self._shape, self._dtype = rows.shape[1:], rows.dtype
            self._file = open(self.path, "w+b")  # noqa: SIM115 - closed by close
            self._header()
        self._file.write(rows.tobytes())
        self.n += len(rows)

    def reopen(self, n: int) -> None:
        """Go on after the first n rows of what is there; anything after them goes.

        Raises:
            ValueError: there are not so many.
        """
        self._file = open(self.path, "r+b")  # noqa: SIM115 - closed by close
        shape, self._dtype = read_header(self._file)
        self._shape, self.n = shape[1:], n
        end = self._file.tell() + n * math.prod(self._shape) * self._dtype.itemsize
        if self._file.seek(0, os.SEEK_END) < end:
            raise ValueError(f"{self.path} is shorter than {n} rows")
        self._file.truncate(end)
        self._file.seek(end)

    def _header(self) -> None:
        # numpy pads the header for any number of rows, so it can be written again over itself when there are more.
        assert self._file is not None
        values = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self.n, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, values)

    def sync(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write the number of rows and see everything to the disk."""
        if self._file is not None:
            self._file.seek(0)
            self._header()
            self.sync()
            self._file.close()
            self._file = None


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array in an .npy stream, which then stands at its first number.

    Raises:
        ValueError: it is not one, its order is Fortran's, or it holds Python objects.
    """
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"the version {version} of the .npy format is not known here")
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not loaded")
    if fortran and len(shape) > 1:
        raise ValueError("it is in Fortran's order; save np.ascontiguousarray of it")
    return shape, dtype


def read_rows(stream: IO[bytes], n: int | None = None) -> Iterable[NDArray]:
    """The first n rows (or all) of the array in an .npy stream, in pieces of about :data:`PIECE_BYTES`.

    Raises:
        ValueError: as :func:`read_header`, or the stream ends too early.
    """
    shape, dtype = read_header(stream)
    if not shape:
        raise ValueError("it is a single number")
    total = shape[0] if n is None else n
    row = math.prod(shape[1:]) * dtype.itemsize
    done = 0
    while done < total:
        count = min(rows_per_piece(row), total - done)
        data = read_exactly(stream, count * row)
        if len(data) < count * row:
            raise ValueError(f"it ends in row {done + len(data) // max(row, 1)} of {total}")
        yield np.frombuffer(data, dtype).reshape(count, *shape[1:])
        done += count


def read_exactly(stream: IO[bytes], count: int) -> bytes:
    """``count`` bytes, or fewer at the end: a compressed stream may give less than it is asked for."""
    parts = []
    while count > 0 and (part := stream.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


class Histogram:
    """How often each level occurs in each channel: exact statistics of any number of images, whatever the pieces."""

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] | None = None

    def add(self, values: NDArray) -> None:
        """Images (n, C, H, W) of uint8."""
        found = np.stack([np.bincount(values[:, c].ravel(), minlength=256) for c in range(values.shape[1])])
        self.counts = found if self.counts is None else self.counts + found

    def summary(self) -> dict[str, Any]:
        """Mean and standard deviation over all numbers, and for each channel."""
        assert self.counts is not None
        (mean, std), channels = _of_counts(self.counts.sum(0)), [_of_counts(c) for c in self.counts]
        return {"mean": mean, "std": std, "channel_mean": [m for m, _ in channels], "channel_std": [s for _, s in channels]}


def _of_counts(counts: NDArray[np.int64]) -> tuple[float, float]:
    levels = np.arange(256, dtype=np.float64)
    mean = float(counts @ levels) / float(counts.sum())
    return mean, math.sqrt(float(counts @ (levels - mean) ** 2) / float(counts.sum()))


class Moments:
    """Mean and standard deviation in float64, gathered from pieces by the update of Chan, Golub & LeVeque (1979)."""

    def __init__(self) -> None:
        self.n, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, values: NDArray) -> None:
        """Points (n, D)."""
        x = values.astype(np.float64)
        n, mean = self.n + x.size, float(x.mean())
        away = mean - self.mean
        self.squares += float(((x - mean) ** 2).sum()) + away * away * self.n * x.size / n
        self.mean += away * x.size / n
        self.n = n

    def summary(self) -> dict[str, Any]:
        """Mean and standard deviation over all numbers."""
        return {"mean": self.mean, "std": math.sqrt(self.squares / self.n)}
