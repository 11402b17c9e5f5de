"""Snapshots: averaged weights during training, kept in files beside the checkpoints, where they survive a kill."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from fmbench.store.weights import write_tensors


def digest(tensors: Mapping[str, Tensor]) -> str:
    """The sha256 of the tensors' names and numbers."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


class Snapshots:
    """The snapshots of one training, a file each.

    Args:
        folder: the folder of the training's checkpoints, whose lock this process holds.
        key: hash of everything that the training depends on.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key

    def _path(self, step: int) -> Path:
        return self.folder / f"snapshot-{step:08d}.safetensors"

    def save(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Write the weights of an iteration. A file left from before a kill holds the same weights and is replaced.

        Raises:
            CheckpointError: the file cannot be written.
        """
        write_tensors(self._path(step), tensors, {"key": self.key, "step": step, "sha256": digest(tensors)})

    def damaged(self, steps: list[int]) -> dict[int, str]:
        """Which of these iterations' snapshots cannot be used, and why."""
        found: dict[int, str] = {}
        for step in steps:
            try:
                with safe_open(self._path(step), "pt") as file:
                    metadata = json.loads(file.metadata()["fmbench"])
                content = metadata.pop("sha256", None)
                if metadata != {"key": self.key, "step": step}:
                    raise ValueError(f"it belongs to {metadata}")
                if content != digest(load_file(self._path(step))):
                    raise ValueError("its content is not what its checksum says: it is damaged")
            except Exception as error:  # missing, truncated or without metadata: the snapshot is lost
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                found[step] = f"{self._path(step)} cannot be used ({reason})"
        return found

    def load(self, steps: list[int]) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """(iteration, averaged weights) for each of these iterations. Only one at a time is in memory."""
        for step in steps:
            yield step, load_file(self._path(step))
