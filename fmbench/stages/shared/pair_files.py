"""The pairs that a method with a teacher is trained on, as the stage ``pairs`` wrote them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fmbench.data.prepared import DataSet
from fmbench.errors import DataError
from fmbench.stages.shared.job import Job
from fmbench.stages.shared.model_files import FinishedModel, write_model
from fmbench.store.weights import read_tensors

FILE = "pairs.safetensors"
NO_PAIRS = "its teacher"
"""How the reason begins why a student is not trained."""


@dataclass(frozen=True)
class Pairs:
    """Noise N(0, I) and samples in model space, (n, *) each, on the CPU.

    Attributes:
        digest: the digits of the file's seal.
        reason: why there are none; empty if there are some.
    """

    x0: Tensor
    x1: Tensor
    digest: str
    reason: str


def read_pairs(spec: dict[str, Any], folder: Path | None) -> Pairs | None:
    """The pairs of a training's spec; None if the method has no teacher.

    Raises:
        DataError: the folder is missing, or its pairs are not those of the spec.
        CheckpointError: the file is missing or damaged.
    """
    expected = spec.get("pairs")
    if expected is None:
        return None
    if folder is None:
        raise DataError(f"{spec['method']['name']} is trained on the pairs of a teacher; give their folder with --pairs")
    found = read_tensors(folder / FILE)
    if found.metadata["spec"] != expected:
        raise DataError(
            f"{folder} holds pairs of the spec {found.metadata['spec']}, not those of this training ({expected}); make them again"
        )
    return Pairs(found.tensors["x0"], found.tensors["x1"], found.digest, str(found.metadata["reason"]))


def skip_student(job: Job, dataset: DataSet, network: nn.Module, out: Path, reason: str) -> None:
    """Write the model of a training that has no pairs: initial weights, no curve, and rows that are skipped with the reason."""
    if not job.group.main:
        return
    for metric, unit in (("final_loss", "loss"), ("iterations", "iterations")):
        job.skip(metric, unit, reason, step=0)
    write_model(job, dataset, out, FinishedModel(network, reason=reason))
    job.console.say(f"SKIPPED: {reason} -> {out}")
