"""Stage ``prepare``: a data set's source to arrays and a manifest."""

from pathlib import Path
from typing import Any

from fmbench.data.prepared import write
from fmbench.data.sources import make
from fmbench.progress import Console


def run(spec: dict[str, Any], out: Path, console: Console) -> None:
    """Write ``train.npy``, ``test.npy``, labels and ``manifest.json`` into ``out``."""
    manifest = write(make(spec["source"], spec["parameters"]), out, spec)
    counts = ", ".join(f"{v['n']} {k}" for k, v in manifest["splits"].items())
    console.say(f"{counts} samples of shape {manifest['shape']} -> {out}")
