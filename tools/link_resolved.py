"""Link packages that are installed here into another environment: those that pip has resolved for fmbench, and no other.

    pip install --dry-run --ignore-installed --constraint <what is installed here> --report resolved.json fmbench-*.whl
    python tools/link_resolved.py resolved.json <site-packages of the other environment>

So CI runs the built package with what it declares, and does not fetch PyTorch twice.
"""

import importlib.metadata
import json
import sys
from pathlib import Path


def resolved(report: Path) -> set[str]:
    """Return the names of the packages in a report of pip, without fmbench."""
    found = {item["metadata"]["name"] for item in json.loads(report.read_text(encoding="utf-8"))["install"]}
    return found - {"fmbench"}


def link(name: str, folder: Path) -> None:
    """Link the files and folders of an installed package into ``folder``.

    Raises:
        PackageNotFoundError: it is not installed here.
    """
    distribution = importlib.metadata.distribution(name)
    for entry in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
        if not (folder / entry).exists():
            (folder / entry).symlink_to(Path(str(distribution.locate_file(entry))).absolute())


def main() -> None:
    """Link the packages of the report into the folder, both named on the command line."""
    report, folder = map(Path, sys.argv[1:])
    for name in sorted(resolved(report)):
        link(name, folder)


if __name__ == "__main__":
    main()
