"""The error types of the package, and the form in which any text reaches a reader.

The errors are of two kinds:

* The run cannot be done as asked (:class:`ConfigError`, :class:`DataError`, :class:`CheckpointError`, :class:`LockedError`). The
  command stops with a message that says the remedy, and writes nothing.
* The run was done and the numbers went bad (:class:`DivergedError`). That is a result: it becomes a row with a status and a
  reason.
"""

import unicodedata
from collections.abc import Sequence


class FmbenchError(Exception):
    """Base class: an error whose message is written for the user."""


class ConfigError(FmbenchError):
    """The settings are wrong or cannot be combined."""


class DataError(FmbenchError):
    """A data file, or the output of an earlier stage, is missing, truncated or of the wrong kind."""


class CheckpointError(FmbenchError):
    """A checkpoint or a weights file cannot be used."""


class LockedError(FmbenchError):
    """Another process is doing the same work."""


class DivergedError(FmbenchError):
    """A loss, a state or a step size is no longer a finite, useful number."""


def printable(text: str) -> str:
    """Return ``text`` with a backslash escape for every character that a terminal, a log or a page should not get as it is.

    These are control characters, such as the escape codes of a terminal, invisible characters, such as those that turn the
    direction of writing, and the bytes of a file name that is not UTF-8, which Python keeps as surrogates: ``\\xe9`` for the byte
    0xE9. Newlines, tabs and all spaces stay. Every encoding of Unicode can hold the result.
    """
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or c.isprintable() or unicodedata.category(c) == "Zs" else _escaped(c) for c in text)


def first_few(texts: Sequence[str], most: int = 8, between: str = ", ") -> str:
    """The first texts of a list, and how many there are further."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return between.join(texts[:most]) + more


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, or its type. Some go on for pages: those of sqlalchemy with the query."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _escaped(character: str) -> str:
    code = ord(character)
    byte = 0xDC80 <= code <= 0xDCFF  # how Python writes a byte that it could not decode
    return f"\\x{code - 0xDC00:02x}" if byte else ascii(character)[1:-1]
