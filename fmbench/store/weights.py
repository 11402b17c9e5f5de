"""Network weights as safetensors: written whole or not at all, with a seal, and never a pickled class."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fmbench.errors import CheckpointError
from fmbench.store.documents import MAKE_AGAIN
from fmbench.store.files import atomic
from fmbench.store.seal import UNSEALED, check_seal, seal


def save_weights(path: Path, network: nn.Module, metadata: dict[str, Any]) -> None:
    """Write a network's state dict as safetensors, atomically, with ``metadata`` in the header.

    Raises:
        CheckpointError: the file cannot be written.
    """
    write_tensors(path, network.state_dict(), metadata)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write tensors as safetensors, atomically, with ``metadata`` and a seal in the header.

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
    # One key, because the library writes several keys in any order.
    header = {"fmbench": json.dumps(metadata | {"seal": UNSEALED}, sort_keys=True)}
    try:
        with atomic(path) as temporary:
            save_file(values, temporary, metadata=header)
            seal(temporary)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot write {path}: {error}. Make room or fix the folder, then rerun; the training resumes from its last "
            "checkpoint"
        ) from error


class Weights(NamedTuple):
    """The content of a file of :func:`write_tensors`."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]
    digest: str  # the digits of its seal: files with the same digits have the same content


def read_tensors(path: Path) -> Weights:
    """The tensors of a file by their names, after a check of the whole file.

    Raises:
        CheckpointError: the file is missing, is damaged or has no seal.
    """
    with open_tensors(path) as (file, metadata, digest):
        return Weights({name: file.get_tensor(name) for name in file.keys()}, metadata, digest)  # noqa: SIM118 - it is not a dict


@contextlib.contextmanager
def open_tensors(path: Path) -> Iterator[tuple[Any, dict[str, Any], str]]:
    """A checked file of :func:`write_tensors`, its metadata and the digits of its seal. Tensors are read when asked for.

    Raises:
        CheckpointError: the file is missing, is damaged or has no seal.
    """
    try:
        digest = check_seal(path)
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})["fmbench"])
            metadata.pop("seal")
            yield file, metadata, digest
    except FileNotFoundError:
        raise CheckpointError(f"the weights {path} are missing; rerun the training that makes them") from None
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"the weights {path} cannot be used: {error}; {MAKE_AGAIN}") from None


def load_weights(path: Path, network: nn.Module) -> str:
    """Load safetensors into a network that was built from the config stored beside them; return the digits of the file's seal.

    Raises:
        CheckpointError: the file is missing or damaged, or its tensors do not fit the network.
    """
    found = read_tensors(path)
    fit(path, network, found.tensors)
    return found.digest


def fit(path: Path, network: nn.Module, tensors: Mapping[str, Tensor], what: str = "weights") -> None:
    """Load the tensors of a file into a network.

    Raises:
        CheckpointError: they do not fit the network.
    """
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"the {what} {path} do not fit the network described beside them: {error}") from None
