"""Stage ``sample``: the adaptive solve that makes the samples, and its cost."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from fmbench.config.evaluation_settings import SampleSettings
from fmbench.data.prepared import read
from fmbench.stages.shared.batching import batches
from fmbench.stages.shared.job import Job
from fmbench.stages.shared.models import Model, model_of
from fmbench.stages.shared.sample_files import preview
from fmbench.stages.shared.timing import Stopwatch
from fmbench.store.files import atomic_array
from fmbench.store.parquet import write_table
from fmbench.store.previews import NFE, preview_count
from fmbench.store.records import write_rows

BLOCK = 2**22
"""Values in memory at a time, in a pass over all samples."""


def run(job: Job, data: Path, model_folder: Path, out: Path) -> None:
    """Write ``samples.npy`` (model space, not clamped), ``preview.parquet``, ``nfe.parquet`` and ``rows.parquet`` into ``out``.

    NFE is measured twice: with a step size per sample (the mean over samples, which does not depend on the batch), and with one
    step size for a batch, as most published numbers are. The row of the latter names the batch.

    The processes of the job's group share the batches. The first process alone writes files.
    """
    dataset = read(data)
    settings = SampleSettings.model_validate(job.spec["settings"])
    model = model_of(job, model_folder, dataset)
    if not job.group.main:
        if not model.reason:
            solve(job, settings, model, None)
        return
    with atomic_array(out / "samples.npy", (settings.n, *dataset.shape)) as samples:
        if model.reason:
            samples[:] = np.nan
            _skip(job, settings, model)
            write_table(out / "nfe.parquet", NFE.empty_table())
        else:
            cost = solve(job, settings, model, samples)
            write_table(out / "nfe.parquet", nfe_table(job, cost.nfe, cost.failed))
            _add_rows(job, settings, model, cost, samples)
            _add_shared(job, settings, model)
            nfe, shared = cost.evaluations / settings.n, job.rows[-1].nfe
            job.console.say(
                f"{settings.n} samples, {nfe:.1f} NFE per sample, {shared:.0f} for a batch of {settings.shared_batch}, "
                f"{int(cost.failed.sum())} failed -> {out}"
            )
    shown = samples[: preview_count(dataset.shape)]
    write_table(out / "preview.parquet", preview(job, dataset, shown))
    write_rows(out / "rows.parquet", job.rows)


@dataclass(frozen=True)
class Cost:
    """The cost of all samples."""

    nfe: torch.Tensor  # of each sample, as the solver reports it, (n,)
    failed: torch.Tensor  # whether its solve failed, (n,)
    evaluations: int  # of all samples together, as the counting field saw them
    seconds: float  # wall time of the solves


@torch.no_grad()
def solve(job: Job, settings: SampleSettings, model: Model, samples: NDArray | None) -> Cost:
    """Solve all samples batch by batch, and write them into ``samples`` if it is given; NaN where the solve failed."""
    objective, field = model.objective, model.field()

    def solved(indices: range) -> tuple[NDArray, torch.Tensor, torch.Tensor, int, float]:
        """Samples, NFE and failure of each, the evaluations that the field saw, and seconds."""
        x0, of_batch = model.start(job.spec["seed"], indices), field.rows(indices)
        before, watch = field.evaluations, Stopwatch(job.device)
        with watch:
            solution = model.sampler.solve(of_batch, x0, objective.t_min, objective.t_max, **_tolerance(settings, model))
        return (
            solution.samples.cpu().numpy(),
            model.cost * solution.nfe.cpu(),
            solution.failed.cpu(),
            field.evaluations - before,
            watch.seconds,
        )

    # One tensor each: small tensors kept between the batches' large ones would hold the heap's pages, and memory would grow.
    nfe, failed = torch.zeros(settings.n, dtype=torch.int64), torch.zeros(settings.n, dtype=torch.bool)
    evaluations, seconds = 0, 0.0
    pieces = list(batches(settings.n, settings.batch))
    progress = job.console.progress(settings.n, "samples")
    for indices, (ended, cost, lost, seen, took) in zip(pieces, job.group.map(solved, pieces), strict=True):
        if samples is not None:
            samples[indices.start : indices.stop] = ended
        nfe[indices.start : indices.stop], failed[indices.start : indices.stop] = cost, lost
        evaluations, seconds = evaluations + seen, seconds + took
        progress.update(indices.stop)
    progress.close()
    # NFE is what the counting field saw. The solver's own count must agree with it.
    if int(nfe.sum()) != evaluations:
        raise AssertionError(f"the solver reports {int(nfe.sum())} evaluations, the field saw {evaluations}")
    return Cost(nfe, failed, evaluations, seconds)


def _tolerance(settings: SampleSettings, model: Model) -> dict[str, Any]:
    return {"rtol": settings.rtol, "atol": settings.atol, "max_nfe": settings.max_nfe // model.cost}


def _per_sample(settings: SampleSettings, model: Model) -> dict[str, Any]:
    """The columns of rows about the solve with a step size per sample."""
    return {"n": settings.n, "batch": min(settings.batch, settings.n), **model.sampler.columns(settings.rtol, settings.atol)}


def _shared(settings: SampleSettings, model: Model) -> dict[str, Any]:
    """The columns of rows about the solve with one step size for a batch."""
    batch = settings.shared_batch
    columns = model.sampler.columns(settings.rtol, settings.atol) | {"solver": model.sampler.shared}
    return {"n": batch, "batch": batch, **columns}


def _skip(job: Job, settings: SampleSettings, model: Model) -> None:
    """Add a skipped row for every number of this stage."""
    columns, reason = _per_sample(settings, model), model.reason
    for metric in ("nfe", "nfe_stderr", "nfe_std_over_samples", "nfe_max"):
        job.skip(metric, "evaluations", reason, **columns)
    job.skip("sample_std", "model units", reason, **columns)
    job.skip("nfe_shared", "evaluations", reason, **_shared(settings, model))
    job.skip("sample_seconds", "s", reason, **columns)
    job.console.say(f"skipped, {reason}")


def _add_rows(job: Job, settings: SampleSettings, model: Model, cost: Cost, samples: NDArray) -> None:
    """Add the rows of the samples and their cost; without values if any solve failed."""
    spent, lost, n = cost.nfe.double(), int(cost.failed.sum()), settings.n
    reason, columns = "", _per_sample(settings, model)
    if lost:
        reason = f"{columns['solver']} failed on {lost} of {n} samples (step size vanished or {settings.max_nfe} NFE spent)"
    mean = cost.evaluations / n
    values = {
        ("nfe", "evaluations"): mean,
        ("nfe_stderr", "evaluations"): spent.std().item() / math.sqrt(n),
        ("nfe_std_over_samples", "evaluations"): spent.std().item(),
        ("nfe_max", "evaluations"): spent.max().item(),
        ("sample_std", "model units"): None if lost else standard_deviation(samples),
        ("sample_seconds", "s"): cost.seconds / n,
    }
    for (metric, unit), value in values.items():
        job.add(metric, None if lost else value, unit, nfe=mean, reason=reason, **columns)


@torch.no_grad()
def _add_shared(job: Job, settings: SampleSettings, model: Model) -> None:
    """Add the row of the NFE of one batch that shares a step size."""
    indices = range(settings.shared_batch)
    objective, field, x0 = model.objective, model.field().rows(indices), model.start(job.spec["seed"], indices)
    ends = objective.t_min, objective.t_max
    solution = model.sampler.solve(field, x0, *ends, per_sample=False, **_tolerance(settings, model))
    failed = bool(solution.failed.any())
    reason = f"dopri5 failed on the batch after {field.calls} NFE" if failed else ""
    value = None if failed else float(field.calls)
    job.add("nfe_shared", value, "evaluations", nfe=field.calls, reason=reason, **_shared(settings, model))


def standard_deviation(samples: NDArray) -> float:
    """The standard deviation of all values of samples (n, *), in float64, with a block of samples in memory at a time."""
    rows = max(1, BLOCK // samples[0].size)
    blocks = range(0, len(samples), rows)
    mean = sum(samples[i : i + rows].astype(np.float64).sum() for i in blocks) / samples.size
    return float(np.sqrt(sum(((samples[i : i + rows].astype(np.float64) - mean) ** 2).sum() for i in blocks) / samples.size))


def nfe_table(job: Job, nfe: torch.Tensor, failed: torch.Tensor) -> pa.Table:
    """NFE of each sample, null where its solve failed."""
    n = len(nfe)
    columns = [[job.spec["dataset"]] * n, [job.spec["method"]] * n, [job.spec["seed"]] * n, range(n)]
    spent = pa.array(nfe.numpy(), pa.int64(), mask=failed.numpy())
    return pa.table([*(pa.array(c, NFE.field(i).type) for i, c in enumerate(columns)), spent], NFE)
