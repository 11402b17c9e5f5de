"""Averaged weights along a training, kept beside its checkpoints until it ends, whatever kills it in between."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fmbench.errors import CheckpointError
from fmbench.files import atomic


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, Any]) -> None:
    """Safetensors with metadata in the header, as :func:`fmbench.checkpoint.save_weights` writes them; there may be none."""
    values = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic(path) as temporary:
        save_file(values, temporary, metadata={"fmbench": json.dumps(metadata, sort_keys=True)})


class Snapshots:
    """One file for each snapshot, written once and whole.

    Args:
        folder: that of the training's checkpoints, held by its lock.
        key: hash of everything the training depends on.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key

    def _path(self, step: int) -> Path:
        return self.folder / f"snapshot-{step:08d}.safetensors"

    def save(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep the weights of an iteration; one that is there from before a kill holds the same and is replaced.

        Raises:
            CheckpointError: the file cannot be written.
        """
        try:
            write_tensors(self._path(step), tensors, {"key": self.key, "step": step})
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"cannot write a snapshot to {self.folder}: {error}. Make room or fix the folder, then rerun: the training goes "
                "on from its last checkpoint"
            ) from error

    def damaged(self, steps: list[int]) -> dict[int, str]:
        """The snapshots of these iterations that cannot be used, and why."""
        found: dict[int, str] = {}
        for step in steps:
            try:
                with safe_open(self._path(step), "pt") as file:
                    metadata = json.loads(file.metadata()["fmbench"])
                if metadata != {"key": self.key, "step": step}:
                    raise ValueError(f"it is of {metadata}")
            except Exception as error:  # missing, truncated, without metadata: all mean the same here
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                found[step] = f"{self._path(step)} cannot be used ({reason})"
        return found

    def load(self, steps: list[int]) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """The snapshots of these iterations, one after the other."""
        for step in steps:
            yield step, load_file(self._path(step))

    def tidy(self) -> None:
        """Remove what a killed trainer left half written."""
        for leftover in self.folder.glob(".snapshot-*.safetensors.*"):
            leftover.unlink(missing_ok=True)
