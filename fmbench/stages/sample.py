"""Stage ``sample``: the adaptive solve that makes the samples, and what it costs."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from fmbench.config.evaluation_settings import SampleSettings
from fmbench.data.prepared import DataSet, read
from fmbench.flow.broadcast import expand_to
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.stages.common import Job, base_noise, batches
from fmbench.stages.models import load_model
from fmbench.stages.timing import Stopwatch
from fmbench.store.files import atomic_array
from fmbench.store.records import NFE, PREVIEW_IMAGES, PREVIEW_POINTS, previews, write_rows, write_table

BLOCK = 2**22
"""Values in memory at a time, where all samples are gone through."""


def run(job: Job, data: Path, model_folder: Path, out: Path) -> None:
    """Write ``samples.npy`` (model space, not clamped), ``preview.parquet``, ``nfe.parquet`` and ``rows.parquet`` into ``out``.

    NFE is measured twice: with a step size per sample (the mean over samples, independent of any batch) and with one step
    size for a batch, as most published numbers are; the batch is in the row.
    """
    dataset = read(data)
    settings = SampleSettings.model_validate(job.spec["settings"])
    if not job.group.main:  # it shares the solving, no more
        fill(job, dataset, settings, model_folder, None, out)
        return
    with atomic_array(out / "samples.npy", (settings.n, *dataset.shape)) as samples:
        fill(job, dataset, settings, model_folder, samples, out)
    write_table(out / "preview.parquet", preview(dataset, samples, job.spec["method"], job.spec["seed"]))
    write_rows(out / "rows.parquet", job.rows)


def fill(job: Job, dataset: DataSet, settings: SampleSettings, model_folder: Path, samples: NDArray | None, out: Path) -> None:
    """Fill ``samples``, batch by batch, with NaN for those that failed, and add the rows to ``job``.

    The processes of the job's group share the batches; ``samples`` is None in all but the first, which alone goes on after them.
    """
    model = load_model(model_folder, dataset, job.device, job.spec["model"])
    seed, objective = job.spec["seed"], model.objective
    columns = {"rtol": settings.rtol, "atol": settings.atol}
    per_sample = columns | {"n": settings.n, "batch": min(settings.batch, settings.n), "solver": "dopri5"}
    shared = columns | {"n": settings.shared_batch, "batch": settings.shared_batch, "solver": "dopri5_shared"}

    if model.reason:
        if samples is None:
            return
        samples[:] = np.nan
        reason = f"training diverged: {model.reason}"
        for metric in ("nfe", "nfe_std_over_samples", "nfe_max"):
            job.skip(metric, "evaluations", reason, **per_sample)
        job.skip("sample_std", "model units", reason, **per_sample)
        job.skip("nfe_shared", "evaluations", reason, **shared)
        job.skip("sample_seconds", "s", reason, **per_sample)
        write_table(out / "nfe.parquet", NFE.empty_table())
        job.console.say(f"skipped, {reason}")
    else:
        solve = {"rtol": settings.rtol, "atol": settings.atol, "max_nfe": settings.max_nfe}
        field = model.field()

        def solved(indices: range) -> tuple[NDArray, torch.Tensor, torch.Tensor, int, float]:
            """Samples, NFE and failure of each, evaluations that the field saw, seconds."""
            x0 = base_noise(seed, indices, dataset.shape, objective.path.base_std, job.device)
            before, watch = field.evaluations, Stopwatch(job.device)
            with watch:
                solution = dopri5(field, x0, objective.t_min, objective.t_max, **solve)  # type: ignore[arg-type]
            # A sample whose solve failed is no sample: it stays NaN, and no distance is taken over the rest.
            ended = solution.x.masked_fill(expand_to(solution.failed, solution.x), torch.nan)
            return ended.cpu().numpy(), solution.nfe.cpu(), solution.failed.cpu(), field.evaluations - before, watch.seconds

        # In one piece: small tensors kept between the batches' large ones would hold the heap's pages, and memory would grow.
        nfe, failed = torch.zeros(settings.n, dtype=torch.int64), torch.zeros(settings.n, dtype=torch.bool)
        evaluations, seconds = 0, 0.0
        pieces = list(batches(settings.n, settings.batch))
        progress = job.console.progress(settings.n, "samples")
        with torch.no_grad():
            for indices, (ended, cost, lost_ones, seen, took) in zip(pieces, job.group.map(solved, pieces), strict=True):
                if samples is not None:
                    samples[indices.start : indices.stop] = ended
                nfe[indices.start : indices.stop], failed[indices.start : indices.stop] = cost, lost_ones
                evaluations, seconds = evaluations + seen, seconds + took
                progress.update(indices.stop)
            progress.close()
            if samples is None:
                return
            spent, lost = nfe.double(), int(failed.sum())
            write_table(out / "nfe.parquet", nfe_table(job, nfe, failed))
            # The counting field is the judge; the solver's own bookkeeping must agree with it.
            if int(spent.sum()) != evaluations:
                raise AssertionError(f"the solver reports {int(spent.sum())} evaluations, the field saw {evaluations}")
            status = {}
            if lost:
                reason = f"dopri5 failed on {lost} of {settings.n} samples (step size vanished or {settings.max_nfe} NFE spent)"
                status = {"status": "diverged", "reason": reason}
            mean = evaluations / settings.n
            for metric, value in (("nfe", mean), ("nfe_std_over_samples", spent.std().item()), ("nfe_max", spent.max().item())):
                job.add(metric, None if lost else value, "evaluations", nfe=mean, **per_sample, **status)
            std = None if lost else standard_deviation(samples)
            job.add("sample_std", std, "model units", nfe=mean, **per_sample, **status)

            job.add("sample_seconds", None if lost else seconds / settings.n, "s", nfe=mean, **per_sample, **status)

            counted = model.field()
            x0 = base_noise(seed, range(settings.shared_batch), dataset.shape, objective.path.base_std, job.device)
            solution = dopri5(counted, x0, objective.t_min, objective.t_max, per_sample=False, **solve)  # type: ignore[arg-type]
            status = {}
            if solution.failed.any():
                status = {"status": "diverged", "reason": f"dopri5 failed on the batch after {counted.calls} NFE"}
            job.add("nfe_shared", None if status else float(counted.calls), "evaluations", nfe=counted.calls, **shared, **status)
        job.console.say(
            f"{settings.n} samples, {mean:.1f} NFE a sample, {counted.calls} for a batch of {settings.shared_batch}, "
            f"{lost} failed -> {out}"
        )


def standard_deviation(samples: NDArray) -> float:
    """That of all values, in float64, a block of samples at a time."""
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


def preview(dataset: DataSet, samples: NDArray, method: str, seed: int | None) -> pa.Table:
    """The first finite samples (model space), in data space, for figures."""
    shown = samples[: PREVIEW_IMAGES if dataset.is_images else PREVIEW_POINTS]
    kept = np.flatnonzero(np.isfinite(shown).reshape(len(shown), -1).all(1))
    return previews(dataset.manifest["dataset"], method, seed, dataset.to_data(shown[kept]), kept)
