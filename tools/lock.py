"""Write the exact versions of everything that a run imports, as they are installed here: ``python tools/lock.py``.

``requirements.lock`` is a file of constraints for pip. It holds what fmbench needs, directly or not, but no tool of the tests.
Its versions are those of Linux; a build of PyTorch for another device has the same version.
"""

import importlib.metadata
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
HEAD = "# The versions of a run, for `make LOCKED=yes`. `make lock` writes this file.\n"


def versions(requirements: list[str]) -> dict[str, str]:
    """Return the installed version of each package that the requirements need, directly or not, by name.

    Raises:
        PackageNotFoundError: one of them is not installed.
    """
    found: dict[str, str] = {}
    waiting = [(Requirement(text), frozenset({""})) for text in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement, extras = waiting.pop()
        if requirement.marker is not None and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        name, wanted = canonicalize_name(requirement.name), frozenset({"", *requirement.extras})
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        distribution = importlib.metadata.distribution(name)
        found[name] = distribution.version.partition("+")[0]
        waiting += [(Requirement(text), wanted) for text in distribution.requires or []]
    return dict(sorted(found.items()))


def main() -> None:
    """Write the lock file, or the file that is named on the command line."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = versions(project["dependencies"])
    # The libraries of CUDA follow from the version of torch, and a CPU has none.
    lines = [f"{name}=={version}\n" for name, version in found.items() if not name.startswith(("nvidia-", "cuda-", "triton"))]
    Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "requirements.lock").write_text("".join([HEAD, *lines]), encoding="utf-8")


if __name__ == "__main__":
    main()
