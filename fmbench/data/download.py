"""Where a source's files are: in a given folder, in a customary place, or downloaded once into a cache.

The cache is ``$FMBENCH_DATA``, or the operating system's folder for caches. Files that a user puts there, in a folder with the
source's name, are found like downloaded ones, so a config needs no paths of one machine.
"""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fmbench.errors import DataError


@dataclass(frozen=True)
class Remote:
    """A file that can be downloaded.

    Attributes:
        name: its name in the cache.
        url: its official public address.
        hash: ``md5:...`` or ``sha256:...`` of the file.
    """

    name: str
    url: str
    hash: str


def cache(source: str) -> Path:
    """The folder of a source in the cache."""
    root = os.environ.get("FMBENCH_DATA")
    if not root:
        import pooch

        root = str(pooch.os_cache("fmbench"))
    return Path(root) / source


def folder(path: str | None, places: Iterable[Path], names: Iterable[str], what: str, where_to_get: str) -> Path | None:
    """The folder that has any of the files ``names``: ``path`` if given, else the first such of ``places``, else None.

    Raises:
        DataError: ``path`` is given and has none of them.
    """
    names = tuple(names)
    for place in [Path(path).expanduser()] if path is not None else places:
        if any((place / name).exists() for name in names):
            return place
    if path is None:
        return None
    there = "it does not exist" if not Path(path).expanduser().exists() else "none of them is there"
    raise DataError(f"{path}: expected {what} ({', '.join(names)}), but {there}. {where_to_get}")


def fetch(source: str, remotes: Iterable[Remote]) -> Path:
    """Download the files that the cache lacks or has with a wrong hash, and return the cache's folder.

    Raises:
        DataError: a download fails, or has a wrong hash.
    """
    import pooch

    place, files = cache(source), list(remotes)
    store = pooch.create(
        path=place,
        base_url="",
        registry={file.name: file.hash for file in files},
        urls={file.name: file.url for file in files},
        retry_if_failed=3,
    )
    # A bar drawn into a log file would be noise.
    download = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=60)
    for file in files:
        try:
            store.fetch(file.name, downloader=download)
        except (ValueError, OSError) as error:  # a wrong hash raises the first, a failed connection the second
            raise DataError(
                f"{place / file.name} could not be downloaded: {' '.join(str(error).split())}. "
                f"Expected {file.url} with {file.hash}. "
                f"Without a connection, get the file elsewhere and put it into {place}, or give its folder as the parameter path"
            ) from None
    return place
