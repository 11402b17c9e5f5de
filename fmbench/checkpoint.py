"""Checkpoints and weights: atomic, whole, and never a pickled class.

A checkpoint lives outside of Snakemake's declared outputs, in a folder named by the hash of the training's spec, so that
a killed training goes on where it was and a changed one starts afresh.
"""

import json
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fmbench.errors import CheckpointError, LockedError
from fmbench.files import atomic


class CheckpointFolder:
    """The checkpoints of one training; a lock keeps a second trainer out.

    Raises:
        LockedError: (on entering) another process is training the same thing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.latest, self.previous = folder / "checkpoint.pt", folder / "checkpoint.previous.pt"
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / "lock")
        self._latest_is_good = True

    def __enter__(self) -> "CheckpointFolder":
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise LockedError(
                f"another process is training into {self.folder} right now. If it was left behind by a killed "
                "snakemake, wait for it to end or end it, then rerun"
            ) from None
        for leftover in self.folder.glob(f".{self.latest.name}.*"):  # of a trainer killed while it wrote
            leftover.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def save(self, state: dict[str, Any]) -> None:
        """Write ``state``, keeping the checkpoint before it.

        Raises:
            CheckpointError: the file cannot be written; the earlier checkpoints are untouched.
        """
        try:
            with atomic(self.latest) as temporary:
                torch.save(state, temporary)
                # A damaged one must not take the place of the good one before it.
                if self.latest.exists() and self._latest_is_good:
                    self.previous.unlink(missing_ok=True)
                    self.previous.hardlink_to(self.latest)
        except (OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
            raise CheckpointError(
                f"cannot write a checkpoint to {self.folder}: {error}. Make room or fix the folder, then rerun: the "
                "training goes on from its last checkpoint"
            ) from error
        self._latest_is_good = True

    def load(self, key: str) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest good checkpoint of the training ``key``, and a complaint for each bad one passed over."""
        complaints: list[str] = []
        for path in (self.latest, self.previous):
            if not path.exists():
                continue
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
                if state["key"] != key:
                    raise ValueError(f"it belongs to the training {state['key']}, not {key}")
                return state, complaints
            except Exception as error:  # truncated zip, wrong pickle, missing key: all mean the same here
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                complaints.append(f"{path} cannot be used ({reason})")
                if path == self.latest:
                    self._latest_is_good = False
        return None, complaints


def save_weights(path: Path, network: nn.Module, metadata: dict[str, Any]) -> None:
    """Write a network's state dict as safetensors, atomically, with metadata in its header."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"fmbench": json.dumps(metadata, sort_keys=True)})


def load_weights(path: Path, network: nn.Module) -> None:
    """Load safetensors into a network built from the config stored beside them.

    Raises:
        CheckpointError: the file is missing or truncated, or its tensors are not those of the network.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"the weights {path} are missing; rerun the training that makes them") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"the weights {path} cannot be read ({error}); delete the file and rerun the training") from None
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"the weights {path} do not fit the network described beside them: {error}") from None
