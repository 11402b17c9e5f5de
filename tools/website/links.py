"""Where the files of the repository are on the site, and Markdown whose links are made for the site.

The site is the repository with docs/ moved to its root: docs/methods.md is the page methods.md, benchmarks/README.md keeps its
path. So every link that works on the forge has one meaning on the site.
"""

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFERENCE = "results/reference/default"
_FENCE = re.compile(r"^( *```.*?^ *```$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()([^)#\s]+)")


def site_path(path: str) -> str:
    """The path on the site of a file or folder of the repository. A folder is the page of its README."""
    if path == REFERENCE or (ROOT / path).is_dir():
        path = f"{path.rstrip('/')}/README.md"
    return path.removeprefix("docs/")


def repository_path(page: str) -> str:
    """The path in the repository of a page of the site: the inverse of :func:`site_path`."""
    return f"docs/{page}" if (ROOT / "docs" / page).exists() else page


def targets(text: str, path: str) -> Iterator[str]:
    """The files and folders of the repository that the document at ``path`` links to, without what stands in fenced blocks."""
    for prose in _FENCE.split(text)[::2]:
        for link in _LINK.findall(prose):
            if (target := _resolve(link, path)) is not None:
                yield target


def for_the_site(text: str, path: str) -> str:
    """The document at ``path`` of the repository with each link to a file of the repository as it must be on the site."""
    start = posixpath.dirname(site_path(path)) or "."

    def moved(match: re.Match[str]) -> str:
        target = _resolve(match[1], path)
        return match[1] if target is None else posixpath.relpath(site_path(target), start)

    return _outside_fences(text, lambda prose: _LINK.sub(moved, prose))


def _resolve(link: str, path: str) -> str | None:
    """The path in the repository that a link of a document means; None for another host, and for what is not there."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    return target if "://" not in link and not target.startswith("..") and (ROOT / target).exists() else None


def _outside_fences(text: str, change: Callable[[str], str]) -> str:
    """Every second part is a fenced block, and stays."""
    parts = _FENCE.split(text)
    parts[::2] = [change(part) for part in parts[::2]]
    return "".join(parts)
