"""Stage ``dequantisation``: NLL of images against the number K of dequantisation draws, by two estimators (Table 4, eq. 47).

``nll_paper`` is the paper's estimator: one Hutchinson probe in the log p of each draw. The noise of the probe raises the average
of exp(log p).

``nll_averaged`` first averages several probes. Beside it are ``nll_probe_bias``, the effect of the noise that remains (negative:
the NLL is too low by this much, or by more where the variance is large); ``nll_probe_variance``, the variance of the log p of a
draw in nats^2; and ``nll_probe_std``, the spread that the probes leave in the number of one draw.

``nll_exact`` has no probes. It replaces ``nll_averaged`` in low dimensions.

``nll_paper`` uses the first probe of the solve that averages several. So the two differ in nothing else: the steps are those of
the joint solve. The uniforms of the first draw are those of Table 1.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbench.config.evaluation_settings import DequantisationSettings
from fmbench.data.prepared import DataSet, read
from fmbench.errors import DataError
from fmbench.flow.likelihood import GAVE_UP, bits_per_dimension, log_mean_p, probe_bias
from fmbench.stages.shared.batching import batches
from fmbench.stages.shared.cached_results import CachedResults
from fmbench.stages.shared.job import Job
from fmbench.stages.shared.likelihood_solve import SOLVER, dequantised_samples, draw_probes, given, solve
from fmbench.stages.shared.models import Model, cache_key, model_of
from fmbench.store.records import write_rows

UNIT = "bits/dim"


def run(job: Job, data: Path, model_folder: Path, out: Path, cache_folder: Path) -> None:
    """Write ``rows.parquet`` into ``out``: the NLL at every K, over the first n test images.

    A draw is solved once: the cache knows its weights, code, noise and settings.

    Raises:
        DataError: the model is an oracle.
    """
    dataset = read(data)
    if dataset.levels is None:  # of a plug-in source, fmbench knows only now that it gives points
        write_rows(out / "rows.parquet", [])
        job.console.say("no rows: points are not dequantised")
        return
    settings = DequantisationSettings.model_validate(job.spec["settings"])
    model = model_of(job, model_folder, dataset)
    if model.oracle is not None:
        raise DataError(
            f"{model_folder} is an oracle, whose likelihood is a closed form; the stage likelihood measures it, without draws"
        )
    exact = dataset.dimensions <= settings.exact_up_to
    # The metrics with their number of probes.
    metrics = ({"nll_exact": 0} if exact else {"nll_averaged": settings.probes}) | {"nll_paper": 1}
    n = min(settings.n, len(dataset.test))
    columns = {"n": n, "batch": min(settings.batch, n), "rtol": settings.rtol, "atol": settings.atol, "solver": SOLVER}
    columns |= {"reference": given(dataset)}
    if reason := model.unsolvable or model.no_density:
        for metric, probes in metrics.items():
            for k in settings.draws:
                job.skip(metric, UNIT, reason, draws=k, probes=probes, **columns)
        message = f"skipped, {reason}"
    else:
        # nll_paper has a solve of its own only beside the exact divergence; otherwise it takes a probe of nll_averaged.
        solves = metrics if exact else {"nll_averaged": settings.probes}
        found, computed = _solve_draws(job, model, dataset, settings, n, solves, cache_folder)
        lines = []
        for metric, probes in metrics.items():
            draws = found[metric if metric in solves else "nll_averaged"]
            lines += _add_rows(job, metric, draws, settings, dataset, columns | {"probes": probes})
        kept = max(settings.draws) * len(solves) - computed
        cached = f"{computed} solves and {kept} from the cache"
        message = f"{'; '.join(lines)} {UNIT} over {n} test images, {cached} -> {out / 'rows.parquet'}"
    write_rows(out / "rows.parquet", job.rows)
    job.console.say(message)


@dataclass(frozen=True)
class _Draws:
    """The solves of all draws with one number of probes."""

    log_p: list[Tensor] = field(default_factory=list)  # of each draw, (probes or 1, n)
    nfe: list[float] = field(default_factory=list)  # of each draw, the mean over images
    failed: list[int] = field(default_factory=list)  # the number of failed solves of each draw


def _solve_draws(
    job: Job,
    model: Model,
    dataset: DataSet,
    settings: DequantisationSettings,
    n: int,
    solves: dict[str, int],
    cache_folder: Path,
) -> tuple[dict[str, _Draws], int]:
    """All draws of each entry of ``solves`` (a metric and its number of probes), and how many were solved now."""
    numbers = settings.model_dump(include={"probe", "mode", "batch", "rtol", "atol"}) | {"n": n}
    results = CachedResults(cache_folder, cache_key(model, job) | {"settings": numbers}, job.console.say)
    found = {metric: _Draws() for metric in solves}
    most = max(settings.draws)
    progress = job.console.progress(most, "draws")
    for k in range(most):
        for metric, probes in solves.items():

            def compute(k: int = k, probes: int = probes) -> tuple[dict[str, Any], NDArray]:
                return _solve(job, model, dataset, settings, n, k, probes)

            counts, log_p = results.value_and_array({"draw": k, "probes": probes}, compute)
            of_batches = zip(batches(n, settings.batch), counts["calls"], strict=True)
            found[metric].nfe.append(sum(calls * len(indices) for indices, calls in of_batches) / n)
            found[metric].failed.append(counts["failed"])
            found[metric].log_p.append(torch.from_numpy(log_p))
        progress.update(k + 1)
    progress.close()
    return found, results.computed


def _solve(
    job: Job, model: Model, dataset: DataSet, settings: DequantisationSettings, n: int, k: int, probes: int
) -> tuple[dict[str, Any], NDArray]:
    """Draw k of all images: the evaluations of each batch, the number of failed solves, and log p, (probes or 1, n)."""
    calls, failed, pieces = [], 0, []
    for indices in batches(n, settings.batch):
        x = dequantised_samples(job, dataset, indices, f"dequantise/{k}" if k else "dequantise")
        streams = [f"draws/{k}/probe/{m}" for m in range(probes)]
        counting = model.field()
        result = solve(model, counting, indices, x, draw_probes(job, dataset, settings.probe, indices, streams), settings)
        calls.append(counting.calls)
        failed += int(result.failed.sum())
        pieces.append(result.by_probe.cpu())
    return {"calls": calls, "failed": failed}, torch.cat(pieces, 1).numpy()


def _log_p(metric: str, by_probe: Tensor) -> Tensor:
    """The log p of each draw, (K, n), from that of each probe, (K, probes, n).

    The paper's estimator takes the first probe. ``nll_averaged`` takes the mean over all probes.
    """
    return by_probe[:, 0] if metric == "nll_paper" else by_probe.mean(1)


def _add_rows(
    job: Job, metric: str, draws: _Draws, settings: DequantisationSettings, dataset: DataSet, columns: dict[str, Any]
) -> list[str]:
    """Add the rows of a metric at every K, and return a summary of each."""
    assert dataset.levels is not None
    lines = []
    by_probe = torch.stack(draws.log_p)  # (K, probes, n)
    log_p = _log_p(metric, by_probe)
    n, bits = by_probe.shape[2], dataset.dimensions * math.log(2)
    for k in settings.draws:
        # The first K draws alone: a later draw that failed changes nothing.
        failed = sum(draws.failed[:k])
        reason = f"dopri5 failed on {failed} of {n * k} solves ({GAVE_UP})" if failed else ""
        nll = bits_per_dimension(log_mean_p(log_p[:k]), dataset.dimensions, dataset.levels)
        values = {metric: (nll.mean(), UNIT), f"{metric}_stderr": (nll.std() / math.sqrt(n), UNIT)}
        if metric == "nll_averaged":
            variance = by_probe[:k].var(1) / columns["probes"]
            values["nll_probe_bias"] = -(probe_bias(log_p[:k], variance) / bits).mean(), UNIT
            values["nll_probe_std"] = variance.mean().sqrt() / bits, UNIT
            values["nll_probe_variance"] = variance.mean(), "nats^2"
        row = columns | {"draws": k, "nfe": sum(draws.nfe[:k]) / k, "reason": reason}
        for name, (value, unit) in values.items():
            job.add(name, None if failed else value.item(), unit, **row)
        lines.append(f"{metric} at K = {k}: {nll.mean().item():.4f}")
    return lines
