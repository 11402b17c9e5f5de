"""What all settings are made of: the base class, names, parts and their parameters."""

import math
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fmbench.config.numbers import number
from fmbench.config.plugins import is_dotted


class Settings(BaseModel):
    """Base of all settings: no unknown keys, no silent conversions, no change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$")]


def known(what: str, known: tuple[str, ...], dotted: bool = True) -> BeforeValidator:
    """``dotted``: whether it may be somebody's own."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and value not in known and not (dotted and is_dotted(value)):
            or_own = "; or a dotted name 'package.module:ATTRIBUTE'" if dotted else ""
            raise ValueError(f"unknown {what} {value!r}; known: {', '.join(known)}{or_own}")
        return value

    return BeforeValidator(check)


def _plain(value: Any) -> Any:
    """What JSON has, all the way down, without numbers written as strings."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} is not text; put it in quotes")
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _plain(inner)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number; choose one that is")
    elif not isinstance(value, str | int | float | None):
        raise ValueError(
            f"{value} is a {type(value).__name__}, and a parameter is text, a number, true, false, null, a list or a mapping; "
            "put it in quotes if it is text"
        )
    return number(value) if isinstance(value, str) and re.search("[eE]", value) else value


Parameters = dict[str, Annotated[Any, BeforeValidator(_plain)]]
"""Parameters of a part, open to any name and to every type of JSON; 1e-4 is a string in YAML here too."""


def by_name(value: Any) -> Any:
    """``vp`` is short for ``{name: vp}``."""
    return {"name": value} if isinstance(value, str) else value
