"""Labels of any kind as class numbers 0, 1, ..., k - 1.

A source gives labels as it finds them: numbers, text, truth values, dates. While a split is written, each new label gets the
next free number (its *code*), so that only the different labels are in memory. When both splits are whole, the codes become
class numbers: the labels of the training split in sorted order, then those that only the test split has. A source that knows
its classes by name gives numbers into its list of names, and these stay.
"""

import collections
import decimal
import numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmbench.errors import DataError, first_few

LIMIT = 100_000
"""The largest number of classes. ImageNet-21k has 21,841."""
FEW = 20
"""The number of samples from which labels that hardly repeat are refused: they are identifiers or measurements, not classes."""


@dataclass(frozen=True)
class Classes:
    """What the two splits' labels mean.

    Attributes:
        count: the number of classes, which is the number of a classifier's outputs. Test labels from ``count`` on are classes
            that training lacks.
        names: the names of the classes, then of those that only the test split has; None if the labels are such numbers already.
        maps: for each split the class number of each code.
        notes: what a reader of the labels should know, in sentences.
    """

    count: int
    names: tuple[str, ...] | None
    maps: dict[str, NDArray[np.int64]]
    notes: tuple[str, ...]


@dataclass
class Codes:
    """The labels of one split, numbered as they come.

    Attributes:
        split: ``train`` or ``test``, for messages.
        names: the class names that a source knows, or None. With names, a label is a number into them.
        decline: how a config prepares the samples without labels, for messages.
        values: the labels in the order of their codes.
        counts: how many samples each code has.
    """

    split: str
    names: tuple[str, ...] | None = None
    decline: str = ""
    values: list[Any] = field(default_factory=list)
    counts: collections.Counter[int] = field(default_factory=collections.Counter)
    _codes: dict[Any, int] = field(default_factory=dict)

    def encode(self, labels: NDArray, n: int) -> NDArray[np.int64]:
        """The codes (n,) of the labels of n samples, (n,) or (n, 1), of any type.

        Raises:
            DataError: the labels are of another number, hidden, or several for a sample; or there are too many classes.
        """
        found = self._flat(labels, n)
        kinds, where = _different(found)
        codes = np.array([self._code(value) for value in kinds], np.int64)[where] if n else np.zeros(0, np.int64)
        self.count(codes)
        return codes

    def count(self, codes: NDArray[np.int64]) -> None:
        """Count codes, such as those that an earlier preparation wrote.

        Raises:
            ValueError: a code is not of a known label.
        """
        if len(codes) and not 0 <= codes.min() <= codes.max() < len(self.names or self.values):
            raise ValueError(f"{self.split}: a code is not of a known label")
        found, often = np.unique(codes, return_counts=True)
        self.counts.update(dict(zip(found.tolist(), often.tolist(), strict=True)))

    def saved(self) -> list[Any] | None:
        """The labels as JSON keeps them without a change; None if it cannot."""
        return self.values if all(type(v) in (int, str, bool, float) for v in self.values) else None

    def restore(self, saved: list[Any]) -> None:
        """Continue with the labels that :meth:`saved` gave."""
        self.values = list(saved)
        self._codes = {_key(value): i for i, value in enumerate(saved)}

    def refuse(self, what: str, remedy: str = "") -> DataError:
        """The error for labels that cannot be used, with its remedies."""
        wayout = "; or ".join(
            text for text in (remedy, self.decline and f"{self.decline} (then the samples have no labels)") if text
        )
        return DataError(f"{self.split}_labels: {what}" + (f". Remedy: {wayout}" if wayout else ""))

    def _flat(self, labels: NDArray, n: int) -> NDArray:
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim == 2 and labels.shape[0] == n:
            raise self.refuse(
                f"expected one label for each sample, found shape {labels.shape} of {labels.dtype}, so several labels for a "
                "sample or one-hot rows",
                "make one label of each row, such as labels.argmax(1) for one-hot rows",
            )
        if labels.shape != (n,):
            raise self.refuse(f"expected {n} labels, one for each sample, found shape {labels.shape} of {labels.dtype}")
        if labels.dtype.kind not in "biufUSOM":
            raise self.refuse(f"expected numbers or text, found labels of {labels.dtype}")
        return labels.astype("M8[us]") if labels.dtype.kind == "M" else labels  # numpy gives finer times as bare integers

    def _code(self, value: Any) -> int:
        """The code of a label, a new one if it is new."""
        value = self._plain(value)
        if self.names is not None:
            if type(value) is not int or not 0 <= value < len(self.names):
                hidden = ", which often stands for a hidden label" if value == -1 else ""
                raise self.refuse(f"expected integers from 0 to {len(self.names) - 1}, found {_show(value)}{hidden}")
            return value
        key = _key(value)
        if key not in self._codes:
            if len(self.values) >= LIMIT:
                raise self.refuse(f"more than {LIMIT} different labels, which fmbench takes for identifiers, not classes")
            self._codes[key] = len(self.values)
            self.values.append(value)
        return self._codes[key]

    def _plain(self, value: Any) -> Any:
        """A label as a plain value of Python: 3.0 is 3, bytes are text."""
        value = value.item() if isinstance(value, np.generic) else value
        if value is None or (isinstance(value, float) and value != value):
            raise self.refuse(f"a sample has no label (found {value})", "give every sample a label, or leave these samples out")
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, bytes):
            return value.decode("utf-8", "surrogateescape")
        if isinstance(value, list | tuple | dict | set | np.ndarray):
            what = "a dictionary" if isinstance(value, dict) else "a list, so several labels"
            raise self.refuse(f"expected one label for each sample, found {what}: {_show(value)}")
        try:
            hash(value)
        except TypeError:
            raise self.refuse(f"expected numbers or text, found {_show(value)}") from None
        return value


def _different(labels: NDArray) -> tuple[list[Any], NDArray[np.int64]]:
    """The different labels, and for each sample the place of its label among them."""
    if labels.dtype.kind != "O":
        found, where = np.unique(labels, return_inverse=True)
        return list(found.tolist()), where.reshape(labels.shape)
    places: dict[Any, int] = {}
    values: list[Any] = []
    where = np.empty(len(labels), np.int64)
    for i, value in enumerate(labels):
        try:
            place = places.setdefault(_key(value), len(values))
        except TypeError:  # not hashable; what is wrong with it is said where it is coded
            place = len(values)
        if place == len(values):
            values.append(value)
        where[i] = place
    return values, where


def _key(value: Any) -> Any:
    """What makes two labels the same: True is not 1, but 1.0 is."""
    return (bool, value) if isinstance(value, bool | np.bool_) else value


def _order(value: Any) -> tuple[str, Any]:
    """The place of a label in sorted order; numbers come before all others."""
    if isinstance(value, numbers.Real | decimal.Decimal):
        return "", value
    return type(value).__name__, value if isinstance(value, str) else str(value)


def classes_of_splits(train: Codes, test: Codes) -> Classes:
    """The classes of two whole splits.

    Raises:
        DataError: the labels are no classes, or no label of the test split is in the training split.
    """
    if train.names is not None:
        same = np.arange(len(train.names))
        missing = sorted(set(same.tolist()) - set(train.counts) - set(test.counts))
        notes = _notes(train, test, sorted(set(test.counts) - set(train.counts)), missing)
        return Classes(len(train.names), train.names, {"train": same, "test": same}, notes)
    n, k = sum(train.counts.values()), len(train.counts)
    if n >= FEW and 2 * k > n:
        shown = _few(_names(train, train.counts))
        raise train.refuse(
            f"{k} different labels for {n} samples ({shown}): these are identifiers or measurements, not classes",
            "give labels that several samples share",
        )
    known = {_key(value) for value in train.values}
    new = sorted((v for v in test.values if _key(v) not in known), key=_order)
    _check_common(train, test)
    values = sorted(train.values, key=_order) + new
    place = {_key(value): i for i, value in enumerate(values)}
    plain = all(type(v) is int for v in values) and values == list(range(len(values)))
    maps = {c.split: np.array([place[_key(v)] for v in c.values], np.int64) for c in (train, test)}
    notes = _notes(train, test, [code for code, v in enumerate(test.values) if _key(v) not in known], [])
    return Classes(len(train.values), None if plain else tuple(map(str, values)), maps, notes)


def _check_common(train: Codes, test: Codes) -> None:
    """Refuse test labels that are hidden, or all unknown to training."""
    of_train, of_test = (list(map(_key, codes.values)) for codes in (train, test))
    if -1 in of_test and -1 not in of_train:
        raise test.refuse(
            f"{test.counts[of_test.index(-1)]} test samples have the label -1, which training lacks and which often stands for a "
            "hidden label",
            "give a test split whose labels are known",
        )
    if not set(of_train) & set(of_test):
        shown = [first_few([_show(value) for value in sorted(codes.values, key=_order)]) for codes in (test, train)]
        raise test.refuse(
            f"no label of the test split is in the training split: test has {shown[0]}; train has {shown[1]}",
            "give both splits labels of the same kind",
        )


def _notes(train: Codes, test: Codes, new: Sequence[int], missing: Sequence[int]) -> tuple[str, ...]:
    """Sentences about classes that only one split has, or none, and about a label that looks hidden."""
    notes = []
    if new:
        samples = sum(test.counts[code] for code in new)
        notes.append(
            f"the training split lacks {_classes(_names(test, new))} of the test split. No classifier can learn such a "
            f"class, so the classifier's accuracy counts these {samples} test samples as wrong"
        )
    of_test = set(_names(test, test.counts))
    absent = [name for name in _names(train, train.counts) if name not in of_test]
    if absent:
        notes.append(f"the test split lacks {_classes(absent)} of the training split")
    if missing:
        notes.append(f"no split has {_classes(_names(train, missing))}")
    if -1 in train.values and len(train.values) > 2 and all(type(v) is int and v >= -1 for v in train.values):
        notes.append("the label -1, which often stands for a hidden label, counts as a class")
    return tuple(notes)


def _names(codes: Codes, of: Iterable[int]) -> list[str]:
    """The names of some codes, in the order of their classes."""
    if codes.names is not None:
        return [codes.names[code] for code in sorted(of)]
    return [str(value) for value in sorted((codes.values[code] for code in of), key=_order)]


def _classes(names: list[str]) -> str:
    return f"{'the class' if len(names) == 1 else f'{len(names)} classes:'} {_few(names)}"


def _few(names: list[str]) -> str:
    return first_few([_show(name, False) for name in names])


def _show(value: Any, quoted: bool = True) -> str:
    text = repr(value) if quoted else str(value)
    return text if len(text) <= 60 else f"{text[:57]} [{len(text)} characters]"
