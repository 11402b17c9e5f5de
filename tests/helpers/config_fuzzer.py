"""Configs with random mistakes: each leaf, key or entry of a good config gets one of some nasty values.

:func:`mutations` gives them from a seed, without end. :func:`verdict` reads one as ``fmbench validate`` does and says what is
wrong with the answer: nothing, if it is a valid config or an error in words.
"""

import copy
import datetime
import random
import re
from collections.abc import Iterator
from typing import Any

from fmbench.config import specs
from fmbench.config.reading import parse
from fmbench.config.written_out import written_out
from fmbench.errors import ConfigError, printable

NASTY: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    7,
    2**31,
    2**63,
    10**400,
    -(10**5000),
    0.0,
    -0.5,
    0.5,
    1e308,
    5e-324,
    float("inf"),
    float("nan"),
    "",
    " ",
    "no such name",
    "os:system",
    "no_such_module:THING",
    "1e-4",
    "07",
    "a\nb",
    "\x00\x1b[2J",
    "\udce9",
    "e\u0301\u202e",
    "x" * 100_000,
    "{wildcard}",
    "../..",
    "~",
    "${HOME}",
    "Data",
    "FM_OT",
    b"bytes",
    datetime.date(2024, 1, 2),
    datetime.datetime(2024, 1, 2, 3, 4),
    {1, 2},
    (1, 2),
    [],
    [[]],
    [None],
    ["fm_ot", "fm_ot"],
    {},
    {"": ""},
    {None: 1},
    {1: 2},
    {"name": None},
    {"kind": "unet", "width": 3},
    list(range(20_000)),
)
"""Values that a config should not have somewhere, or nowhere."""


def mutations(values: dict[str, Any], seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Copies of ``values`` with one to three mistakes each, and what the mistakes are."""
    g = random.Random(seed)
    while True:
        changed = copy.deepcopy(values)
        told = [_mistake(changed, g) for _ in range(g.choice((1, 1, 1, 2, 3)))]
        yield "; ".join(told), changed


def single_mistakes(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every value in every place of ``values``, one after the other: a long list without chance."""
    for way in _places(values, ()):
        for number, nasty in enumerate(NASTY):
            changed = copy.deepcopy(values)
            here: Any = changed
            for key in way[:-1]:
                here = here[key]
            here[way[-1]] = copy.deepcopy(nasty)
            yield f"{'.'.join(map(str, way))} = NASTY[{number}]", changed


def _places(value: Any, way: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    entries: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield (*way, key)
        yield from _places(inner, (*way, key))


def _mistake(values: dict[str, Any], g: random.Random) -> str:
    """Make one mistake in ``values``, and say which."""
    way = g.choice(list(_places(values, ())) or [("seeds",)])
    here: Any = values
    for key in way[:-1]:
        here = here[key]
    last, place = way[-1], ".".join(map(str, way))
    kind = g.choice(("value", "value", "value", "remove", "key", "copy"))
    nasty = g.randrange(len(NASTY))
    if kind == "remove":
        del here[last]
    elif kind == "key" and isinstance(here, dict):
        odd = g.choice(("", "nо_such_key", "a.b", "[key]", "x" * 300, "a\nb", None, 5, True, "Settings"))
        here[odd] = here.pop(last)
    elif kind == "copy" and isinstance(here, list):
        here.append(copy.deepcopy(here[last]))
    else:
        kind, here[last] = "value", copy.deepcopy(NASTY[nasty])
    return f"{kind} {place}" + (f" = NASTY[{nasty}]" if kind == "value" else "")


CODE = re.compile(
    r"\^|\$'|pattern|Traceback|[A-Za-z]Settings\b|pydantic|Input should|instance of|<class|object at 0x|function-before|literal\["
)
"""What reads as code: regular expressions, names of classes, the inside of pydantic."""


def verdict(values: dict[str, Any]) -> str:
    """What is wrong with the way in which fmbench takes a config; empty if it refuses it in words or its jobs have specs."""
    try:
        config = parse(values)
    except ConfigError as error:
        return _unreadable(str(error))
    except Exception as error:
        return f"{type(error).__name__}: {error!r}"[:300]
    try:
        specs.collect(config)
        written_out(config)
        specs.check(config, code=False)
    except ConfigError as error:  # a plug-in method is looked up here
        return _unreadable(str(error))
    return ""


def _unreadable(message: str) -> str:
    first, *lines = message.split("\n")
    if printable(message) != message:
        return f"the message has characters that a terminal should not get: {message[:300]!r}"
    if lines and first != "the config has errors:":
        return f"the message has several lines but is no list: {message[:300]}"
    for line in [first, *lines]:
        if len(line) > 1300:
            return f"a line of {len(line)} characters: {line[:200]}"
    for line in lines:
        if not re.match(r"  \S", line):
            return f"a line that is not one error: {line[:300]}"
        if CODE.search(line.partition(": ")[2]):
            return f"code in a message: {line[:300]}"
    return ""
