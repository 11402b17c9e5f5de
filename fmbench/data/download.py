"""Where a source's files are: in a folder that is named, where they are by custom, or fetched once into a cache.

The cache is outside of any repository: ``$FMBENCH_DATA``, or the operating system's folder for caches. Files put there by hand,
in a folder named like the source, are found like fetched ones, so a config can do without paths of one machine.
"""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fmbench.errors import DataError


@dataclass(frozen=True)
class Remote:
    """A file that can be fetched.

    Attributes:
        name: what it is called here.
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
    """The folder with any of the files ``names``: ``path`` itself where it is given, else the first of ``places``, else None.

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
    """Fetch files into the cache, those that are there with the right hash excepted; returns the folder.

    Raises:
        DataError: a file cannot be fetched, or its hash is wrong.
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
        except (ValueError, OSError) as error:  # of a wrong hash, and of the connection
            raise DataError(
                f"{place / file.name} could not be fetched: {' '.join(str(error).split())}. "
                f"Expected {file.url} with {file.hash}. "
                f"Without a connection: get it elsewhere, put it into {place}, or give its folder as the parameter path"
            ) from None
    return place
