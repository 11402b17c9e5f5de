"""Stage ``learning_curve``: NFE and sample quality during training, at each snapshot of the averaged weights (Fig. 5 and 10)."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fmbench.config.evaluation_settings import LearningCurveSettings
from fmbench.data.prepared import DataSet, read
from fmbench.stages.evaluators.base import Evaluator, add_primary, skip_primary
from fmbench.stages.evaluators.loading import evaluator_key, load_evaluator
from fmbench.stages.shared.adaptive_solve import states_at
from fmbench.stages.shared.cached_results import CachedResults
from fmbench.stages.shared.job import Job
from fmbench.stages.shared.models import Model, cache_key, guidance_of, load_snapshots, model_of
from fmbench.store.documents import read_document
from fmbench.store.records import write_rows
from fmbench.store.shapes import ModelConfig


def run(job: Job, data: Path, model_folder: Path, features_folder: Path, out: Path, cache_folder: Path) -> None:
    """Write ``rows.parquet`` into ``out``: NFE, the evaluator's primary metric and its error at each snapshot (``step``).

    The samples start from the noise of the stage ``sample``. An oracle has no training, and so no rows. A training that diverged
    has the rows of its snapshots, and skipped rows at the iteration where it stopped. A snapshot is sampled once: the cache knows
    its weights, code, noise, features and settings.
    """
    dataset = read(data)
    settings = LearningCurveSettings.model_validate(job.spec["settings"])
    final = model_of(job, model_folder, dataset)
    evaluator = load_evaluator(features_folder, dataset, job.device, job.console)
    numbers = settings.model_dump(include={"n", "batch", "rtol", "atol", "max_nfe"})
    results = CachedResults(cache_folder, evaluator_key(features_folder) | numbers, job.console.say)
    done = 0
    for step, model in load_snapshots(model_folder, dataset, job.device, guidance_of(job)):
        found = results.value(cache_key(model, job), partial(_measure, job, model, dataset, settings, evaluator))
        _add_rows(job, _columns(settings, final, step), evaluator, settings.max_nfe, found)
        done += 1
    if final.reason:
        step = read_document(model_folder / "config.json", ModelConfig)["step"]
        _skip(job, _columns(settings, final, step), evaluator, final.reason)
    write_rows(out / "rows.parquet", job.rows)
    kept = f"{done} snapshots, {done - results.computed} from the cache" if done else "0 snapshots"
    job.console.say(f"{kept}{', training diverged' if final.reason else ''} -> {out / 'rows.parquet'}")


def _measure(job: Job, model: Model, dataset: DataSet, settings: LearningCurveSettings, evaluator: Evaluator) -> dict[str, Any]:
    """The numbers of one snapshot. ``distance``, and ``of``, its number of samples, are missing unless all samples are finite."""
    (samples,), nfe, failed = states_at([1.0], model, job, settings.n, settings)
    found: dict[str, Any] = {"nfe": float(nfe.mean()), "spread": float(nfe.std(ddof=1)), "lost": int(failed.sum())}
    if np.isfinite(samples).all():
        measured, error = evaluator.measure_primary(samples)
        found |= {"distance": measured.value, "distance_stderr": error, "of": measured.n}
    return found


def _columns(settings: LearningCurveSettings, model: Model, step: int) -> dict[str, Any]:
    batch = min(settings.batch, settings.n)
    return {"n": settings.n, "batch": batch, **model.sampler.columns(settings.rtol, settings.atol), "step": step}


def _add_rows(job: Job, columns: dict[str, Any], evaluator: Evaluator, max_nfe: int, found: dict[str, Any]) -> None:
    primary = evaluator.primary_metric()
    n, step, lost, nfe = columns["n"], columns["step"], found["lost"], found["nfe"]
    reason = ""
    if lost:
        reason = f"{columns['solver']} failed on {lost} of {n} samples (step size vanished or {max_nfe} NFE spent)"
    for name, value in (("nfe", nfe), ("nfe_std_over_samples", found["spread"])):
        job.add(name, None if lost else value, "evaluations", nfe=nfe, reason=reason, **columns)
    if "distance" in found:
        columns = columns | {"n": found["of"], "nfe": nfe}
        add_primary(job, primary, found["distance"], found["distance_stderr"], **columns)
        job.console.say(f"iteration {step}: {nfe:.1f} NFE, {primary.metric} {found['distance']:.4g} (n {found['of']})")
    else:
        skip_primary(job, primary, f"{lost} of {n} samples are not finite", **columns)
        job.console.say(f"iteration {step}: {lost} of {n} solves failed")


def _skip(job: Job, columns: dict[str, Any], evaluator: Evaluator, reason: str) -> None:
    """Add skipped rows at the iteration where a training stopped."""
    for name in ("nfe", "nfe_std_over_samples"):
        job.skip(name, "evaluations", reason, **columns)
    skip_primary(job, evaluator.primary_metric(), reason, **columns)
