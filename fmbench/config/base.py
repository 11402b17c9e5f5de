"""The parts that all settings are made of: the base class, names, and open parameters."""

import math
import re
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from fmbench.config.messages import NAME_PATTERN, described
from fmbench.config.numbers import LARGEST, number
from fmbench.config.plugins import is_dotted


class Settings(BaseModel):
    """Base of all settings. It refuses unknown keys, silent conversions and changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class GrownSettings(Settings):
    """Settings with keys that came later. A dump leaves them out at their default, so that older results keep their hash."""

    later: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_later(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = write(self)
        fields = type(self).model_fields
        return {key: v for key, v in values.items() if key not in self.later or getattr(self, key) != fields[key].default}


Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=100)]
"""A name of a method or a data set, and so of folders and of files such as ``<name>.log``."""


def known_name(what: str, names: tuple[str, ...]) -> BeforeValidator:
    """A validator that takes one of ``names`` or the dotted name of a plug-in."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and value not in names and not is_dotted(value):
            or_plugin = "; or a dotted name 'package.module:ATTRIBUTE'"
            raise ValueError(f"unknown {what} {described(value)}; known: {', '.join(names)}{or_plugin}")
        return value

    return BeforeValidator(check)


def _plain(value: Any) -> Any:
    """The value, if JSON can hold it at every depth and no number in it is written as a string."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"the key {described(key)} is not text; put it in quotes")
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _plain(inner)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number; give a finite one")
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"must be at most {LARGEST:,} in size, not {described(value)}")
    elif not isinstance(value, str | int | float | None):
        raise ValueError(
            f"a parameter must be text, a number, true, false, null, a list or a mapping, not {described(value)}; put it in "
            "quotes if it is text"
        )
    return number(value) if isinstance(value, str) and re.search("[eE]", value) else value


Parameters = dict[str, Annotated[Any, BeforeValidator(_plain)]]
"""Parameters with any names and values of any type of JSON. 1e-4 is refused here too, since YAML reads it as text."""


class OpenSettings(Settings):
    """Settings that take any further keys, as parameters of what they name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: Parameters


class ShortForm:
    """A validator that also takes the value of one key for the whole settings: ``vp`` for ``{name: vp}``."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        def whole(value: Any) -> Any:
            return {self.key: value} if isinstance(value, str) else value

        return BeforeValidator(whole, json_schema_input_type=str | source).__get_pydantic_core_schema__(source, handler)


T = TypeVar("T", bound=Settings)
Named = Annotated[T, ShortForm("name")]
"""Settings with a name, or the name alone."""
