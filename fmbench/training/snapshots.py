"""Snapshots: averaged weights during training, kept in files beside the checkpoints, where they survive a kill."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from fmbench.errors import CheckpointError
from fmbench.store.weights import open_tensors, read_tensors, write_tensors


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
        write_tensors(self._path(step), tensors, {"key": self.key, "step": step})

    def damaged(self, steps: list[int]) -> dict[int, str]:
        """Which of these iterations' snapshots cannot be used, and why."""
        found: dict[int, str] = {}
        for step in steps:
            path = self._path(step)
            try:
                with open_tensors(path) as (_, metadata, _):
                    if metadata != {"key": self.key, "step": step}:
                        raise ValueError(f"it belongs to {metadata}")
            except CheckpointError as error:
                reason = str(error).partition("cannot be used: ")[2].partition(";")[0] or "it is missing"
                found[step] = f"{path} cannot be used ({reason})"
        return found

    def load(self, steps: list[int]) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """(iteration, averaged weights) for each of these iterations. Only one at a time is in memory."""
        for step in steps:
            yield step, read_tensors(self._path(step)).tensors
