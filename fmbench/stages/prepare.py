"""Stage ``prepare``: arrays and a manifest from the source of a data set."""

from pathlib import Path
from typing import Any

from fmbench.config.plugins import plugins_in
from fmbench.data.sources import make
from fmbench.data.writer import write
from fmbench.errors import DataError
from fmbench.metrics.points import SUPPORTS
from fmbench.store.codehash import stage_hash
from fmbench.system.progress import Console


def run(spec: dict[str, Any], out: Path, console: Console, workers: int = 1) -> None:
    """Write ``train.npy``, ``test.npy``, labels and ``manifest.json`` into ``out``, with up to ``workers`` processes.

    Raises:
        DataError: the source names an unknown support, or cannot be used (:func:`fmbench.data.writer.write`).
    """
    raw = make(spec["source"], spec["parameters"])
    if raw.support is not None and raw.support not in SUPPORTS:
        raise DataError(f"{spec['source']}: unknown support {raw.support!r}; known: {', '.join(SUPPORTS)}")
    manifest = write(raw, out, spec, stage_hash("prepare", plugins_in(spec)), workers, console)
    counts = ", ".join(f"{v['n']} {k}" for k, v in manifest["splits"].items())
    console.say(f"{counts} samples of shape {manifest['shape']} -> {out}")
    for note in manifest["notes"]:
        console.say(f"note: {note}")
    for text in manifest["warnings"]:
        console.say(f"warning: {text}")
