"""Names to objects: a name of a registry, or a plug-in's dotted name ``package.module:ATTRIBUTE``."""

import importlib
import re
from collections.abc import Mapping
from typing import Any

_DOTTED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_dotted(name: str) -> bool:
    """Whether ``name`` is a dotted name, not a name in a registry."""
    return _DOTTED.fullmatch(name) is not None


def resolve(registry: Mapping[str, Any], what: str, name: str) -> Any:
    """The object called ``name``.

    Raises:
        ValueError: the name is not in the registry and cannot be imported.
    """
    if name in registry:
        return registry[name]
    if not is_dotted(name):
        known = ", ".join(registry)
        raise ValueError(f"unknown {what} {name!r}; known: {known}; or a dotted name 'package.module:ATTRIBUTE'")
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{what} {name!r} cannot be imported: {error}") from error
