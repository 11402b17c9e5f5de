"""Where a number comes from: commit, versions, device."""

import importlib.metadata
import json
import platform
import subprocess
from functools import cache
from pathlib import Path

_PACKAGES = ("fmbench", "torch", "torchdiffeq", "numpy", "scipy", "scikit-learn")


@cache
def commit() -> str:
    """The commit of the working tree the package runs from, ``+dirty`` if it has changes, ``unknown`` outside git."""
    here = Path(__file__).parent

    def git(*args: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *args], capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # fails where the package is installed in somebody's checkout
        dirty = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+dirty" if dirty else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


@cache
def versions() -> str:
    """Versions of Python and of the packages that can change a number, as JSON."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return json.dumps(found, sort_keys=True)


def device_name(device: str) -> str:
    """A device in words: the processor's model for ``cpu``, the GPU's for ``cuda``, without its number, which may change."""
    if device.startswith("cuda"):
        import torch

        return f"cuda ({torch.cuda.get_device_name(device)})"
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{device} ({line.partition(':')[2].strip()})"
    except OSError:
        pass
    return f"{device} ({platform.processor() or platform.machine()})"
