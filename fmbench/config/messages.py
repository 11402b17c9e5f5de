"""The errors of pydantic in plain words, each with the value that is wrong."""

import datetime
from collections.abc import Callable, Mapping
from typing import Any

from fmbench.errors import printable

LONGEST = 600
"""The most characters of one error."""
NAME_PATTERN = r"^[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9_-])?$"
"""What names of methods and data sets look like. They are names of folders."""
FOLDER_PATTERN = r"^[^{}]*$"
"""What the path of a results folder looks like. Snakemake takes braces for wildcards."""
_PATTERNS = {
    NAME_PATTERN: "must be a name: a letter, then letters, digits, _, - and . (not at the end), without accents or spaces",
    FOLDER_PATTERN: "must be a path without { and }, which Snakemake takes for wildcards",
}


def described(value: Any) -> str:
    """A value as a reader knows it from YAML or JSON, shortened."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 200:  # Python does not even print numbers of some thousand digits
        return "a number of more than 60 digits"
    if isinstance(value, int | float | str):
        return shortened(repr(value), 100)
    if isinstance(value, datetime.date):
        return f"the date {value}"
    names: dict[type, str] = {dict: "a mapping", list: "a list", tuple: "a list", set: "a set", bytes: "binary data"}
    return names.get(type(value), f"a {type(value).__name__}")


def shortened(text: str, longest: int = LONGEST) -> str:
    """``text`` on one line, without its middle if it is too long."""
    line = printable(text).replace("\n", "\\n").replace("\t", "\\t")
    if len(line) <= longest:
        return line
    return f"{line[: longest * 2 // 3]} ({len(line) - longest:,} characters left out here) {line[-longest // 3 :]}"


def _quoted(value: Any) -> str:
    """The value, with a hint where YAML reads a word as something else than text."""
    if isinstance(value, bool):
        return f"{described(value)} (YAML reads on, off, yes and no as true and false; put text in quotes)"
    hint = " (put text in quotes)" if isinstance(value, int | float | datetime.date) or value is None else ""
    return described(value) + hint


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count:,} entries"


def _characters(count: int) -> str:
    return "1 character" if count == 1 else f"{count:,} characters"


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_Words = Callable[[Mapping[str, Any], Any], str]
_WORDS: dict[str, _Words] = {
    "missing": lambda limits, value: "this key is missing",
    "extra_forbidden": lambda limits, value: "unknown key",
    "invalid_key": lambda limits, value: "a key must be text; put it in quotes",
    "string_type": lambda limits, value: f"must be text, not {_quoted(value)}",
    "string_unicode": lambda limits, value: f"must be text in Unicode, not {described(value)}",
    "string_too_short": lambda limits, value: f"must have at least {_characters(limits['min_length'])}, not {described(value)}",
    "string_too_long": lambda limits, value: (
        f"must have at most {_characters(limits['max_length'])}, not {_characters(len(value))}"
    ),
    "string_pattern_mismatch": lambda limits, value: f"{_PATTERNS[limits['pattern']]}, not {described(value)}",
    "int_type": lambda limits, value: f"must be a whole number, not {described(value)}",
    "float_type": lambda limits, value: f"must be a number{' of usual size' if _is_whole(value) else ''}, not {described(value)}",
    "bool_type": lambda limits, value: f"must be true or false, not {described(value)}",
    "list_type": lambda limits, value: f"must be a list, not {described(value)}",
    "dict_type": lambda limits, value: f"must be a mapping (key: value), not {described(value)}",
    "model_type": lambda limits, value: f"must be a mapping (key: value), not {described(value)}",
    "literal_error": lambda limits, value: f"must be {limits['expected']}, not {described(value)}",
    "greater_than": lambda limits, value: f"must be greater than {limits['gt']}, not {described(value)}",
    "greater_than_equal": lambda limits, value: f"must be at least {limits['ge']}, not {described(value)}",
    "less_than": lambda limits, value: f"must be less than {limits['lt']}, not {described(value)}",
    "less_than_equal": lambda limits, value: f"must be at most {limits['le']}, not {described(value)}",
    "finite_number": lambda limits, value: f"must be a finite number, not {described(value)}",
    "too_short": lambda limits, value: f"must have at least {_entries(limits['min_length'])}",
    "too_long": lambda limits, value: f"must have at most {_entries(limits['max_length'])}",
}
"""The text of each type of pydantic's errors, from its limits and the wrong value. Other types keep pydantic's own text."""


def in_words(error: Mapping[str, Any]) -> str:
    """The text of one of pydantic's errors, on one line; that of a validator's own ValueError is its message."""
    words = _WORDS.get(error["type"])
    text = words(error.get("ctx", {}), error["input"]) if words else error["msg"].removeprefix("Value error, ")
    return shortened(text)
