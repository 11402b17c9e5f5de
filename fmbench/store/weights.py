"""Network weights as safetensors: written whole or not at all, and never a pickled class."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fmbench.errors import CheckpointError
from fmbench.store.files import atomic


def save_weights(path: Path, network: nn.Module, metadata: dict[str, Any]) -> None:
    """Write a network's state dict as safetensors, atomically, with ``metadata`` in the header.

    Raises:
        CheckpointError: the file cannot be written.
    """
    write_tensors(path, network.state_dict(), metadata)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write tensors as safetensors, atomically, with ``metadata`` in the header.

    ``tensors`` may be empty. Tensors that share their storage are written once for each name.

    Raises:
        CheckpointError: the file cannot be written.
    """
    values, seen = {}, set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        storage = value.untyped_storage().data_ptr()
        values[name] = value.clone() if storage in seen else value  # the format does not allow two names for one storage
        seen.add(storage)
    try:
        with atomic(path) as temporary:
            save_file(values, temporary, metadata={"fmbench": json.dumps(metadata, sort_keys=True)})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot write {path}: {error}. Make room or fix the folder, then rerun; the training resumes from its last "
            "checkpoint"
        ) from error


def load_weights(path: Path, network: nn.Module) -> None:
    """Load safetensors into a network that was built from the config stored beside them.

    Raises:
        CheckpointError: the file is missing or truncated, or its tensors do not fit the network.
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
