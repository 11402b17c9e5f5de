"""For mkdocstrings: docstrings as it reads them.

A role such as :func:`name` becomes a link to the object that the name means there. Parameters that share a line, such as "told,
untold: two fields", get a line each.
"""

import re
from collections.abc import Iterator

import griffe

ROLE = re.compile(r":(?:func|class|meth|mod|attr|data):`~?([\w.]+)`")
_SHARED = re.compile(r"^( +)(\w+(?:, \w+)+): (.*(?:\n\1 +.*)*)", re.MULTILINE)
_ROOMS = ("fmbench.flow", "fmbench.metrics")


class Roles(griffe.Extension):
    """Changes every docstring of a package, once it is loaded."""

    def on_package(self, *, pkg: griffe.Module, **_: object) -> None:
        for obj in _objects(pkg):
            if obj.docstring is not None:
                text = ROLE.sub(lambda match, obj=obj: _link(match[1], obj), obj.docstring.value)
                obj.docstring.value = _SHARED.sub(_apart, text)


def _objects(obj: griffe.Object) -> Iterator[griffe.Object]:
    yield obj
    for member in obj.members.values():
        if not member.is_alias:
            yield from _objects(member)


def _apart(shared: re.Match[str]) -> str:
    """A line for each of the parameters."""
    return "\n".join(f"{shared[1]}{name}: {shared[3]}" for name in shared[2].split(", "))


def _link(name: str, obj: griffe.Object) -> str:
    """A link to what a name means in the docstring of an object, and the name alone if no page of the library has it."""
    shown = f"`{name.rpartition('.')[2] if name.startswith('fmbench.') else name}`"
    try:
        first, _, rest = name.partition(".")
        path = name if name.startswith("fmbench.") else obj.resolve(first) + (f".{rest}" if rest else "")
        target = obj.modules_collection[path]
    except (KeyError, griffe.GriffeError):
        return shown
    if target.is_alias:
        target = target.final_target
    while target.docstring is None and target.parent is not None and not target.is_module:
        target = target.parent  # the fields of a dataclass are in the docstring of their class
    return f"[{shown}][{target.path}]" if target.path.startswith(_ROOMS) and "._" not in target.path else shown
