"""JSON documents that numbers depend on: written with a seal, and read with a check of the seal and of the shape.

:mod:`fmbench.store.shapes` has the shape of each document.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from fmbench.errors import DataError
from fmbench.store.files import write_bytes
from fmbench.store.seal import UNSEALED, check_seal, sealed

KEY = "seal"
"""The key of a document's seal."""
MAKE_AGAIN = "delete it and run snakemake again, which makes it again; if it was made elsewhere, get it again"
"""What to do about a damaged file that Snakemake makes."""
MISSING = "run the stage that makes it first (snakemake does so by itself)"


def write_document(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON object with its seal, keys sorted, atomically.

    Raises:
        ValueError: the object has the key of the seal.
    """
    if KEY in values:
        raise ValueError(f"a document cannot have the key {KEY!r}")
    text = json.dumps(values | {KEY: UNSEALED}, indent=2, sort_keys=True) + "\n"
    write_bytes(path, sealed(text.encode()))


def read_document(path: Path, shape: type[BaseModel], remedy: str = MAKE_AGAIN, missing: str = f"; {MISSING}") -> dict[str, Any]:
    """The object in a document, without its seal.

    Args:
        shape: the model that the object must fit. Integers, text and so on are never converted.
        remedy: what to do if the file cannot be used, to end the message.
        missing: what to do if there is no file, to end the message.

    Raises:
        DataError: the file is missing, is damaged, has no seal, is no JSON, or has another shape.
    """
    from fmbench.store.limits import DOCUMENT, check_regular  # here, since it imports pyarrow

    try:
        if check_regular(path).st_size > DOCUMENT:
            raise DataError(f"{path} is larger than {DOCUMENT >> 20} MiB, and no such file is; {remedy}")
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing{missing}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); make it readable, or {remedy}") from None
    try:
        check_seal(content)
    except ValueError as error:
        raise DataError(f"{path} cannot be used: {error}; {remedy}") from None
    values = parse_json(content, str(path), remedy)
    if isinstance(values, dict):
        values.pop(KEY, None)
    check_shape(values, shape, str(path), remedy)
    assert isinstance(values, dict)
    return values


def check_file(path: Path) -> None:
    """Check a file that Snakemake makes against its seal.

    Raises:
        DataError: the file is damaged or has no seal.
    """
    try:
        check_seal(path)
    except ValueError as error:
        raise DataError(f"{path} cannot be used: {error}; {MAKE_AGAIN}") from None


def parse_json(content: bytes | str, name: str, remedy: str = MAKE_AGAIN) -> Any:
    """The value of a JSON text.

    Args:
        name: what the message calls the text.
        remedy: what to do if it is not JSON, to end the message.

    Raises:
        DataError: the text is not JSON, holds a number that is not finite, or is nested too deeply for Python.
    """
    from fmbench.store.limits import parse_document  # here, since it imports pyarrow

    try:
        return parse_document(content if isinstance(content, bytes) else content.encode())
    except ValueError as error:  # not JSON, or not even text
        raise DataError(f"{name} is not valid JSON ({error}); {remedy}") from None


def check_shape(values: Any, shape: type[BaseModel], name: str, remedy: str = MAKE_AGAIN) -> None:
    """Check that a JSON value is an object that fits a model.

    Raises:
        DataError: it does not. The message names the first place that differs.
    """
    try:
        shape.model_validate(values, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        text = first["msg"].removeprefix("Value error, ")
        found = repr(first["input"])
        found = "" if first["type"] == "missing" else f", not {found[:60] + ('...' if len(found) > 60 else '')}"
        what = f"{place}: " if place else ""
        raise DataError(f"{name} is not a {shape.__name__} of this version of fmbench ({what}{text}{found}); {remedy}") from None
    except RecursionError:
        raise DataError(f"{name} is nested too deeply to be read; {remedy}") from None
