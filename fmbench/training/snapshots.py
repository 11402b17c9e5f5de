"""Averaged weights along a training, kept beside its checkpoints until it ends, whatever kills it in between."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from fmbench.store.checkpoint import write_tensors


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of names and numbers."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


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
        write_tensors(self._path(step), tensors, {"key": self.key, "step": step, "sha256": digest(tensors)})

    def damaged(self, steps: list[int]) -> dict[int, str]:
        """The snapshots of these iterations that cannot be used, and why."""
        found: dict[int, str] = {}
        for step in steps:
            try:
                with safe_open(self._path(step), "pt") as file:
                    metadata = json.loads(file.metadata()["fmbench"])
                content = metadata.pop("sha256", None)
                if metadata != {"key": self.key, "step": step}:
                    raise ValueError(f"it is of {metadata}")
                if content != digest(load_file(self._path(step))):
                    raise ValueError("its content is not what its checksum says: it is damaged")
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
