"""Types of numbers in a config, with errors for numbers that YAML reads as something else."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from fmbench.config.messages import shortened

LARGEST = 10**15
"""The largest whole number in a config, in size. Every array, file and JSON reader takes it, and a float holds it exactly."""
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]([+-]?)(\d+))?")


def number(value: Any) -> Any:
    """The value itself.

    Raises:
        ValueError: it is text that reads as a number; the message says how YAML wants it.
    """
    match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    mantissa, sign, exponent = match.groups()
    if exponent is None:
        raise ValueError(
            f"the number {shortened(repr(value), 60)} is written as a string: write {float(value):.15g}, without quotes"
        )
    dotted = re.sub(r"^([+-]?)\.", r"\g<1>0.", mantissa) if "." in mantissa else f"{mantissa}.0"
    written = f"{dotted}e{sign or '+'}{exponent}"
    plain = f" or {float(value):.0f}" if float(value).is_integer() else ""
    raise ValueError(
        f"the number {shortened(repr(value), 60)} is written as a string: in YAML an exponent needs a dot before the e and a "
        f"sign after it; write {written}{plain}, without quotes"
    )


def whole_number(value: Any) -> Any:
    """The value itself.

    Raises:
        ValueError: it is text or a decimal that reads as a whole number; the message says how to write it.
    """
    parsed = float(value) if isinstance(value, float) or (isinstance(value, str) and _NUMBER.fullmatch(value)) else None
    if parsed is not None and parsed.is_integer() and abs(parsed) <= LARGEST:
        kind = "a string" if isinstance(value, str) else "a decimal"
        raise ValueError(
            f"the number {shortened(repr(value), 60)} is written as {kind}, but must be a whole number: write {parsed:.0f}"
        )
    return number(value)


# The bounds come before the validators, since pydantic leaves bounds after a validator out of the JSON schema.
Number = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(number)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(number)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(number)]
Decay = Annotated[float, Field(ge=0, lt=1), BeforeValidator(number)]
Count = Annotated[int, Field(ge=1, le=LARGEST), BeforeValidator(whole_number)]
Width = Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(whole_number)]
"""A size of a network or of a grid. The check builds both, so a slip of the keyboard must not fill the memory."""
Depth = Annotated[int, Field(ge=1, le=1000), BeforeValidator(whole_number)]
"""A number of layers, which the check builds."""
Several = Annotated[int, Field(ge=2, le=LARGEST), BeforeValidator(whole_number)]
"""A number of samples; a single one has no spread."""
Natural = Annotated[int, Field(ge=0, le=LARGEST), BeforeValidator(whole_number)]


def twice(values: Iterable[Any]) -> list[Any]:
    """The values that are there more than once, in order."""
    return sorted(value for value, count in Counter(values).items() if count > 1)
