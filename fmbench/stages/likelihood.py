"""Stage ``likelihood``: NLL of the test split."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmbench.config.evaluation_settings import LikelihoodSettings
from fmbench.data.prepared import read
from fmbench.flow.fields import CountingField
from fmbench.flow.likelihood import GAVE_UP, bits_per_dimension, log_likelihood
from fmbench.flow.oracle import FiniteOracle
from fmbench.stages.batching import batches
from fmbench.stages.job import Job
from fmbench.stages.models import Model, load_model
from fmbench.store.records import write_rows
from fmbench.system.rng import generator, indexed_normal, indexed_rademacher, indexed_uniform


def run(job: Job, data: Path, model_folder: Path, out: Path) -> None:
    """Write ``rows.parquet`` into ``out``: NLL, its standard error over test samples, and the joint solve's NFE.

    An oracle's test NLL is the closed form: a test point may be so far from the points it knows that no solver follows the field
    there. On draws from its own distribution both are measured, ``nll_own`` by the solve and ``nll_own_closed_form``.

    The divergence is exact up to a set dimension and Hutchinson's above; which one is in the ``solver`` column. Images are
    dequantised with uniforms of their own; probes and uniforms depend on a test sample's index, not on its batch.
    """
    dataset = read(data)
    settings = LikelihoodSettings.model_validate(job.spec["settings"])
    model = load_model(model_folder, dataset, job.device, job.spec["model"])
    seed, objective = job.spec["seed"], model.objective
    n = len(dataset.test) if settings.n is None else min(settings.n, len(dataset.test))
    exact = dataset.dimensions <= settings.exact_up_to
    unit, draws = ("bits/dim", 1) if dataset.is_images else ("nats", None)
    estimator = "exact divergence" if exact else f"hutchinson {settings.probe} x{settings.probes}"
    columns = {
        "n": n,
        "batch": min(settings.batch, n),
        "rtol": settings.rtol,
        "atol": settings.atol,
        "solver": f"dopri5_shared, {estimator}",
        "draws": draws,
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

    def in_units(log_p: Tensor) -> Tensor:
        if dataset.levels is None:
            return -(log_p + dataset.log_density_change())
        return bits_per_dimension(log_p, dataset.dimensions, dataset.levels)

    def test_points(indices: range) -> Tensor:
        x = torch.from_numpy(dataset.test[indices.start : indices.stop].copy())
        return dataset.to_model(x, indexed_uniform(seed, "dequantise", indices, dataset.shape)).to(job.device)

    if model.oracle is not None:
        _of_an_oracle(job, model, model.oracle, n, settings, test_points, in_units, unit, draws)
        write_rows(out_rows, job.rows)
        job.console.say(f"NLL {job.rows[0].value:.4f} {unit} over {n} test samples (closed form) -> {out_rows}")
        return

    draw = indexed_rademacher if settings.probe == "rademacher" else indexed_normal
    field = model.field()
    values, variances, calls, failed = [], [], 0.0, 0
    progress = job.console.progress(n, "samples")
    for indices in batches(n, settings.batch):
        probes = None
        if not exact:
            drawn = [draw(seed, f"probe/{k}", indices, dataset.shape) for k in range(settings.probes)]
            probes = torch.stack(drawn).to(job.device)
        before = field.calls
        result = log_likelihood(
            field,
            test_points(indices),
            objective.t_min,
            objective.t_max,
            base_std=objective.path.base_std,
            probes=probes,
            mode=settings.mode,
            rtol=settings.rtol,
            atol=settings.atol,
        )
        calls += (field.calls - before) * len(indices)
        failed += int(result.failed.sum())
        values.append(in_units(result.log_p.cpu()))
        variances.append(result.probe_variance.cpu())
        progress.update(indices.stop)
    progress.close()

    nll = torch.cat(values)
    status = {}
    if failed:
        status = {"status": "diverged", "reason": f"dopri5 failed on {failed} of {n} test samples ({GAVE_UP})"}
    columns["nfe"] = calls / n
    job.add("nll", None if failed else nll.mean().item(), unit, **columns, **status)
    job.add("nll_stderr", None if failed else nll.std().item() / math.sqrt(n), unit, **columns, **status)
    job.add("nfe_likelihood", None if failed else calls / n, "evaluations", **columns, **status)
    if settings.probes > 1 and not exact:
        # Of one sample's number, by the probes alone: part of what nll_stderr shows, and not of the model.
        scale = 1.0 if dataset.levels is None else dataset.dimensions * math.log(2)
        std = torch.cat(variances).mean().sqrt().item() / scale
        job.add("nll_probe_std", None if failed else std, unit, **columns, **status)
    write_rows(out_rows, job.rows)
    job.console.say(f"NLL {nll.mean().item():.4f} {unit} over {n} test samples ({estimator}) -> {out_rows}")


def _of_an_oracle(
    job: Job,
    model: Model,
    oracle: FiniteOracle,
    n: int,
    settings: LikelihoodSettings,
    test_points: Callable[[range], Tensor],
    in_units: Callable[[Tensor], Tensor],
    unit: str,
    draws: int | None,
) -> None:
    path, t_min, t_max = model.objective.path, model.objective.t_min, model.objective.t_max
    end = torch.tensor(t_max, dtype=torch.float64)
    test = torch.cat([in_units(oracle.log_density(path, end, test_points(i)).cpu()) for i in batches(n, settings.batch)])
    closed_form = {"n": n, "solver": "closed form", "draws": draws}
    job.add("nll", test.mean().item(), unit, **closed_form)
    job.add("nll_stderr", test.std().item() / math.sqrt(n), unit, **closed_form)

    x = oracle.marginal_sample(path, t_max, n, generator(job.spec["seed"], "oracle/own")).float().to(job.device)
    # The field and its divergence come together; evaluations of the pair are what is counted.
    pair = CountingField(lambda t, x: oracle.velocity_and_divergence(path, t, x), t_min, t_max)
    solved, closed, calls, failed = [], [], 0.0, 0
    for indices in batches(n, settings.batch):
        piece, before = x[indices.start : indices.stop], pair.calls
        result = log_likelihood(
            model.velocity,
            piece,
            t_min,
            t_max,
            base_std=path.base_std,
            divergence=pair,
            rtol=settings.rtol,
            atol=settings.atol,
        )
        solved.append(in_units(result.log_p.cpu()))
        closed.append(in_units(oracle.log_density(path, end, piece).cpu()))
        calls += (pair.calls - before) * len(indices) / n
        failed += int(result.failed.sum())
    status = {}
    if failed:
        status = {"status": "diverged", "reason": f"dopri5 failed on {failed} of {n} of the oracle's own draws ({GAVE_UP})"}
    columns: dict[str, Any] = {
        "n": n,
        "batch": min(settings.batch, n),
        "rtol": settings.rtol,
        "atol": settings.atol,
        "solver": "dopri5_shared, exact divergence",
        "probes": 0,
        "nfe": calls,
    }
    job.add("nll_own", None if failed else torch.cat(solved).mean().item(), unit, **columns, **status)
    job.add("nfe_likelihood", None if failed else calls, "evaluations", **columns, **status)
    job.add("nll_own_closed_form", torch.cat(closed).mean().item(), unit, n=n, solver="closed form")
