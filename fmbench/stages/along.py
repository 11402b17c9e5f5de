"""Stage ``along``: NFE and quality along training, at each snapshot of the averaged weights (Fig. 5 and 10)."""

from pathlib import Path

import numpy as np

from fmbench.config import AlongSettings
from fmbench.data.prepared import read
from fmbench.files import read_json
from fmbench.records import write_rows
from fmbench.stages.common import Job
from fmbench.stages.judge import load_judge
from fmbench.stages.models import load_model, load_snapshots
from fmbench.stages.stops import adaptive


def run(job: Job, data: Path, model_folder: Path, features_folder: Path, out: Path) -> None:
    """Write ``rows.parquet`` into ``out``: at each snapshot, with its iteration in ``step``, NFE and the judge's main distance.

    The samples start from the noise of the stage ``sample``. An oracle, which has no training, has no rows; a training that
    diverged has those of its snapshots, and rows with a status at the iteration where it stopped.
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
    done = 0
    for step, model in load_snapshots(model_folder, dataset, job.device):
        solved = adaptive(model, dataset, job, settings.n, settings.batch, **solve)  # type: ignore[arg-type]
        mean, spread = float(solved.nfe.mean()), float(solved.nfe.std(ddof=1))
        lost = int(solved.failed.sum())
        status = {}
        if lost:
            reason = f"dopri5 failed on {lost} of {settings.n} samples (step size vanished or {settings.max_nfe} NFE spent)"
            status = {"status": "diverged", "reason": reason}
        for metric, value in (("nfe", mean), ("nfe_std_over_samples", spread)):
            job.add(metric, None if lost else value, "evaluations", nfe=mean, step=step, **columns, **status)
        if np.isfinite(solved.samples).all():
            (found,) = judge.measure(solved.samples, only=(judge.primary,))
            job.add(main.metric, found.value, main.unit, nfe=mean, step=step, **(columns | judged | {"n": found.n}))
            job.console.say(f"iteration {step}: {mean:.1f} NFE, {found.metric} {found.value:.4g} (n {found.n})")
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
    job.console.say(f"{done} snapshots{', training diverged' if final.reason else ''} -> {out / 'rows.parquet'}")
