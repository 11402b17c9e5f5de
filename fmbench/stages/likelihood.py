"""Stage ``likelihood``: NLL of the test split."""

import math
from pathlib import Path

import torch

from fmbench.config import LikelihoodSettings
from fmbench.data.prepared import read
from fmbench.likelihood import bits_per_dimension, log_likelihood
from fmbench.records import write_rows
from fmbench.rng import indexed_normal, indexed_rademacher, indexed_uniform
from fmbench.stages.common import Job, batches, load_model


def run(job: Job, data: Path, model_folder: Path, out: Path) -> None:
    """Write ``rows.parquet`` into ``out``: NLL, its standard error over test samples, and the joint solve's NFE.

    The divergence is exact up to a set dimension and Hutchinson's above; which one is in the ``solver`` column. Images are
    dequantised with uniforms of their own; probes and uniforms depend on a test sample's index, not on its batch.
    """
    dataset = read(data)
    settings = LikelihoodSettings.model_validate(job.spec["settings"])
    model = load_model(model_folder, dataset, job.device, job.spec["model"])
    seed, objective = job.spec["seed"], model.objective
    n = len(dataset.test) if settings.n is None else min(settings.n, len(dataset.test))
    exact = dataset.dimensions <= settings.exact_up_to
    unit = "bits/dim" if dataset.is_images else "nats"
    estimator = "exact divergence" if exact else f"hutchinson {settings.probe} x{settings.probes}"
    columns = {
        "n": n,
        "batch": min(settings.batch, n),
        "rtol": settings.rtol,
        "atol": settings.atol,
        "solver": f"dopri5_shared, {estimator}",
    }
    out_rows = out / "rows.parquet"
    if model.reason:
        reason = f"training diverged: {model.reason}"
        job.skip("nll", unit, reason, **columns)
        job.skip("nll_stderr", unit, reason, **columns)
        job.skip("nfe_likelihood", "evaluations", reason, **columns)
        write_rows(out_rows, job.rows)
        job.console.say(f"skipped, {reason}")
        return

    draw = indexed_rademacher if settings.probe == "rademacher" else indexed_normal
    field = model.field()
    values, calls, failed = [], 0.0, 0
    progress = job.console.progress(n, "samples")
    for indices in batches(n, settings.batch):
        x = torch.from_numpy(dataset.test[indices.start : indices.stop].copy())
        u = indexed_uniform(seed, "dequantise", indices, dataset.shape)
        x1 = dataset.to_model(x, u).to(job.device)
        probes = None
        if not exact:
            drawn = [draw(seed, f"probe/{k}", indices, dataset.shape) for k in range(settings.probes)]
            probes = torch.stack(drawn).to(job.device)
        before = field.calls
        result = log_likelihood(
            field,
            x1,
            objective.t_min,
            objective.t_max,
            base_std=objective.path.base_std,
            probes=probes,
            rtol=settings.rtol,
            atol=settings.atol,
        )
        calls += (field.calls - before) * len(indices)
        failed += int(result.failed.sum())
        log_p = result.log_p.cpu()
        if dataset.levels is None:
            values.append(-(log_p + dataset.log_density_change()))
        else:
            values.append(bits_per_dimension(log_p, dataset.dimensions, dataset.levels))
        progress.update(indices.stop)
    progress.close()

    nll = torch.cat(values)
    status = {"status": "diverged", "reason": f"dopri5 failed on {failed} of {n} test samples"} if failed else {}
    columns["nfe"] = calls / n
    job.add("nll", None if failed else nll.mean().item(), unit, **columns, **status)
    job.add("nll_stderr", None if failed else nll.std().item() / math.sqrt(n), unit, **columns, **status)
    job.add("nfe_likelihood", None if failed else calls / n, "evaluations", **columns, **status)
    write_rows(out_rows, job.rows)
    job.console.say(f"NLL {nll.mean().item():.4f} {unit} over {n} test samples ({estimator}) -> {out_rows}")
