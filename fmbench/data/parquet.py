"""Data sets of the Hugging Face hub: parquet files with a column of encoded images."""

import json
import os
from collections.abc import Iterator, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

from fmbench.data.images import Item, Resize, decoded, recipe_of
from fmbench.data.npy import rows_per_piece
from fmbench.data.raw import Piece, RawData, Stream
from fmbench.data.shards import find
from fmbench.data.size_filter import Smaller, large_enough, left_out
from fmbench.data.tree import stand_in_at
from fmbench.errors import DataError
from fmbench.store.files import sha256

IMAGE_COLUMNS, LABEL_COLUMNS = ("img", "image"), ("label", "labels")
DECLINE = "the parameter label: none"


# Many parameters: the config gives them by name.
def hf_parquet(
    path: str,
    train: str | None = None,
    test: str | None = None,
    image: str | None = None,
    label: str | None = None,
    size: int | None = None,
    channels: int = 3,
    resize: Resize = "area",
    smaller: Smaller | None = None,
) -> RawData:
    """Parquet files as the Hugging Face hub stores images: a column of encoded bytes, and perhaps one of labels.

    Args:
        path: the folder of the files, or one above it.
        train, test: patterns of each split's files, below ``path``. By default the hub's own names
            (:data:`fmbench.data.shards.CUSTOMARY`). Each split must have one whole set of files.
        image, label: names of the columns; by default ``img`` or ``image``, and ``label`` or ``labels`` if there is one. With
            ``label: none`` the images have no labels.
        size, channels, resize, smaller: as for :func:`fmbench.data.folders.folder`.

    Raises:
        DataError: a file or a column is missing, or a file or an image cannot be read.
    """
    root = Path(os.path.expanduser(path))
    files, notes = find(root, {"train": train, "test": test})
    shards = [file for split in files.values() for file in split.files]
    columns = {file: set(_open(file).schema_arrow.names) for file in shards}
    unlabelled = label == "none"
    image, label = _columns(columns, image, None if unlabelled else label or "")
    class_names = None if label is None else _class_names(shards, label)
    notes += tuple(_notes(shards, columns[shards[0]] - {image}, label, unlabelled))
    _check_copies(shards)
    recipe = recipe_of(size, channels, resize, lambda: _first(files["train"].files, image, label))
    kept = {name: large_enough(_items(split.files, image, None), size, smaller) for name, split in files.items()}

    def split(name: str) -> Stream:
        def pieces(start: int, workers: int) -> Iterator[Piece]:
            items = _items(files[name].files, image, label)
            keep = kept[name]
            chosen = items if keep is None else compress(items, keep)
            return decoded(chosen, recipe, workers, rows_per_piece(recipe.bytes))

        return Stream(pieces, n=sum(kept[name] or (_open(file).metadata.num_rows for file in files[name].files)))

    return RawData(
        train=split("train"),
        test=split("test"),
        description=f"parquet files {files['train'].pattern} and {files['test'].pattern} of {root.name}",
        levels=256,
        preprocessing=recipe.describe(),
        class_names=class_names,
        notes=(*notes, *(text for name, keep in kept.items() for text in left_out(name, keep, size))),
        decline=DECLINE,
    )


def _first(files: Sequence[Path], image: str, label: str | None) -> Item:
    """The first image of a split."""
    for item in _items(files, image, label):
        return item
    raise DataError(f"{files[0]}: expected two images or more for train, found none")


def _columns(columns: dict[Path, set[str]], image: str | None, label: str | None) -> tuple[str, str | None]:
    """The columns of images and labels, which every file must have. A ``label`` of "" is the customary column, if there is one.

    Raises:
        DataError: a file lacks one.
    """
    first, names = next(iter(columns.items()))
    chosen = image or next((name for name in IMAGE_COLUMNS if name in names), None)
    if chosen is None:
        raise DataError(f"{first}: expected a column {' or '.join(IMAGE_COLUMNS)}, found {', '.join(sorted(names))}")
    if label == "":
        label = next((name for name in LABEL_COLUMNS if name in names), None)
    for file, names in columns.items():
        absent = {chosen, label} - names - {None}
        if absent:
            raise DataError(f"{file}: expected a column {', '.join(map(str, absent))}, found {', '.join(sorted(names))}")
    return chosen, label


def _notes(shards: Sequence[Path], others: set[str], label: str | None, unlabelled: bool) -> Iterator[str]:
    """Sentences on shards without rows, and on labels that are perhaps in a column of another name."""
    empty = [file.name for file in shards if _open(file).metadata.num_rows == 0]
    if empty:
        yield f"shards without a row: {', '.join(empty)}"
    if label is None and not unlabelled and others:
        yield (
            f"no column {' or '.join(LABEL_COLUMNS)}, so the images have no labels. The parameter label names a column of "
            f"labels; there are {', '.join(sorted(others))}"
        )


def _check_copies(shards: Sequence[Path]) -> None:
    """Refuse two files of the same content, which are samples that count twice or are in both splits."""
    sizes: dict[int, list[Path]] = {}
    for file in shards:
        if _open(file).metadata.num_rows:
            sizes.setdefault(file.stat().st_size, []).append(file)
    known: dict[str, Path] = {}
    for file in (file for alike in sizes.values() if len(alike) > 1 for file in alike):
        before = known.setdefault(sha256(file), file)
        if before is not file:
            raise DataError(f"{before} and {file} have the same content, so its samples would count twice; download them again")


def _open(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        if not file.exists():
            raise DataError(f"{file} is a broken link; download the file it leads to") from None
        size, known = file.stat().st_size, stand_in_at(file)
        raise DataError(f"{file} ({size} bytes) is truncated or not a parquet file: {known or error}") from None


def _items(files: Sequence[Path], image: str, label: str | None) -> Iterator[Item]:
    import pyarrow as pa

    for file in files:
        row = 0
        try:
            for batch in _open(file).iter_batches(64, columns=[image] if label is None else [image, label]):
                for values in batch.to_pylist():
                    if label is not None and values[label] is None:
                        raise DataError(f"{file}, row {row}: its label is missing (null); {DECLINE} takes no labels")
                    yield _item(file, row, values[image], None if label is None else values[label])
                    row += 1
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file} cannot be read after row {row}: {error}; truncated or damaged?") from None


def _item(file: Path, row: int, value: Any, label: Any) -> Item:
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise DataError(f"{file}, row {row}: expected an encoded image, found {type(content).__name__}")
    return Item(f"{file}, row {row}", label, content)


def _class_names(files: Sequence[Path], label: str) -> tuple[str, ...] | None:
    """The class names in the schema's metadata, where the hub keeps them, or None.

    Raises:
        DataError: the files have different names, or labels of different kinds.
    """
    found: dict[tuple[str, ...], Path] = {}
    kinds: dict[str, Path] = {}
    for file in files:
        names = _names_of(file, label)
        if names is not None:
            found.setdefault(names, file)
        if _open(file).metadata.num_rows:
            kinds.setdefault(_kind(_open(file).schema_arrow.field(label).type), file)
    checks: tuple[tuple[str, dict[Any, Path]], ...] = (("class names", found), ("kinds of labels", kinds))
    for what, different in checks:
        if len(different) > 1:
            (one, first), (two, second) = list(different.items())[:2]
            raise DataError(
                f"{first} and {second} have different {what} in the column {label}: {one} and {two}. "
                f"Download files of one version; {DECLINE} takes no labels"
            )
    return next(iter(found), None)


def _names_of(file: Path, label: str) -> tuple[str, ...] | None:
    try:
        features = json.loads((_open(file).schema_arrow.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[label]["names"]))
    except (KeyError, ValueError, TypeError):
        return None


def _kind(of: Any) -> str:
    """Numbers, or the type's own name; a dictionary's is that of its values."""
    import pyarrow as pa

    of = of.value_type if pa.types.is_dictionary(of) else of
    if pa.types.is_integer(of) or pa.types.is_floating(of):
        return "numbers"
    return "text" if pa.types.is_string(of) or pa.types.is_large_string(of) else str(of)
