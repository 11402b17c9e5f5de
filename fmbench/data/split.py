"""One split while it is written: its files, what is known of its samples so far, and the note to resume from."""

import contextlib
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmbench.config.hashing import canonical
from fmbench.data.conversion import Conversion
from fmbench.data.labels import Codes
from fmbench.data.npy import ArrayFile, read_header, read_rows
from fmbench.data.raw import Piece, Stream
from fmbench.data.statistics import Histogram, Moments
from fmbench.errors import DataError
from fmbench.store.files import read_json, sha256, write_json


class Split:
    """One split while it is written: its files, and what is known of its samples so far.

    Its labels are on the disk as codes (:class:`~fmbench.data.labels.Codes`) until :meth:`number` makes class numbers of them.

    Args:
        codes: the labels, with the name of the split.
        levels: of images; None for points.
        shift: of points, of shape () or (D,).
        train: the training split, if this is the other one.
    """

    def __init__(
        self, codes: Codes, folder: Path, levels: int | None, shift: NDArray[np.float64], train: "Split | None" = None
    ) -> None:
        self.name, self.codes, self.folder, self.levels, self.train = codes.split, codes, folder, levels, train
        name = self.name
        self.conversion = Conversion(name, shift)
        self.n = 0
        self.shape: tuple[int, ...] = ()
        self.labelled = False
        self.statistics: Histogram | Moments = Moments() if levels is None else Histogram()
        self.values = ArrayFile(folder / f"{name}.npy")
        self.labels = ArrayFile(folder / f"{name}_codes.npy")
        self.digests = (self.values.digest, self.labels.digest)  # of the first n samples
        self.note = folder / f"{name}.json"

    def append(self, values: NDArray, labels: NDArray | None) -> None:
        """Check a piece and write it.

        Raises:
            DataError: the piece is not what the source promised.
        """
        if not isinstance(values, np.ndarray):
            raise DataError(f"{self.name}: expected a numpy array, found a {type(values).__name__}; convert it, as by np.asarray")
        if self.levels is None:
            values = self.conversion(values)
        self._look(values, labels)
        codes = None if labels is None else self.codes.encode(labels, len(values))
        self.values.append(values)
        if codes is not None:
            self.labels.append(codes)
        # Last: after a kill in a write, the note must not count more samples than both files have.
        self.n, self.digests = self.n + len(values), (self.values.digest, self.labels.digest)

    def _look(self, values: NDArray, labels: NDArray | None) -> None:
        images = self.levels is not None
        if values.ndim != (4 if images else 2) or values.dtype != (np.uint8 if images else np.float32):
            kind = "images (N, C, H, W) of uint8" if images else "points (N, D) of float32"
            raise DataError(f"{self.name}: expected {kind}, found shape {values.shape} of {values.dtype}")
        if self.train is not None and values.shape[1:] != self.train.shape:
            whole = (self.train.n, *self.train.shape)
            raise DataError(f"{self.name}: shape {values.shape} does not match train's {whole}")
        if self.n and values.shape[1:] != self.shape:
            raise DataError(f"{self.name}: samples of shape {values.shape[1:]} after {self.n} of {self.shape}")
        if self.n and (labels is not None) != self.labelled:
            raise self.codes.refuse("labels must be given for all samples or for none")
        if 0 in values.shape[1:]:
            raise DataError(f"{self.name}: samples of shape {values.shape[1:]} are empty")
        self.shape, self.labelled = values.shape[1:], labels is not None
        if len(values) == 0:
            return
        if self.levels is not None and values.max() >= self.levels:
            raise DataError(f"{self.name}: a pixel has the value {values.max()}, but there are only {self.levels} levels")
        self.statistics.add(values)

    def resumed(self, stream: Stream, key: dict[str, Any]) -> tuple["Split | None", str]:
        """The split that an earlier preparation left, or None and the reason; the reason is empty if there is nothing."""
        if stream.prefix is None or not self.note.exists():
            return None, ""
        codes = Codes(self.name, self.codes.names, self.codes.decline)
        found = Split(codes, self.folder, self.levels, self.conversion.shift, self.train)
        try:
            note = read_json(self.note)
            if note["digest"] != _digest(note):
                return None, f"{self.note} is damaged"
            if note["key"] != key or note["prefix"] != stream.prefix(note["n"]):
                return None, "they are of other files, parameters or code"
            codes.restore(note["labels"])
            # Read the samples again rather than trust the file; the statistics need them anyway.
            for values, labels in _reread(self.values.path, self.labels.path if note["labelled"] else None, note["n"]):
                found._look(values, labels)
                if labels is not None:
                    codes.count(labels)
                found.n += len(values)
            found.conversion.step = note["step"]
            of_values, of_labels = found.digests = tuple(note["digests"])
            found.values.reopen(found.n, of_values)
            if found.labelled:
                found.labels.reopen(found.n, of_labels)
        except (DataError, OSError, ValueError, KeyError, TypeError) as error:
            return None, f"they are damaged ({error})"
        return found, ""

    def save(self, prefix: str, key: dict[str, Any]) -> None:
        """Write the note of this split's progress, after its samples are on the disk.

        Points that were converted have no note, because what the conversion lost cannot be measured again. Labels that JSON does
        not keep, such as dates, have none either.
        """
        if not self.conversion.exact:
            return
        self.values.sync()
        self.labels.sync()
        labels = self.codes.saved()
        if labels is None:
            return
        note = {"key": key, "prefix": prefix, "n": self.n, "labelled": self.labelled, "labels": labels}
        note |= {"digests": self.digests, "step": self.conversion.step}
        write_json(self.note, note | {"digest": _digest(note)})

    def close(self) -> None:
        self.values.close()
        self.labels.close()

    def number(self, classes: NDArray[np.int64]) -> None:
        """Write the class numbers of the samples, which ``classes`` gives for each code."""
        labels = ArrayFile(self.folder / f"{self.name}_labels.npy")
        with open(self.labels.path, "rb") as stream:
            for codes in read_rows(stream, self.n):
                labels.append(classes[codes])
        labels.close()

    def entry(self) -> dict[str, Any]:
        """The manifest's entry for this split."""
        entry: dict[str, Any] = {"n": self.n, **self.statistics.summary(), "sha256": sha256(self.values.path)}
        if self.labelled:
            path = self.folder / f"{self.name}_labels.npy"
            labels = np.load(path, mmap_mode="r")
            entry["labels_sha256"] = sha256(path)
            entry["sorted_by_class"] = bool((labels[1:] >= labels[:-1]).all() and labels[-1] > labels[0])
        return entry


def _digest(note: dict[str, Any]) -> str:
    """The sha256 of a note without its own digest."""
    return hashlib.sha256(canonical({k: v for k, v in note.items() if k != "digest"}).encode()).hexdigest()


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
