"""Images that are smaller than the size of their data set."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow.parquet import write_table

from fmbench.config.datasets import split_sizes
from fmbench.config.reading import parse
from fmbench.data.folders import folder
from fmbench.data.images import Item
from fmbench.data.parquet import hf_parquet
from fmbench.data.size_filter import large_enough
from fmbench.errors import ConfigError, DataError

SIZES = ((10, 9), (8, 20), (7, 30), (30, 7), (8, 8))  # width and height: the third and the fourth are below 8
KEPT = [True, True, False, False, True]


def encoded(width: int, height: int, kind: str = "PNG") -> bytes:
    """An image whose pixels are its width times 5."""
    stream = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 5 * width, np.uint8)).save(stream, kind)
    return stream.getvalue()


def test_the_short_side_decides_and_nothing_is_decoded():
    items = [Item(f"{i}", None, encoded(*size)[:60]) for i, size in enumerate(SIZES)]  # their pixels are missing
    assert large_enough(items, 8, "drop") == KEPT
    assert large_enough(items, 8, None) is None and large_enough(items, 8, "enlarge") is None
    with pytest.raises(DataError, match="smaller needs the parameter size"):
        large_enough(items, None, "drop")
    with pytest.raises(DataError, match="1 of 5 images have a short side of at least 9 pixels, and two are needed"):
        large_enough(items, 9, "drop")


@pytest.mark.parametrize("smaller", [None, "enlarge", "drop"])
def test_a_folder_without_its_small_images(smaller, tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for i, size in enumerate(SIZES):
            (tmp_path / split / f"{i}.png").write_bytes(encoded(*size))
    raw = folder(str(tmp_path), size=8, smaller=smaller)
    images = np.concatenate([piece for piece, _ in raw.train.pieces(0, 1)])
    widths = sorted(5 * width for (width, _), keep in zip(SIZES, KEPT, strict=True) if keep or smaller != "drop")
    assert raw.train.n == len(images) == len(widths) and sorted(images[:, 0, 0, 0].tolist()) == widths
    said = [text for text in raw.notes if "short side" in text]
    wanted = [f"{split}: 2 of 5 images have a short side below 8 pixels and were left out" for split in ("train", "test")]
    assert said == (wanted if smaller == "drop" else [])
    assert raw.train.prefix(raw.train.n) != folder(str(tmp_path), size=8, smaller="enlarge").train.prefix(1)


def test_parquet_files_without_their_small_images(tmp_path):
    for split in ("train", "test"):
        rows = [{"image": {"bytes": encoded(*size)}, "label": i} for i, size in enumerate([*SIZES, (9, 9)])]
        rows[-1]["label"] = len(split)
        write_table(pa.Table.from_pylist(rows), tmp_path / f"{split}.parquet")
    raw = hf_parquet(str(tmp_path), "train.parquet", "test.parquet", size=8, smaller="drop")
    pieces = list(raw.test.pieces(0, 1))
    assert raw.test.n == sum(len(images) for images, _ in pieces) == 4
    assert [label for _, labels in pieces for label in labels] == [0, 1, 4, 4]
    assert sum("2 of 6 images have a short side below 8 pixels" in text for text in raw.notes) == 2


def config(**parameters):
    data = {"source": "hf_parquet", "parameters": {"path": "x", **parameters}}
    entry = {"data": data, "network": {"kind": "unet", "channels": 8}, "condition": {"low_resolution": {"factor": 4}}}
    return parse({"datasets": ["d"], "methods": ["fm_ot"], "settings": {"d": entry}})


def test_super_resolution_must_say_what_happens_to_small_images():
    with pytest.raises(ConfigError, match="smaller is missing: smaller images would be enlarged"):
        config(size=64)
    for smaller in ("drop", "enlarge"):
        config(size=64, smaller=smaller)
    config()  # all images have one size, or it is an error


def test_the_number_of_images_is_not_known_before_the_filter():
    assert split_sizes("imagenet", {}) == (1_281_167, 50_000) and split_sizes("imagenet", {"smaller": "drop"}) is None
