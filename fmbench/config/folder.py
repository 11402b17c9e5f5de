"""The results folder of a config: one name for each folder, and none that a run must not write to."""

import os
from collections.abc import Iterator
from pathlib import Path

import fmbench

_SOURCES = ("fmbench", "workflow", "configs", "profiles", "tests", "docs", "tools", "benchmarks")
_INSIDES = (".git", ".snakemake", ".venv")
"""Folders that other programs keep their own files in, at any place."""
_LONGEST_NAME = 255
_LONGEST_PATH = 3000
"""Bytes of the absolute path. Systems take at most 4096, and the paths of results go on after the folder."""


def results_folder(path: str) -> str:
    """The path in its normal form: ``./x``, ``x/``, ``a//x`` and ``a/../x`` become what Snakemake knows as one file.

    Symbolic links stay as they are, an absolute path stays absolute, and a relative one relative.

    Raises:
        ValueError: it is no folder that results can be written to; the message says why and what to write.
    """
    _check_text(path)
    normal = os.path.normpath(path)
    if normal.startswith("//"):  # POSIX lets a system give two slashes a meaning; none that we know does
        normal = normal[1:]
    reason = _forbidden(normal)
    if reason:
        raise ValueError(f"{path!r} {reason}; choose a folder for the results alone, such as results")
    return normal


def _check_text(path: str) -> None:
    if path.startswith("~") or "$" in path:
        expanded = _expanded(path)
        example = "" if expanded == path else f", such as {expanded}"
        raise ValueError(
            f"{path!r} would be a folder of exactly that name, since ~ and $ are not expanded; write the path out{example}"
        )
    if path != path.strip() or not path.isprintable():
        raise ValueError(f"{path!r} has a space at an end or an invisible character, such as a line break; remove it")
    if "://" in path:
        raise ValueError(f"{path!r} is an address, but results are written to a folder of this machine; write its path")
    if any(len(os.fsencode(part)) > _LONGEST_NAME for part in path.split("/")):
        raise ValueError(f"a name in this path has more than {_LONGEST_NAME} bytes, which file systems do not take; shorten it")


def _expanded(path: str) -> str:
    return os.path.expandvars(os.path.expanduser(path))


def _forbidden(normal: str) -> str:
    """Why results must not go to a folder; empty if they may."""
    parts = Path(normal).parts
    inside = next((part for part in parts if part.casefold() in _INSIDES), None)
    if inside is not None:
        return f"is inside {inside}, where another program keeps its files"
    try:
        here = Path.cwd()
    except OSError:  # it was deleted
        return ""
    folder = Path(os.path.normpath(here / normal))
    if len(os.fsencode(str(folder))) > _LONGEST_PATH:
        return f"is a path of more than {_LONGEST_PATH:,} bytes"
    if _holds(folder, here):
        return "is the current folder or one that contains it"
    for home in _homes():
        if _holds(folder, home):
            return "is your home folder or one that contains it"
    package = Path(fmbench.__file__).resolve().parent
    if _holds(folder, package):
        return f"contains the program itself, which is in {package}"
    root = package.parent
    for source in [root / name for name in _SOURCES] if (root / "Snakefile").is_file() else [package]:
        if _holds(source, folder):
            return f"is inside {source}, which belongs to the program"
    return ""


def _homes() -> Iterator[Path]:
    try:
        yield Path.home()
    except RuntimeError:  # a user without one
        return


def _holds(outer: Path, inner: Path) -> bool:
    """Whether ``inner`` is the folder ``outer`` or within it, also by another name, such as one in capitals or a link."""
    if outer == inner or outer in inner.parents:
        return True
    try:
        there = outer.stat()
    except (OSError, ValueError):
        return False
    for folder in (inner, *inner.parents):
        try:
            if os.path.samestat(there, folder.stat()):
                return True
        except (OSError, ValueError):
            continue
    return False
