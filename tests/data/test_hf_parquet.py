"""Parquet files of the Hugging Face hub."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_sources import prepared
from PIL import Image

from fmbench.data.sources import make
from fmbench.errors import DataError

G = np.random.default_rng(0)


def hub(root: Path, split: str, counts: list[int], column: str = "img", label: str | None = "label", size=(9, 9)) -> list:
    """Shards as the hub writes them: a struct of bytes and path, and the features in the schema's metadata."""
    originals = []
    root.mkdir(parents=True, exist_ok=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for k, n in enumerate(counts):
        values, labels = [], []
        for _ in range(n):
            pixels = G.integers(0, 256, (*size, 3), np.uint8)
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "PNG")
            values.append({"bytes": stream.getvalue(), "path": None})
            labels.append(len(originals) % 3)
            originals.append(pixels)
        table = {column: pa.array(values, kind)} | ({label: pa.array(labels, pa.int64())} if label else {})
        features = {column: {"_type": "Image"}, "label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}
        schema = pa.table(table).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(schema, root / f"{split}-{k:05}-of-{len(counts):05}.parquet", row_group_size=10)
    return originals


def test_parquet_of_the_hub(tmp_path):
    train, test = hub(tmp_path / "d/data", "train", [70, 33]), hub(tmp_path / "d/data", "test", [11])
    found = prepared("hf_parquet", tmp_path / "out", path=str(tmp_path / "d"))
    assert np.array_equal(found.train, np.stack(train).transpose(0, 3, 1, 2))
    assert np.array_equal(found.test, np.stack(test).transpose(0, 3, 1, 2))
    assert np.array_equal(found.labels("train"), np.arange(103) % 3)
    assert found.manifest["class_names"] == ["a", "b", "c"]
    small = prepared("hf_parquet", tmp_path / "small", path=str(tmp_path / "d"), size=4, channels=1)
    assert small.shape == (1, 4, 4)


def test_parquet_without_labels_under_another_pattern(tmp_path):
    hub(tmp_path / "d", "train", [5], "image", None)
    hub(tmp_path / "d", "validation", [5], "image", None)
    found = prepared("hf_parquet", tmp_path / "out", path=str(tmp_path / "d"), test="validation-*.parquet")
    assert found.manifest["classes"] is None and len(found.test) == 5


@pytest.mark.parametrize(
    ("labels", "ranks", "names"),
    [
        (["dog", "cat", "dog"], [1, 0, 1], ["cat", "dog"]),
        ([2.0, 0.0, 1.0], [2, 0, 1], None),
        ([0.5, -1.5, 0.5], [1, 0, 1], ["-1.5", "0.5"]),
        (pa.array(["b", "a", "b"]).dictionary_encode(), [1, 0, 1], ["a", "b"]),
        ([True, False, True], [1, 0, 1], ["False", "True"]),
        ([[1], [0], [1, 0]], "expected one label for each sample, found a list", None),
        ([0, None, 1], r"train.parquet, row 1: its label is missing \(null\)", None),
        ([None, None, None], r"train.parquet, row 0: its label is missing", None),
    ],
)
def test_labels_of_a_column(tmp_path, labels, ranks, names):
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "PNG")
    for split in ("train", "test"):
        pq.write_table(
            pa.table({"img": [stream.getvalue()] * 3, "label": labels, "split": [split] * 3}), tmp_path / f"{split}.parquet"
        )
    if isinstance(ranks, str):
        with pytest.raises(DataError, match=f"{ranks}.* the parameter label: none"):
            prepared("hf_parquet", tmp_path / "out", path=str(tmp_path))
    else:
        found = prepared("hf_parquet", tmp_path / "out", path=str(tmp_path))
        assert found.labels("train").tolist() == ranks and found.manifest["class_names"] == names
    found = prepared("hf_parquet", tmp_path / "none", path=str(tmp_path), label="none")
    assert found.manifest["classes"] is None and found.manifest["class_names"] is None and len(found.train) == 3


def test_incomplete_parquet(tmp_path):
    root = tmp_path / "d"
    with pytest.raises(DataError, match=r"d: expected a folder of parquet files, found nothing"):
        make("hf_parquet", {"path": str(root)})
    hub(root, "train", [5, 5, 5])
    with pytest.raises(
        DataError, match=r"expected files test\*.parquet or .* for test, found train-\*-of-00003.parquet \(3 of 3 files\)"
    ):
        make("hf_parquet", {"path": str(root)})
    hub(root, "test", [5])
    hub(tmp_path / "none", "train", [0])
    hub(tmp_path / "none", "test", [5])
    with pytest.raises(DataError, match=r"train-00000-of-00001.parquet: expected two images or more for train, found none"):
        make("hf_parquet", {"path": str(tmp_path / "none")})
    with pytest.raises(DataError, match="expected a column pixels, found img, label"):
        make("hf_parquet", {"path": str(root), "image": "pixels"})
    path = root / "train-00001-of-00003.parquet"
    data = path.read_bytes()
    path.write_bytes(data[:-20])
    with pytest.raises(DataError, match=r"train-00001-of-00003.parquet \(\d+ bytes\) is truncated or not a parquet file"):
        make("hf_parquet", {"path": str(root)})
    path.write_bytes(data[:200] + bytes(1000) + data[1200:])
    with pytest.raises(DataError, match=r"train-00001-of-00003.parquet"):
        prepared("hf_parquet", tmp_path / "out", path=str(root))
    path.unlink()
    with pytest.raises(DataError, match=r"train-00001-of-00003.parquet missing \(1 of 3 files\)"):
        make("hf_parquet", {"path": str(root)})


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"img": [None, None]}, "row 0: expected an encoded image, found NoneType"),
        ({"img": [b"no", b"image"]}, "row 0 cannot be read as an image"),
        ({"other": [1, 2]}, "expected a column img or image, found other"),
    ],
)
def test_parquet_of_other_data(tmp_path, table, said):
    for split in ("train", "test"):
        pq.write_table(pa.table(table | {"split": [split] * 2}), tmp_path / f"{split}.parquet")
    with pytest.raises(DataError, match=said):
        prepared("hf_parquet", tmp_path / "out", path=str(tmp_path))
