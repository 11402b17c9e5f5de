"""Names to objects: a name of a registry, or a plug-in's dotted name ``package.module:ATTRIBUTE``.

A plug-in is code that a config names. It may do anything, also end the program: ``sys.exit()`` raises an exception that is no
``Exception``. Whoever calls a plug-in and goes on catches :data:`RAISED`.
"""

import importlib
import re
from collections.abc import Mapping
from typing import Any

from fmbench.config.messages import shortened
from fmbench.errors import FmbenchError

RAISED = (Exception, SystemExit, GeneratorExit)
"""What a plug-in may raise. A KeyboardInterrupt is left out: it is the user who ends the program."""
_DOTTED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_dotted(name: str) -> bool:
    """Whether ``name`` is a dotted name, not a name in a registry."""
    return _DOTTED.fullmatch(name) is not None


def plugins_in(values: Any) -> tuple[str, ...]:
    """The dotted names anywhere in settings or a spec."""
    if isinstance(values, dict):
        return tuple(p for v in values.values() for p in plugins_in(v))
    if isinstance(values, list | tuple):
        return tuple(p for v in values for p in plugins_in(v))
    if isinstance(values, str) and is_dotted(values):
        return (values,)
    return ()


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
    except RAISED as error:
        raise ValueError(f"{what} {name!r} cannot be imported: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """What an exception says, on one line; with its type where the text alone does not tell what happened."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # even that is code of the plug-in
        text = ""
    if isinstance(error, SystemExit):
        return f"it ended the program (SystemExit: {text}); a plug-in must return or raise an Exception"
    told = isinstance(error, FmbenchError | ValueError | TypeError | RuntimeError | ImportError | AttributeError | SyntaxError)
    return shortened(text if text and told else f"{type(error).__name__}: {text}".removesuffix(": "))
