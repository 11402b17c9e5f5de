"""Stage ``draws``: NLL of images over the number of dequantisation draws K, by two estimators (Table 4, eq. 47).

``nll_paper`` is the paper's: one Hutchinson probe inside each draw's log p, whose noise raises the average of exp(log p).
``nll_averaged`` averages several probes first, with ``nll_probe_bias``, what is left of that effect on it (negative: the
number is too good by that, or by more where ``nll_probe_variance``, that of a draw's log p in nats^2, is large), and
``nll_probe_std``, the spread they leave in one draw's number, beside it; ``nll_exact`` has no probe at all. The paper's has the
first probe of the solve that averages several, so that the two differ in nothing else: its steps are those of the joint solve.
Uniforms of the first draw are Table 1's.
"""

import math
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbench.config.evaluation_settings import DequantisationSettings
from fmbench.data.prepared import DataSet, read
from fmbench.errors import DataError
from fmbench.flow.likelihood import GAVE_UP, bits_per_dimension, dequantised, log_likelihood, probe_bias
from fmbench.stages.batching import batches
from fmbench.stages.job import Job
from fmbench.stages.models import Model, cache_key, load_model
from fmbench.store.cache import Cache
from fmbench.store.records import write_rows
from fmbench.system.rng import indexed_normal, indexed_rademacher, indexed_uniform

UNIT = "bits/dim"


def run(job: Job, data: Path, model_folder: Path, out: Path, cache_folder: Path) -> None:
    """Write ``rows.parquet`` into ``out``: the NLL at every K, over the first n test images.

    A draw that is in the cache, under the same weights, code, noise and settings, is not solved again.
    """
    dataset = read(data)
    if dataset.levels is None:  # a source of one's own shows only now what it gives
        write_rows(out / "rows.parquet", [])
        job.console.say("no rows: points are not dequantised")
        return
    settings = DequantisationSettings.model_validate(job.spec["settings"])
    model = load_model(model_folder, dataset, job.device, job.spec["model"])
    levels, dimensions = dataset.levels, dataset.dimensions
    n, most = min(settings.n, len(dataset.test)), max(settings.draws)
    if model.oracle is not None:
        raise DataError(f"{model_folder} is an oracle; its likelihood is in closed form, and the stage likelihood has it")
    exact = dimensions <= settings.exact_up_to
    # What is solved, with how many probes; the paper's estimator has the first of the averaged ones.
    solves = {"nll_exact": 0} if exact else {"nll_averaged": settings.probes}
    if exact:
        solves["nll_paper"] = 1
    metrics = dict(solves)
    if not exact:
        metrics["nll_paper"] = 1
    columns = {"n": n, "batch": min(settings.batch, n), "rtol": settings.rtol, "atol": settings.atol, "solver": "dopri5_shared"}
    if model.reason:
        for metric, probes in metrics.items():
            for k in settings.draws:
                job.skip(metric, UNIT, f"training diverged: {model.reason}", draws=k, probes=probes, **columns)
        write_rows(out / "rows.parquet", job.rows)
        job.console.say(f"skipped, training diverged: {model.reason}")
        return

    cache = Cache(cache_folder)
    common = cache_key(model, job) | {
        "settings": settings.model_dump(include={"probe", "mode", "batch", "rtol", "atol"}) | {"n": n},
    }
    found: dict[str, list[Tensor]] = {name: [] for name in solves}
    # Of each draw: evaluations, on the mean over images, and solves that failed.
    spent: dict[str, list[float]] = {name: [] for name in solves}
    failed: dict[str, list[int]] = {name: [] for name in solves}
    computed = 0
    progress = job.console.progress(most, "draws")
    for k in range(most):
        for name, count in solves.items():
            key = common | {"draw": k, "probes": count}
            counts, solved = cache.get(key), cache.get_array(key)
            if counts is None or solved is None:
                counts, solved = _solve(model, dataset, job, settings, n, k, count)
                cache.put_array(key, solved)
                cache.put(key, counts)
                computed += 1
            of_batches = zip(batches(n, settings.batch), counts["calls"], strict=True)
            spent[name].append(sum(calls * len(indices) for indices, calls in of_batches) / n)
            failed[name].append(counts["failed"])
            found[name].append(torch.from_numpy(solved))
        progress.update(k + 1)
    progress.close()

    lines = []
    for metric, count in metrics.items():
        source = metric if metric in solves else "nll_averaged"
        by_probe = torch.stack(found[source])  # (K, probes, n)
        log_p = by_probe[:, 0] if metric == "nll_paper" else by_probe.mean(1)
        for k in settings.draws:
            # A draw that failed later takes nothing from those before it.
            bad, row = sum(failed[source][:k]), columns | {"draws": k, "probes": count, "nfe": sum(spent[source][:k]) / k}
            if bad:
                row |= {"status": "diverged", "reason": f"dopri5 failed on {bad} of {n * k} solves ({GAVE_UP})"}
            nll = bits_per_dimension(dequantised(log_p[:k]), dimensions, levels)
            job.add(metric, None if bad else nll.mean().item(), UNIT, **row)
            job.add(f"{metric}_stderr", None if bad else nll.std().item() / math.sqrt(n), UNIT, **row)
            if metric == "nll_averaged":
                variance, bits = by_probe[:k].var(1) / count, dimensions * math.log(2)
                bias = probe_bias(log_p[:k], variance) / bits
                job.add("nll_probe_bias", None if bad else -bias.mean().item(), UNIT, **row)
                job.add("nll_probe_std", None if bad else variance.mean().sqrt().item() / bits, UNIT, **row)
                job.add("nll_probe_variance", None if bad else variance.mean().item(), "nats^2", **row)
            lines.append(f"{metric} at K = {k}: {nll.mean().item():.4f}")
    write_rows(out / "rows.parquet", job.rows)
    kept = most * len(solves) - computed
    job.console.say(
        f"{'; '.join(lines)} {UNIT} over {n} test images, {computed} solves and {kept} from the cache -> {out / 'rows.parquet'}"
    )


def _solve(
    model: Model, dataset: DataSet, job: Job, settings: DequantisationSettings, n: int, k: int, count: int
) -> tuple[dict[str, Any], NDArray]:
    """One draw of all images: evaluations of each batch and solves that failed; log p by each probe, (probes or 1, n)."""
    seed, objective = job.spec["seed"], model.objective
    draw = indexed_rademacher if settings.probe == "rademacher" else indexed_normal
    calls, failed, pieces = [], 0, []
    for indices in batches(n, settings.batch):
        x = torch.from_numpy(dataset.test[indices.start : indices.stop].copy())
        u = indexed_uniform(seed, f"dequantise/{k}" if k else "dequantise", indices, dataset.shape)
        drawn = [draw(seed, f"draws/{k}/probe/{m}", indices, dataset.shape) for m in range(count)]
        field = model.field()
        result = log_likelihood(
            field,
            dataset.to_model(x, u).to(job.device),
            objective.t_min,
            objective.t_max,
            base_std=objective.path.base_std,
            probes=torch.stack(drawn).to(job.device) if drawn else None,
            mode=settings.mode,
            rtol=settings.rtol,
            atol=settings.atol,
        )
        calls.append(field.calls)
        failed += int(result.failed.sum())
        pieces.append(result.by_probe.cpu())
    return {"calls": calls, "failed": failed}, torch.cat(pieces, 1).numpy()
