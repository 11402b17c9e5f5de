"""The joint solve of test samples and their log likelihood, which the stages ``likelihood`` and ``dequantisation`` share."""

import torch
from torch import Tensor

from fmbench.config.evaluation_settings import DequantisationSettings, LikelihoodSettings
from fmbench.data.prepared import DataSet
from fmbench.flow.fields import CountingField
from fmbench.flow.likelihood import LogLikelihood, log_likelihood
from fmbench.stages.shared.job import Job
from fmbench.stages.shared.models import Model
from fmbench.system.rng import indexed_normal, indexed_rademacher, indexed_uniform

SOLVER = "dopri5_shared"


def dequantised_samples(job: Job, dataset: DataSet, indices: range, stream: str = "dequantise") -> Tensor:
    """Test samples (b, *) in model space. Images are dequantised with uniforms of the random ``stream``."""
    x = torch.from_numpy(dataset.test[indices.start : indices.stop].copy())
    return dataset.to_model(x, indexed_uniform(job.spec["seed"], stream, indices, dataset.shape)).to(job.device)


def draw_probes(job: Job, dataset: DataSet, kind: str, indices: range, streams: list[str]) -> Tensor | None:
    """Hutchinson probes (K, b, *), one from each random stream; None for no stream, which means the exact divergence.

    Args:
        kind: ``rademacher`` or ``gaussian``.
    """
    if not streams:
        return None
    draw = indexed_rademacher if kind == "rademacher" else indexed_normal
    return torch.stack([draw(job.spec["seed"], stream, indices, dataset.shape) for stream in streams]).to(job.device)


def given(dataset: DataSet) -> str:
    """The column ``reference`` of a likelihood: what each test sample is given, if the data set has a condition."""
    return f"given {dataset.condition.given}" if dataset.condition.given else ""


@torch.no_grad()
def solve(
    model: Model,
    field: CountingField[Tensor],
    indices: range,
    x: Tensor,
    probes: Tensor | None,
    settings: LikelihoodSettings | DequantisationSettings,
) -> LogLikelihood:
    """log p of the test samples ``indices``, x (b, *), each given its condition, over the interval of the model's objective."""
    objective = model.flow()
    return log_likelihood(
        field.rows(indices),
        x,
        objective.t_min,
        objective.t_max,
        base_std=objective.base_std,
        base_mean=model.start_mean(indices),
        probes=probes,
        mode=settings.mode,
        rtol=settings.rtol,
        atol=settings.atol,
    )
