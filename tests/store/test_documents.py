"""JSON documents: a seal, a shape, and errors in words."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from sealed_files import content_of

from fmbench.errors import DataError
from fmbench.store import limits
from fmbench.store.documents import UNSEALED, read_document, write_document
from fmbench.store.seal import sealed
from fmbench.store.shapes import Benchmark, Cell, Checked, Manifest, ModelConfig

HASH = "0123456789abcdef" * 4
SPLITS: dict[str, Any] = {
    "train": {"n": 3, "sha256": HASH, "std": 0.5},
    "test": {"n": 2, "sha256": HASH, "std": 0.5, "labels_sha256": HASH},
}
MANIFEST: dict[str, Any] = {
    "dataset": "d",
    "spec": {"dataset": "d"},
    "shape": [2],
    "levels": None,
    "scale": 1,
    "shift": [0.5, 0.5],
    "support": None,
    "entropy": None,
    "classes": None,
    "class_names": None,
    "splits": SPLITS,
    "warnings": [],
    "more": "any",
}


def test_a_document_comes_back_and_has_sorted_keys(tmp_path):
    write_document(tmp_path / "a.json", MANIFEST)
    assert read_document(tmp_path / "a.json", Manifest) == MANIFEST == content_of(tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text()
    assert list(json.loads(text)) == sorted([*MANIFEST, "seal"]) and text.endswith("}\n")
    with pytest.raises(ValueError, match="cannot have the key 'seal'"):
        write_document(tmp_path / "b.json", {"seal": ""})


def refusal(path: Path, shape: type[BaseModel]) -> str:
    with pytest.raises(DataError) as refused:
        read_document(path, shape, "do it again", "; make it")
    return str(refused.value)


def resealed(path: Path, text: str) -> None:
    """Write a text with a seal before its first brace or bracket, which need not be JSON."""
    path.write_bytes(sealed(text.replace("SEAL", UNSEALED).encode()))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"seal": "SEAL"', "is not valid JSON (Expecting ',' delimiter"),
        ('["SEAL"]', "is not a Cell of this version of fmbench (Input should be a valid dictionary or instance of Cell, not ['"),
        ('"SEAL"', "is not a Cell of this version of fmbench (Input should be a valid dictionary"),
        ('{"seal": "SEAL"}', "is not a Cell of this version of fmbench (key: Field required)"),
        ('{"seal": "SEAL", "key": 1}', "is not a Cell of this version of fmbench (value: Field required)"),
        (
            '{"seal": "SEAL", "key": ' + 100_000 * "[" + 100_000 * "]" + "}",
            "is not valid JSON (it holds lists or objects in one another without end)",
        ),
        ('{"seal": "SEAL", "key": NaN}', "is not valid JSON (it holds NaN"),
        ('{"seal": "SEAL", "key": "\\ud800"}', "is not valid JSON (it holds half of a surrogate pair"),
        ('{"seal": "SEAL", "key": ' + 5000 * "9" + "}", "is not valid JSON (Exceeds the limit"),
    ],
)
def test_what_is_no_document_is_refused_in_words(tmp_path, text, reason):
    resealed(tmp_path / "a.json", text)
    assert refusal(tmp_path / "a.json", Cell).startswith(f"{tmp_path / 'a.json'} {reason}")
    assert refusal(tmp_path / "a.json", Cell).endswith("; do it again")


def test_files_that_cannot_be_read_are_refused_in_words(tmp_path, monkeypatch):
    assert refusal(tmp_path / "a.json", Cell) == f"{tmp_path / 'a.json'} is missing; make it"
    (tmp_path / "folder.json").mkdir()
    assert "is not a regular file" in refusal(tmp_path / "folder.json", Cell)
    for content in (b"", b"{}", b"\xff\xfe", b"[]", json.dumps(MANIFEST).encode()):
        (tmp_path / "a.json").write_bytes(content)
        assert (
            "cannot be used: it has no checksum: it is damaged, was changed by hand, or comes from an earlier version"
            in refusal(tmp_path / "a.json", Manifest)
        )
    monkeypatch.setattr(limits, "DOCUMENT", 1 << 20)
    (tmp_path / "a.json").write_bytes(bytes((1 << 20) + 1))
    assert "is larger than 1 MiB, and no such file is; do it again" in refusal(tmp_path / "a.json", Manifest)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"splits": []}, "splits: "),
        ({"splits": {"train": SPLITS["train"]}}, "splits.test: Field required"),
        ({"splits": SPLITS | {"test": SPLITS["test"] | {"n": "5"}}}, "splits.test.n: Input should be a valid integer, not '5'"),
        (
            {"splits": SPLITS | {"test": SPLITS["test"] | {"sha256": "another"}}},
            "splits.test.sha256: String should match pattern",
        ),
        ({"splits": SPLITS | {"train": 3}}, "splits.train: "),
        ({"shape": "2"}, "shape: Input should be a valid list, not '2'"),
        ({"shape": [0]}, "shape.0: Input should be greater than or equal to 1, not 0"),
        ({"shape": [2.0]}, "shape.0: Input should be a valid integer, not 2.0"),
        ({"levels": True}, "levels: "),
        ({"levels": 300}, "levels: "),
        ({"scale": 0.0}, "scale"),
        ({"classes": {}}, "classes: "),
        ({"spec": None}, "spec: "),
    ],
)
def test_a_manifest_of_another_shape_is_refused_with_the_place(tmp_path, changes, place):
    write_document(tmp_path / "manifest.json", MANIFEST | changes)
    said = refusal(tmp_path / "manifest.json", Manifest)
    assert f"manifest.json is not a Manifest of this version of fmbench ({place}" in said


def test_every_key_that_a_shape_names_is_needed(tmp_path):
    for name in set(MANIFEST) - {"more"}:
        write_document(tmp_path / "a.json", {k: v for k, v in MANIFEST.items() if k != name})
        assert f"({name}: Field required)" in refusal(tmp_path / "a.json", Manifest)
    for shape in (Benchmark, Checked, ModelConfig):
        write_document(tmp_path / "a.json", {})
        assert f"is not a {shape.__name__} of this version" in refusal(tmp_path / "a.json", shape)
