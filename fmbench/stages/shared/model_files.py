"""The files of a trained model, or of an oracle, as the stages ``train`` and ``oracles`` write them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from fmbench.config.hashing import settings_hash
from fmbench.data.prepared import DataSet
from fmbench.stages.shared.job import Job, split_hashes
from fmbench.store.documents import write_document
from fmbench.store.parquet import table, write_table
from fmbench.store.records import write_rows
from fmbench.store.tables import CURVE
from fmbench.store.weights import save_weights, write_tensors


@dataclass(frozen=True)
class FinishedModel:
    """The result of a training or an oracle.

    Attributes:
        network: with its averaged weights.
        step: iterations that these weights were trained for.
        curve: (iteration, mean loss since the last entry, learning rate).
        reason: why the training failed; empty if it did not.
        snapshots: (iteration, averaged weights) during training.
        averages: further averages of the weights at the end, by decay.
    """

    network: nn.Module
    step: int = 0
    curve: Sequence[tuple[int, float, float]] = ()
    reason: str = ""
    snapshots: Iterable[tuple[int, Mapping[str, Tensor]]] = ()
    averages: Mapping[float, Mapping[str, Tensor]] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """The number of the network's parameters."""
        return sum(p.numel() for p in self.network.parameters())


def add_times(job: Job, began: float, ended: float, step: int) -> None:
    """Add the times at which a training began and ended, in seconds since 1970, as rows with the precision of MLflow (1 ms)."""
    for metric, value in (("began", began), ("ended", max(began, ended))):
        job.add(metric, round(value, 3), "s", step=step)


def write_model(job: Job, dataset: DataSet, out: Path, model: FinishedModel) -> None:
    """Write a model into ``out``: ``config.json``, ``loss_curve.parquet``, ``rows.parquet`` and weights as safetensors.

    ``model.safetensors`` has the averaged weights at the end. ``snapshots.safetensors`` has those during training, named
    ``{iteration:08d}/{name}``. ``averages.safetensors`` has the further averages at the end, named ``{decay}/{name}``. The
    headers of the last two list their ``steps`` and ``decays``. Either file may have no tensors.
    """
    key = settings_hash(job.spec)
    # The field of an oracle depends on the data, so models of other data must have files with other hashes.
    about = {"spec": key, "data": settings_hash(split_hashes(dataset))}
    save_weights(out / "model.safetensors", model.network, about | {"step": model.step})
    steps: list[int] = []
    kept: dict[str, Tensor] = {}
    for iteration, tensors in model.snapshots:
        steps.append(iteration)
        kept |= {f"{iteration:08d}/{name}": tensor for name, tensor in tensors.items()}
    write_tensors(out / "snapshots.safetensors", kept, about | {"steps": steps})
    others = {f"{decay}/{name}": tensor for decay, tensors in model.averages.items() for name, tensor in tensors.items()}
    write_tensors(out / "averages.safetensors", others, about | {"step": model.step, "decays": list(model.averages)})
    curve = [dict(zip(CURVE.names, entry, strict=True)) for entry in model.curve]
    write_table(out / "loss_curve.parquet", table(curve, CURVE))
    write_rows(out / "rows.parquet", job.rows)
    write_document(
        out / "config.json",
        {
            "spec": job.spec,
            "spec_hash": key,
            "code_hash": job.code_hash,
            "shape": list(dataset.shape),
            "parameters": model.parameters,
            "step": model.step,
            "reason": model.reason,
        },
    )
