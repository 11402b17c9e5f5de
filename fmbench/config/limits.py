"""How large a config may be: its files, and its values once every alias of YAML is written out.

A YAML file of 300 bytes can stand for a billion values: an alias (``*a``) repeats what its anchor (``&a``) names, and
aliases may be within anchors. So values are counted before anything walks through them. A part that is used many times is visited
once.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

MOST_BYTES = 2**20
"""The largest config file."""
MOST_VALUES = 100_000
"""The most values of a config, keys included."""
MOST_CHARACTERS = 10_000_000
"""The longest text of all its values together."""
DEEPEST = 50
"""The most levels of lists and mappings within each other."""


class _Size(NamedTuple):
    values: int
    characters: int
    height: int


def plain_parts(value: Any) -> Sequence[Any]:
    """The values directly inside a mapping or a list, keys included; none for any other value."""
    if isinstance(value, dict):
        return [part for pair in value.items() for part in pair]
    return list(value) if isinstance(value, list | tuple | set | frozenset) else ()


def plain_text(value: Any) -> int:
    """The length of a value that is text."""
    return len(value) if isinstance(value, str | bytes) else 0


def check_size(value: Any, parts: Callable[[Any], Sequence[Any]] = plain_parts, text: Callable[[Any], int] = plain_text) -> None:
    """Check that values, each use of an alias counted anew, are few enough to be worked with.

    The time does not depend on how often parts are used.

    Args:
        parts: gives the values directly inside a value.
        text: gives the length of the text of a value without parts.

    Raises:
        ValueError: a value contains itself, or the values are too many, too long or nested too deeply.
    """
    sizes: dict[int, _Size] = {}
    around: set[int] = set()  # the values in which we are

    def size(value: Any) -> _Size:
        inside = parts(value)
        if not inside:
            return _Size(1, text(value), 0)
        if id(value) in around:
            raise ValueError("contains itself: an alias (*) is inside the value that its anchor (&) names")
        if id(value) not in sizes:
            if len(around) >= DEEPEST:
                raise ValueError(f"has lists and mappings within each other to more than {DEEPEST} levels; nest it less")
            around.add(id(value))
            sizes[id(value)] = _checked([size(part) for part in inside])
            around.remove(id(value))
        return sizes[id(value)]

    size(value)


def _checked(inside: Sequence[_Size]) -> _Size:
    found = _Size(
        1 + sum(part.values for part in inside),
        sum(part.characters for part in inside),
        1 + max(part.height for part in inside),
    )
    if found.values > MOST_VALUES:
        raise ValueError(f"has more than {MOST_VALUES:,} values, each use of an alias (*) counted; use fewer aliases")
    if found.characters > MOST_CHARACTERS:
        raise ValueError(f"has more than {MOST_CHARACTERS:,} characters of text, each use of an alias (*) counted; shorten it")
    if found.height > DEEPEST:
        raise ValueError(f"has lists and mappings within each other to more than {DEEPEST} levels; nest it less")
    return found
