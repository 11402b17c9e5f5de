"""Data sets of the Hugging Face hub: parquet files with a column of encoded images."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fmbench.data.images import Item, Recipe, Resize, decoded, image_size
from fmbench.data.npy import rows_per_piece
from fmbench.data.raw import Piece, RawData, Stream
from fmbench.errors import DataError

IMAGE_COLUMNS, LABEL_COLUMNS = ("img", "image"), ("label", "labels")


# Many parameters: the config gives them by name.
def hf_parquet(
    path: str,
    train: str = "train*.parquet",
    test: str = "test*.parquet",
    image: str | None = None,
    label: str | None = None,
    size: int | None = None,
    channels: int = 3,
    resize: Resize = "area",
) -> RawData:
    """Parquet files as the Hugging Face hub stores images: a column of encoded bytes, and perhaps one of labels.

    Args:
        path: the folder of the files, or one above it.
        train, test: patterns of each split's files.
        image, label: names of the columns; by default ``img`` or ``image``, and ``label`` or ``labels`` if there is one.
        size, channels, resize: as for :func:`fmbench.data.folders.folder`.

    Raises:
        DataError: a file or a column is missing, or a file or an image cannot be read.
    """
    root = Path(os.path.expanduser(path))
    files = {name: _shards(root, pattern) for name, pattern in (("train", train), ("test", test))}
    columns = {file: set(_open(file).schema_arrow.names) for split in files.values() for file in split}
    image = image or _column(columns, IMAGE_COLUMNS)
    if image is None:
        first, names = next(iter(columns.items()))
        raise DataError(f"{first}: expected a column {' or '.join(IMAGE_COLUMNS)}, found {', '.join(sorted(names))}")
    label = label or _column(columns, LABEL_COLUMNS)
    for file, names in columns.items():
        absent = {image, label} - names - {None}
        if absent:
            raise DataError(f"{file}: expected a column {', '.join(map(str, absent))}, found {', '.join(sorted(names))}")
    if size is None:
        example = next(_items(files["train"], image, label), None)
        if example is None:
            raise DataError(f"{files['train'][0]}: expected two images or more for train, found none")
        height, width = image_size(example)
        recipe = Recipe(height, width, channels, None)
    else:
        recipe = Recipe(size, size, channels, resize)

    def split(shards: list[Path]) -> Stream:
        def pieces(start: int, workers: int) -> Iterator[Piece]:
            return decoded(_items(shards, image, label), recipe, workers, rows_per_piece(recipe.bytes))

        return Stream(pieces, n=sum(_open(file).metadata.num_rows for file in shards))

    return RawData(
        train=split(files["train"]),
        test=split(files["test"]),
        description=f"parquet files {train} and {test} of {root.name}",
        levels=256,
        preprocessing=recipe.describe(),
        class_names=None if label is None else _class_names(files["train"][0], label),
    )


def _column(columns: dict[Path, set[str]], known: tuple[str, ...]) -> str | None:
    names = next(iter(columns.values()))
    return next((name for name in known if name in names), None)


def _shards(root: Path, pattern: str) -> list[Path]:
    found = sorted(root.rglob(pattern))
    if not found:
        there = ", ".join(sorted(p.name for p in root.rglob("*.parquet"))[:10]) or "no parquet file"
        raise DataError(f"{root}: expected files {pattern}, found {there}; give the pattern of the split as a parameter")
    # The name of a shard says how many shards there are.
    for file in found:
        if (match := re.fullmatch(r"(.*-)(\d+)(-of-)(\d+)\.parquet", file.name)) is not None:
            start, digits, of, count = match[1], len(match[2]), match[3], match[4]
            wanted = [f"{start}{i:0{digits}}{of}{count}.parquet" for i in range(int(count))]
            missing = sorted(set(wanted) - {p.name for p in found})
            if missing:
                raise DataError(f"{file.parent}: {', '.join(missing[:10])} missing ({len(missing)} of {int(count)} files)")
    return found


def _open(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} ({file.stat().st_size} bytes) is truncated or not a parquet file: {error}") from None


def _items(files: list[Path], image: str, label: str | None) -> Iterator[Item]:
    import pyarrow as pa

    for file in files:
        row = 0
        try:
            for batch in _open(file).iter_batches(64, columns=[image] if label is None else [image, label]):
                for values in batch.to_pylist():
                    yield _item(file, row, values[image], None if label is None else values[label])
                    row += 1
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file} cannot be read after row {row}: {error}; truncated or damaged?") from None


def _item(file: Path, row: int, value: Any, label: Any) -> Item:
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise DataError(f"{file}, row {row}: expected an encoded image, found {type(content).__name__}")
    if label is not None and not isinstance(label, int):
        raise DataError(f"{file}, row {row}: expected a label that is an integer, found {label!r}")
    return Item(f"{file}, row {row}", label, content)


def _class_names(file: Path, label: str) -> tuple[str, ...] | None:
    """The class names in the schema's metadata, where the hub keeps them, or None."""
    try:
        features = json.loads((_open(file).schema_arrow.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[label]["names"]))
    except (KeyError, ValueError, TypeError):
        return None
