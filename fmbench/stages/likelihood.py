"""Stage ``likelihood``: NLL of the test split."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmbench.config import LikelihoodSettings
from fmbench.data.prepared import read
from fmbench.fields import CountingField
from fmbench.likelihood import LogLikelihood, bits_per_dimension, log_likelihood
from fmbench.records import write_rows
from fmbench.rng import generator, indexed_normal, indexed_rademacher, indexed_uniform
from fmbench.stages.common import Job, batches
from fmbench.stages.models import Model, load_model


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
    exact = dataset.dimensions <= settings.exact_up_to or model.oracle is not None
    unit = "bits/dim" if dataset.is_images else "nats"
    estimator = "exact divergence" if exact else f"hutchinson {settings.probe} x{settings.probes}"
    columns = {
        "n": n,
        "batch": min(settings.batch, n),
        "rtol": settings.rtol,
        "atol": settings.atol,
        "solver": f"dopri5_shared, {estimator}",
        "draws": 1 if dataset.is_images else None,
        "probes": 0 if exact else settings.probes,
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
    values, variances, closed, calls, failed = [], [], [], 0.0, 0

    def in_units(log_p: Tensor) -> Tensor:
        if dataset.levels is None:
            return -(log_p + dataset.log_density_change())
        return bits_per_dimension(log_p, dataset.dimensions, dataset.levels)

    progress = job.console.progress(n, "samples")
    for indices in batches(n, settings.batch):
        x = torch.from_numpy(dataset.test[indices.start : indices.stop].copy())
        u = indexed_uniform(seed, "dequantise", indices, dataset.shape)
        x1 = dataset.to_model(x, u).to(job.device)
        probes = None
        if not exact:
            drawn = [draw(seed, f"probe/{k}", indices, dataset.shape) for k in range(settings.probes)]
            probes = torch.stack(drawn).to(job.device)
        result, spent = solve(model, x1, probes, settings.rtol, settings.atol, settings.mode)
        calls += spent * len(indices)
        failed += int(result.failed.sum())
        values.append(in_units(result.log_p.cpu()))
        variances.append(result.probe_variance.cpu())
        if model.oracle is not None:
            end = torch.tensor(objective.t_max, dtype=torch.float64)
            closed.append(in_units(model.oracle.log_density(objective.path, end, x1).cpu()))
        progress.update(indices.stop)
    progress.close()

    nll = torch.cat(values)
    status = {"status": "diverged", "reason": f"dopri5 failed on {failed} of {n} test samples"} if failed else {}
    columns["nfe"] = calls / n
    job.add("nll", None if failed else nll.mean().item(), unit, **columns, **status)
    job.add("nll_stderr", None if failed else nll.std().item() / math.sqrt(n), unit, **columns, **status)
    job.add("nfe_likelihood", None if failed else calls / n, "evaluations", **columns, **status)
    if settings.probes > 1 and not exact:
        # Of one sample's number, by the probes alone: part of what nll_stderr shows, and not of the model.
        scale = 1.0 if dataset.levels is None else dataset.dimensions * math.log(2)
        std = torch.cat(variances).mean().sqrt().item() / scale
        job.add("nll_probe_std", None if failed else std, unit, **columns, **status)
    if model.oracle is not None:
        # What the solve should have found: but for its own error, and for the base not quite being the path's start.
        job.add("nll_closed_form", torch.cat(closed).mean().item(), unit, n=n, solver="closed form")
        _own_data(job, model, in_units, unit, columns | {"n": n})
    write_rows(out_rows, job.rows)
    job.console.say(f"NLL {nll.mean().item():.4f} {unit} over {n} test samples ({estimator}) -> {out_rows}")


def _own_data(job: Job, model: Model, in_units: Callable[[Tensor], Tensor], unit: str, columns: dict[str, Any]) -> None:
    """An oracle's NLL on draws from its own distribution, by the solve and in closed form.

    Test points may be so far from a finite training set that no solver follows the field there; on its own draws the two
    differ by what the solver and the path's ends cost.
    """
    assert model.oracle is not None
    settings = LikelihoodSettings.model_validate(job.spec["settings"])
    end = torch.tensor(model.objective.t_max, dtype=torch.float64)
    draws = model.oracle.marginal_sample(
        model.objective.path, float(end), columns["n"], generator(job.spec["seed"], "oracle/own")
    )
    x = draws.float().to(job.device)
    solved, closed, failed, calls = [], [], 0, 0.0
    for indices in batches(len(x), settings.batch):
        piece = x[indices.start : indices.stop]
        result, spent = solve(model, piece, None, settings.rtol, settings.atol)
        solved.append(in_units(result.log_p.cpu()))
        closed.append(in_units(model.oracle.log_density(model.objective.path, end, piece).cpu()))
        failed += int(result.failed.sum())
        calls += spent * len(indices) / len(x)
    status = {"status": "diverged", "reason": f"dopri5 failed on {failed} of {len(x)} of its own samples"} if failed else {}
    value = torch.cat(solved).mean().item()
    job.add("nll_own", None if failed else value, unit, **columns | {"nfe": calls}, **status)
    job.add("nll_own_closed_form", torch.cat(closed).mean().item(), unit, n=len(x), solver="closed form")


def solve(
    model: Model, x1: Tensor, probes: Tensor | None, rtol: float, atol: float, mode: str = "reverse"
) -> tuple[LogLikelihood, int]:
    """log p of data under the sampling field, and the evaluations it took; an oracle's divergence is always exact."""
    o = model.objective
    field = model.field()
    closed_form = None
    if model.oracle is not None:
        oracle = model.oracle
        closed_form = CountingField(lambda t, x: oracle.velocity_and_divergence(o.path, t, x), o.t_min, o.t_max)
    result = log_likelihood(
        field,
        x1,
        o.t_min,
        o.t_max,
        base_std=o.path.base_std,
        probes=probes,
        divergence=closed_form,
        mode=mode,
        rtol=rtol,
        atol=atol,
    )
    return result, (closed_form or field).calls
