"""Walking a folder of data, and what a file is that is not what it should be."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from fmbench.errors import DataError

Kind = Literal["file", "folder", "hidden"]
SYSTEM = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})
"""Folders that operating systems add; hidden, like all names that start with a dot."""


def walk(root: Path) -> Iterator[tuple[str, "os.DirEntry[str]", Kind]]:
    """Everything below a folder: its path below ``root`` with / between names, its entry and its kind. Links are followed.

    Raises:
        DataError: a folder cannot be listed, or is reached twice by a link.
    """
    start = len(os.path.join(root, ""))
    seen: dict[tuple[int, int], str] = {}
    waiting = [os.fspath(root)]  # strings, since there may be a million files and a Path takes ten times as long
    while waiting:
        place = waiting.pop()
        try:
            about = os.stat(place)
            again = seen.setdefault((about.st_dev, about.st_ino), place)
            if again != place:
                raise DataError(f"{place} and {again} are the same folder, so its files would count twice; remove the link")
            with os.scandir(place) as entries:
                for entry in entries:
                    name = entry.path[start:].replace(os.sep, "/")
                    if entry.name.startswith(".") or entry.name in SYSTEM:
                        yield name, entry, "hidden"
                    elif _is_folder(entry):
                        waiting.append(entry.path)
                        yield name, entry, "folder"
                    else:
                        yield name, entry, "file"
        except OSError as error:
            raise DataError(f"{place}: the folder cannot be listed: {error.strerror or error}") from None


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def stand_in(start: bytes) -> str:
    """What stands in for the wanted file, judged by its first bytes, with the remedy; empty if that is not known."""
    text = start.lstrip()[:200].lower()
    if text.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the file itself; run git lfs pull in its repository, or download the file"
    if b"/annex/objects/" in text:
        return "it is a pointer of git-annex, not the file itself; run git annex get in its repository"
    if text.startswith((b"<!doctype html", b"<html")):
        return "it is a web page, not the file itself; download it again, perhaps after a login"
    return "" if start else "it is empty; download it again"


def stand_in_at(path: Path | str) -> str:
    """:func:`stand_in` of a file; empty if it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return stand_in(stream.read(300))
    except OSError:
        return ""
