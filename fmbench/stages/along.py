"""Stage ``along``: NFE and quality along training, at each snapshot of the averaged weights (Fig. 5 and 10)."""

from pathlib import Path

import numpy as np

from fmbench.cache import Cache
from fmbench.config import AlongSettings
from fmbench.data.prepared import read
from fmbench.files import read_json
from fmbench.records import write_rows
from fmbench.stages.common import Job
from fmbench.stages.judge import judge_key, load_judge
from fmbench.stages.models import cache_key, load_model, load_snapshots
from fmbench.stages.stops import adaptive


def run(job: Job, data: Path, model_folder: Path, features_folder: Path, out: Path, cache_folder: Path) -> None:
    """Write ``rows.parquet`` into ``out``: at each snapshot, with its iteration in ``step``, NFE and the judge's main distance.

    The samples start from the noise of the stage ``sample``. An oracle, which has no training, has no rows; a training that
    diverged has those of its snapshots, and rows with a status at the iteration where it stopped. A snapshot whose numbers are
    in the cache is not sampled again.
    """
    dataset = read(data)
    settings = AlongSettings.model_validate(job.spec["settings"])
    final = load_model(model_folder, dataset, job.device, job.spec["model"])
    judge = load_judge(features_folder, dataset, job.device, job.console)
    (main,) = judge.metrics(only=(judge.primary,))
    judged = {"features": main.features, "reference": main.reference}
    columns = {"n": settings.n, "batch": min(settings.batch, settings.n), "solver": "dopri5"}
    columns |= {"rtol": settings.rtol, "atol": settings.atol}
    solve = {"rtol": settings.rtol, "atol": settings.atol, "max_nfe": settings.max_nfe}
    cache, done, computed = Cache(cache_folder), 0, 0
    for step, model in load_snapshots(model_folder, dataset, job.device):
        key = cache_key(model, job) | judge_key(features_folder) | solve | {"n": settings.n, "batch": settings.batch}
        found = cache.get(key)
        if found is None:
            solved = adaptive(model, dataset, job, settings.n, settings.batch, **solve)  # type: ignore[arg-type]
            found = {"nfe": float(solved.nfe.mean()), "spread": float(solved.nfe.std(ddof=1)), "lost": int(solved.failed.sum())}
            if np.isfinite(solved.samples).all():
                (measured,) = judge.measure(solved.samples, only=(judge.primary,))
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
            job.add(main.metric, value, main.unit, nfe=found["nfe"], step=step, **(columns | judged | {"n": n}))
            job.console.say(f"iteration {step}: {found['nfe']:.1f} NFE, {main.metric} {value:.4g} (n {n})")
        else:
            reason = f"{lost} of {settings.n} samples are not finite"
            job.skip(main.metric, main.unit, reason, step=step, **columns, **judged)
            job.console.say(f"iteration {step}: {lost} of {settings.n} solves failed")
        done += 1
    if final.reason:
        reason, step = f"training diverged: {final.reason}", read_json(model_folder / "config.json")["step"]
        for metric in ("nfe", "nfe_std_over_samples"):
            job.skip(metric, "evaluations", reason, step=step, **columns)
        job.skip(main.metric, main.unit, reason, step=step, **columns, **judged)
    write_rows(out / "rows.parquet", job.rows)
    kept = f"{done} snapshots, {done - computed} from the cache" if done else "0 snapshots"
    job.console.say(f"{kept}{', training diverged' if final.reason else ''} -> {out / 'rows.parquet'}")
