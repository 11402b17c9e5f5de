"""Stage ``learning_curve``: NFE and sample quality during training, at each snapshot of the averaged weights (Fig. 5 and 10)."""

from pathlib import Path

import numpy as np

from fmbench.config.evaluation_settings import LearningCurveSettings
from fmbench.data.prepared import read
from fmbench.stages.adaptive_solve import adaptive
from fmbench.stages.common import Job
from fmbench.stages.evaluator import evaluator_key, load_evaluator
from fmbench.stages.models import cache_key, load_model, load_snapshots
from fmbench.store.cache import Cache
from fmbench.store.files import read_json
from fmbench.store.records import write_rows


def run(job: Job, data: Path, model_folder: Path, features_folder: Path, out: Path, cache_folder: Path) -> None:
    """Write ``rows.parquet`` into ``out``: at each snapshot, with its iteration in ``step``, NFE and the
    evaluator's main distance.

    The samples start from the noise of the stage ``sample``. An oracle, which has no training, has no rows; a training that
    diverged has those of its snapshots, and rows with a status at the iteration where it stopped. A snapshot whose numbers are
    in the cache is not sampled again.
    """
    dataset = read(data)
    settings = LearningCurveSettings.model_validate(job.spec["settings"])
    final = load_model(model_folder, dataset, job.device, job.spec["model"])
    evaluator = load_evaluator(features_folder, dataset, job.device, job.console)
    (main,) = evaluator.metrics(only=(evaluator.primary,))
    extracted = {"features": main.features, "reference": main.reference}
    columns = {"n": settings.n, "batch": min(settings.batch, settings.n), "solver": "dopri5"}
    columns |= {"rtol": settings.rtol, "atol": settings.atol}
    solve = {"rtol": settings.rtol, "atol": settings.atol, "max_nfe": settings.max_nfe}
    cache, done, computed = Cache(cache_folder), 0, 0
    for step, model in load_snapshots(model_folder, dataset, job.device):
        key = cache_key(model, job) | evaluator_key(features_folder) | solve | {"n": settings.n, "batch": settings.batch}
        found = cache.get(key)
        if found is None:
            solved = adaptive(model, dataset, job, settings.n, settings.batch, **solve)  # type: ignore[arg-type]
            found = {"nfe": float(solved.nfe.mean()), "spread": float(solved.nfe.std(ddof=1)), "lost": int(solved.failed.sum())}
            if np.isfinite(solved.samples).all():
                (measured,) = evaluator.measure(solved.samples, only=(evaluator.primary,))
                found |= {"distance": measured.value, "of": measured.n}
            cache.put(key, found)
            computed += 1
        lost, status = found["lost"], {}
        if lost:
            reason = f"dopri5 failed on {lost} of {settings.n} samples (step size vanished or {settings.max_nfe} NFE spent)"
            status = {"status": "diverged", "reason": reason}
        for metric, value in (("nfe", found["nfe"]), ("nfe_std_over_samples", found["spread"])):
            job.add(metric, None if lost else value, "evaluations", nfe=found["nfe"], step=step, **columns, **status)
        if "distance" in found:
            value, n = found["distance"], found["of"]
            job.add(main.metric, value, main.unit, nfe=found["nfe"], step=step, **(columns | extracted | {"n": n}))
            job.console.say(f"iteration {step}: {found['nfe']:.1f} NFE, {main.metric} {value:.4g} (n {n})")
        else:
            reason = f"{lost} of {settings.n} samples are not finite"
            job.skip(main.metric, main.unit, reason, step=step, **columns, **extracted)
            job.console.say(f"iteration {step}: {lost} of {settings.n} solves failed")
        done += 1
    if final.reason:
        reason, step = f"training diverged: {final.reason}", read_json(model_folder / "config.json")["step"]
        for metric in ("nfe", "nfe_std_over_samples"):
            job.skip(metric, "evaluations", reason, step=step, **columns)
        job.skip(main.metric, main.unit, reason, step=step, **columns, **extracted)
    write_rows(out / "rows.parquet", job.rows)
    kept = f"{done} snapshots, {done - computed} from the cache" if done else "0 snapshots"
    job.console.say(f"{kept}{', training diverged' if final.reason else ''} -> {out / 'rows.parquet'}")
