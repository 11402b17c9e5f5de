"""Labels of any kind become class numbers; labels that are no classes are refused in words."""

import datetime
import decimal

import numpy as np
import pytest
from data_sources import SPEC

from fmbench.data import labels
from fmbench.data.labels import Codes, classes_of_splits
from fmbench.data.prepared import DataSet, read
from fmbench.data.raw import RawData, Stream
from fmbench.data.writer import write
from fmbench.errors import DataError
from fmbench.stages import prepare
from fmbench.system.progress import Console


def objects(values: list) -> np.ndarray:
    return np.fromiter(values, object, len(values))


def labelled(folder, train, test, names=None) -> DataSet:
    """A data set of points with these labels, in pieces of three samples."""

    def stream(given):
        def pieces(start, workers):
            for i in range(0, len(given), 3):
                part = given[i : i + 3]
                yield np.zeros((len(part), 2), np.float32), part

        return Stream(pieces, len(given))

    raw = RawData(stream(train), stream(test), "points", class_names=names, decline="the parameter label: none")
    write(raw, folder, SPEC)
    return read(folder)


@pytest.mark.parametrize(
    ("train", "ranks", "names"),
    [
        (np.array([2, 0, 1, 0, 1]), [2, 0, 1, 0, 1], None),
        (np.array([20231231, 19990101, 19990101, 20231231]), [1, 0, 0, 1], ["19990101", "20231231"]),
        (np.array([7, 3, 7, 5], np.uint8), [2, 0, 2, 1], ["3", "5", "7"]),
        (np.array([-1, 1, 1, -1]), [0, 1, 1, 0], ["-1", "1"]),
        (np.array([2**64 - 1, 0, 0, 1], np.uint64), [2, 0, 0, 1], ["0", "1", str(2**64 - 1)]),
        (objects([2**70, -(2**70), 2**70, 3]), [2, 0, 2, 1], [str(-(2**70)), "3", str(2**70)]),
        (np.array(["dog", "cat", "dog", "ant"]), [2, 1, 2, 0], ["ant", "cat", "dog"]),
        (np.array([b"dog", b"cat", b"dog", b"cat"]), [1, 0, 1, 0], ["cat", "dog"]),
        (objects(["10", "9", "9", "10"]), [0, 1, 1, 0], ["10", "9"]),
        (np.array([True, False, True]), [1, 0, 1], ["False", "True"]),
        (np.array([2.0, 0.0, 1.0, 1.0]), [2, 0, 1, 1], None),
        (np.array([1.5, 0.5, 10.0, 1.5]), [1, 0, 2, 1], ["0.5", "1.5", "10"]),
        (objects([decimal.Decimal("2.5"), decimal.Decimal("10.5"), decimal.Decimal("2.5")]), [0, 1, 0], ["2.5", "10.5"]),
        (objects([datetime.date(2024, 2, 1), datetime.date(1999, 1, 1)]), [1, 0], ["1999-01-01", "2024-02-01"]),
        (np.array(["2024-02-01", "1999-01-01"], "M8[ns]"), [1, 0], ["1999-01-01 00:00:00", "2024-02-01 00:00:00"]),
        (np.array([[1], [0], [1]]), [1, 0, 1], None),
        (objects([1, "a", 1, "b"]), [0, 1, 0, 2], ["1", "a", "b"]),
    ],
)
def test_labels_become_ranks(tmp_path, train, ranks, names):
    found = labelled(tmp_path, train, train[::-1])
    assert found.labels("train").tolist() == ranks and found.labels("test").tolist() == ranks[::-1]
    assert found.labels("train").dtype == np.int64
    assert (found.manifest["classes"], found.manifest["class_names"]) == (max(ranks) + 1, names)
    assert found.manifest["notes"] == []


def test_one_and_one_point_nought_are_a_class_and_true_is_another():
    codes = Codes("train")
    assert codes.encode(np.array([1, 0]), 2).tolist() == [1, 0]  # the different labels of a piece come sorted
    assert codes.encode(np.array([1.0, 2.0]), 2).tolist() == [1, 2]
    assert codes.encode(objects([True, 1, np.float32(0)]), 3).tolist() == [3, 1, 0]
    assert codes.counts == {0: 2, 1: 3, 2: 1, 3: 1}


def test_names_that_the_source_knows_keep_their_numbers(tmp_path):
    found = labelled(tmp_path, np.array([3, 1, 1]), np.array([0, 3]), ("ant", "bee", "cat", "dog"))
    assert found.labels("train").tolist() == [3, 1, 1] and found.labels("test").tolist() == [0, 3]
    assert (found.manifest["classes"], found.manifest["class_names"]) == (4, ["ant", "bee", "cat", "dog"])
    assert [note.split(".")[0] for note in found.manifest["notes"]] == [
        "the training split lacks the class ant of the test split",
        "the test split lacks the class bee of the training split",
        "no split has the class cat",
    ]


def test_a_word_on_classes_that_one_split_lacks(tmp_path):
    train, test = np.array([5, 1, 3, 5, 1]), np.array([9, 5, 2, 9])
    np.savez(tmp_path / "a.npz", train=np.zeros((5, 2)), test=np.zeros((4, 2)), y=train, z=test)
    spec = SPEC | {"source": "array", "parameters": {"path": str(tmp_path / "a.npz"), "train_labels": "y", "test_labels": "z"}}
    prepare.run(spec, tmp_path / "out", Console("prepare", "none", tmp_path / "log"))
    found = read(tmp_path / "out")
    assert (found.manifest["classes"], found.manifest["class_names"]) == (3, ["1", "3", "5", "2", "9"])
    assert found.labels("test").tolist() == [4, 2, 3, 4] and found.labels("train").tolist() == [2, 0, 1, 2, 0]
    said = (
        "the training split lacks 2 classes: 2, 9 of the test split. No classifier can learn such a class, so the classifier's "
        "accuracy counts these 3 test samples as wrong",
        "the test split lacks 2 classes: 1, 3 of the training split",
    )
    assert found.manifest["notes"] == list(said)
    assert all(f"note: {note}" in (tmp_path / "log").read_text() for note in said)


def test_minus_one_beside_other_classes_is_pointed_out(tmp_path):
    labels = np.array([-1, 0, 1, 0])
    assert labelled(tmp_path / "a", labels, labels).manifest["notes"] == [
        "the label -1, which often stands for a hidden label, counts as a class"
    ]
    assert labelled(tmp_path / "b", labels[:2], labels[:2]).manifest["notes"] == []


IDS, EYE = np.arange(20), np.eye(3, dtype=int)


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (
            EYE,
            EYE,
            r"train_labels: .*found shape \(3, 3\) of int64, so several .*argmax\(1\)",
        ),
        (np.zeros((4, 1, 1)), np.zeros(4), r"train_labels: expected 3 labels, .* shape \(3, 1, 1\)"),
        (objects([0, None, 1]), np.zeros(3), r"train_labels: a sample has no label \(found None\)"),
        (np.array([0, np.nan, 1]), np.zeros(3), r"train_labels: a sample has no label \(found nan\)"),
        (np.array(["NaT", "2020-01-01"], "M8[ns]"), np.zeros(3), r"train_labels: a sample has no label"),
        (objects([[1, 2], [1]]), np.zeros(3), r"train_labels: expected one label for each sample, found a list, .*: \[1, 2\]"),
        (objects([{"name": "cat"}]), np.zeros(3), r"found a dictionary: \{'name': 'cat'\}"),
        (objects([0, bytearray(b"x")]), np.zeros(3), r"expected numbers or text, found bytearray"),
        (np.zeros(3, complex), np.zeros(3), r"train_labels: expected numbers or text, found labels of complex128"),
        (np.zeros(3, int), np.full(3, -1), r"test_labels: 3 test samples have the label -1, which training lacks"),
        (np.zeros(3, int), np.array([0, -1, 0]), r"test_labels: 1 test samples have the label -1, which training lacks"),
        (np.zeros(3, int), np.array(["0"] * 3), r"no label of the test split is in .*: test has '0'; train has 0"),
        (
            np.array(["a", "b"]),
            np.array(["c", "d"]),
            r"no label of the test split is in .*: test has 'c', 'd'; train has 'a', 'b'",
        ),
        (IDS, IDS, r"train_labels: 20 different labels for 20 samples \(0, 1, 2, 3, 4, 5, 6, 7 and 12 more\): these are ident"),
        (IDS // 1.9 * 0.5, IDS, r"11 different labels for 20 samples .0, 0.5, 1, 1.5"),
    ],
)
def test_labels_that_are_no_classes_are_refused(tmp_path, train, test, said):
    with pytest.raises(DataError, match=said) as caught:
        labelled(tmp_path, train, test)
    assert "the parameter label: none (then the samples have no labels)" in str(caught.value)
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize(("label", "said"), [(-1, "found -1, which often stands for a hidden label"), (3, "3"), ("a", "'a'")])
def test_a_label_outside_the_known_names(tmp_path, label, said):
    with pytest.raises(DataError, match=rf"test_labels: expected integers from 0 to 2, found {said}|{said}"):
        labelled(tmp_path, np.array([0, 1, 2]), objects([0, label]), ("a", "b", "c"))


def test_too_many_classes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(labels, "LIMIT", 7)
    labelled(tmp_path / "seven", np.arange(14) % 7, np.arange(14) % 7)
    with pytest.raises(DataError, match="more than 7 different labels, which fmbench takes for identifiers"):
        labelled(tmp_path / "eight", np.arange(16) % 8, np.arange(14) % 7)


def test_labels_on_one_side_only(tmp_path):
    raw = RawData(np.zeros((3, 2), np.float32), np.ones((3, 2), np.float32), "x", train_labels=np.ones(3), decline="label: none")
    with pytest.raises(DataError, match=r"test_labels: .* both splits or for none\. Remedy: label: none"):
        write(raw, tmp_path, SPEC)


@pytest.mark.parametrize("kinds", [["dog", "cat", "ant"], [2**70, -5, 7], [datetime.date(2024, 1, d) for d in (9, 5, 7)]])
def test_a_resumed_preparation_numbers_the_labels_alike(tmp_path, kinds):
    """The third class comes after the interruption. Dates cannot be kept in the note, so such a preparation starts anew."""
    given = objects([kinds[0], kinds[1]] * 8 + [kinds[2]] * 8)
    started: list[int] = []

    def stream(stop=None):
        def pieces(start, workers):
            started.append(start)
            for i in range(start, 24, 3):
                if i == stop:
                    raise KeyboardInterrupt
                yield np.full((3, 1, 2, 2), i, np.uint8), given[i : i + 3]

        return Stream(pieces, 24, lambda n: str(n))

    with pytest.raises(KeyboardInterrupt):
        write(RawData(stream(15), stream(), "x", levels=256), tmp_path / "cut", SPEC)
    for name in ("cut", "whole"):
        write(RawData(stream(), stream(), "x", levels=256), tmp_path / name, SPEC)
    assert started == [0, 15 if isinstance(kinds[0], str | int) else 0, 0, 0, 0]
    found = read(tmp_path / "cut")
    assert found.labels("train").tolist() == [2, 1] * 8 + [0] * 8 if kinds[0] == "dog" else found.manifest["classes"] == 3
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "cut" / path.name).read_bytes()


def test_codes_that_no_label_has_are_not_resumed():
    codes = Codes("train")
    codes.restore(["a", "b"])
    with pytest.raises(ValueError, match="not of a known label"):
        codes.count(np.array([0, 2]))
    codes.count(np.array([1, 0, 1]))
    assert classes_of_splits(codes, codes).count == 2
