"""What all stages share: the job they do, the rows and the models they write."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn

from fmbench.config.hashing import settings_hash
from fmbench.data.prepared import DataSet
from fmbench.errors import DataError
from fmbench.networks import build_network
from fmbench.store.checkpoint import save_weights, write_tensors
from fmbench.store.files import write_json
from fmbench.store.provenance import commit, device_name, versions
from fmbench.store.records import DIVERGED, OK, SKIPPED, Row, table, write_rows, write_table
from fmbench.system.distributed import ALONE, Group
from fmbench.system.progress import Console
from fmbench.system.rng import generator, indexed_normal


@dataclass
class Job:
    """A stage at work: its spec, where it speaks, what it computes on, the rows it has made, and the processes at it.

    Of several processes the first alone writes.
    """

    spec: dict[str, Any]
    console: Console
    device: torch.device
    code_hash: str
    rows: list[Row] = field(default_factory=list)
    group: Group = ALONE

    def __post_init__(self) -> None:
        self.config_hash = settings_hash(self.spec)
        self.device_name = device_name(str(self.device))

    def add(self, metric: str, value: float | None, unit: str, **columns: Any) -> None:
        """Add a row, stamped with its provenance. A value that is not finite becomes a row ``diverged``."""
        if columns.get("status", OK) == OK and (value is None or not abs(value) < float("inf")):
            columns |= {"status": DIVERGED, "reason": columns.get("reason") or f"{metric} is {value}"}
            value = None
        spec = self.spec
        defaults = {
            "dataset": spec["dataset"],
            "method": spec["method"] if isinstance(spec.get("method"), str) else spec.get("method", {}).get("name", ""),
            "seed": spec.get("seed"),
            "stage": spec["stage"],
            "config_hash": self.config_hash,
            "code_hash": self.code_hash,
            "commit": commit(),
            "versions": versions(),
            "device": self.device_name,
            "threads": torch.get_num_threads(),
        }
        self.rows.append(Row(metric=metric, value=value, unit=unit, **(defaults | columns)))

    def skip(self, metric: str, unit: str, reason: str, **columns: Any) -> None:
        """Add a row for what could not be measured."""
        self.add(metric, None, unit, status=SKIPPED, reason=reason, **columns)


def new_network(spec: dict[str, Any], dataset: DataSet) -> nn.Module:
    """The network of a training spec with its initial weights, a function of the seed and of nothing else."""
    return initial_network(spec["network"], dataset.shape, spec["seed"])


def initial_network(settings: dict[str, Any], shape: tuple[int, ...], seed: int) -> nn.Module:
    """A network for samples of ``shape`` with its initial weights.

    Raises:
        ValueError: the settings do not go with each other or with the shape.
    """
    settings = dict(settings)
    kind = settings.pop("kind")
    parameters = settings.pop("parameters", settings)
    # torch initialises layers from the global generator only; seed it for just that.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "network").initial_seed())
        network = build_network(kind, shape, parameters)
    if len(shape) == 3:
        network = network.to(memory_format=torch.channels_last)
    return network


def check_data(spec: dict[str, Any], dataset: DataSet) -> None:
    """Hold a job to the data set its spec was made for.

    Raises:
        DataError: the folder holds another data set.
    """
    found = dataset.manifest["spec"]
    if settings_hash(found) != spec["data"]:
        raise DataError(
            f"{dataset.folder} holds {found['dataset']} prepared from {found['source']} with {found['parameters']}, which is not "
            f"what this job's spec was made for; give the folder of {spec['dataset']}, or prepare it again"
        )


def base_noise(seed: int, indices: range, shape: tuple[int, ...], std: float, device: torch.device) -> torch.Tensor:
    """The noise that samples ``indices`` start from: the same for every method, solver and batch size."""
    noise = indexed_normal(seed, "sample", indices, shape).to(device) * std
    return noise.to(memory_format=torch.channels_last) if noise.ndim == 4 else noise


def batches(n: int, size: int) -> Iterator[range]:
    """Index ranges of at most ``size`` that cover n samples."""
    for start in range(0, n, size):
        yield range(start, min(start + size, n))


CURVE = pa.schema([("step", pa.int64()), ("loss", pa.float64()), ("learning_rate", pa.float64())])


def write_model(
    job: Job,
    dataset: DataSet,
    out: Path,
    network: nn.Module,
    step: int,
    curve: list[tuple[int, float, float]],
    parameters: int,
    reason: str,
    snapshots: Iterable[tuple[int, Mapping[str, Tensor]]] = (),
    averages: Mapping[float, Mapping[str, Tensor]] = MappingProxyType({}),
) -> None:
    """Write a model into ``out``: ``config.json``, ``loss_curve.parquet``, ``rows.parquet`` and weights as safetensors.

    ``model.safetensors`` has the averaged weights at the end; ``snapshots.safetensors`` those along the training, as
    ``{iteration:08d}/{name}``; ``averages.safetensors`` the further averages at the end, as ``{decay}/{name}``. The headers of
    the last two list their ``steps`` and ``decays``; either may have no tensors.
    """
    key = settings_hash(job.spec)
    # An oracle's field is in its data: files that differ must have another hash.
    content = [entry["sha256"] for entry in dataset.manifest["splits"].values()]
    about = {"spec": key, "data": settings_hash(content)}
    save_weights(out / "model.safetensors", network, about | {"step": step})
    steps: list[int] = []
    kept: dict[str, Tensor] = {}
    for iteration, tensors in snapshots:
        steps.append(iteration)
        kept |= {f"{iteration:08d}/{name}": tensor for name, tensor in tensors.items()}
    write_tensors(out / "snapshots.safetensors", kept, about | {"steps": steps})
    others = {f"{decay}/{name}": tensor for decay, tensors in averages.items() for name, tensor in tensors.items()}
    write_tensors(out / "averages.safetensors", others, about | {"step": step, "decays": list(averages)})
    write_table(out / "loss_curve.parquet", table([dict(zip(CURVE.names, entry, strict=True)) for entry in curve], CURVE))
    write_rows(out / "rows.parquet", job.rows)
    write_json(
        out / "config.json",
        {
            "spec": job.spec,
            "spec_hash": key,
            "code_hash": job.code_hash,
            "shape": list(dataset.shape),
            "parameters": parameters,
            "step": step,
            "reason": reason,
        },
    )
