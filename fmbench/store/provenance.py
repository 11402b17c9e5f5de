"""Where a number comes from: the commit, the versions of packages and the device."""

import importlib.metadata
import json
import platform
import subprocess
from functools import cache
from pathlib import Path

_PACKAGES = ("fmbench", "torch", "torchdiffeq", "numpy", "scipy", "scikit-learn")


@cache
def commit() -> str:
    """The commit of the working tree that the package runs from.

    ``+dirty`` follows if files differ from it. It is ``unknown`` if the package is not in a git repository of its own.
    """
    here = Path(__file__).parent

    def git(*args: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *args], capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # fails if the package is installed inside another repository
        dirty = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+dirty" if dirty else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


@cache
def versions() -> str:
    """The versions of Python and of the packages that can change a number, as JSON."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return json.dumps(found, sort_keys=True)


def device_name(device: str) -> str:
    """A device in words, such as ``cuda (NVIDIA H200)``: the model of the processor or GPU, without its index."""
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
