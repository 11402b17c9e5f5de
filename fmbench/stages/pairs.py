"""Stage ``pairs``: noise and the sample that a trained model makes of it, for a second training on them (reflow).

Liu et al. 2022 (arXiv:2209.03003, section 2.2): the pairs (x0, phi(x0)) of a flow phi, in which a new flow has straighter paths.
The teacher's evaluations are part of what the student costs, and are rows of the student.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fmbench.config.evaluation_settings import SampleSettings
from fmbench.config.hashing import settings_hash
from fmbench.data.prepared import read
from fmbench.stages.sample import Cost, solve
from fmbench.stages.shared.batching import base_noise
from fmbench.stages.shared.job import Job
from fmbench.stages.shared.models import Model, load_model
from fmbench.stages.shared.pair_files import FILE, NO_PAIRS
from fmbench.store.records import write_rows
from fmbench.store.weights import write_tensors

METRICS = {"pairs": "samples", "pair_evaluations": "evaluations", "pair_seconds": "s"}
"""The rows: the pairs that there are, the evaluations of the teacher's field for all of them, and the time."""


def run(job: Job, data: Path, model_folder: Path, out: Path) -> None:
    """Write ``pairs.safetensors`` (``x0`` noise N(0, I) and ``x1`` samples in model space, (n, *) each) and ``rows.parquet``.

    Pairs whose solve failed are left out. The noise is that of no evaluation. The file says in its header why there are none, if
    the teacher has no samples.
    """
    dataset, settings = read(data), job.spec["settings"]
    teacher = load_model(model_folder, dataset, job.device, job.spec["model"])
    n, seed = settings["pairs"], job.spec["seed"] + 2**31
    reason = teacher.unsolvable
    x0, x1 = torch.empty(0, *dataset.shape), torch.empty(0, *dataset.shape)
    if not reason:
        ends = np.empty((n, *dataset.shape), np.float32)
        # Another seed than that of evaluations, which a student must not have seen.
        cost = solve(replace(job, spec=job.spec | {"seed": seed}), _solver(settings), teacher, ends)
        good = ~cost.failed & torch.from_numpy(np.isfinite(ends.reshape(n, -1)).all(1))
        noise = base_noise(seed, range(n), dataset.shape, 1.0, torch.device("cpu"))
        x0, x1 = noise[good].contiguous(), torch.from_numpy(ends)[good]
        reason = "" if len(x0) else "no solve of the teacher ended"
    if reason:
        reason = f"{NO_PAIRS} {job.spec['teacher']} has no samples: {reason}"
        for metric, unit in METRICS.items():
            job.skip(metric, unit, reason, n=n)
        job.console.say(f"no pairs: {reason} -> {out}")
    else:
        _add_rows(job, settings, teacher, cost, len(x0))
        job.console.say(f"{len(x0)} pairs, {cost.evaluations / n:.1f} NFE each -> {out}")
    write_tensors(out / FILE, {"x0": x0, "x1": x1}, {"spec": settings_hash(job.spec), "reason": reason})
    write_rows(out / "rows.parquet", job.rows)


def _solver(settings: dict[str, Any]) -> SampleSettings:
    of_solver = {name: settings[name] for name in ("batch", "rtol", "atol")}
    return SampleSettings(n=settings["pairs"], **of_solver)


def _add_rows(job: Job, settings: dict[str, Any], teacher: Model, cost: Cost, pairs: int) -> None:
    columns = {"n": settings["pairs"], "batch": min(settings["batch"], settings["pairs"])}
    columns |= teacher.sampler.columns(settings["rtol"], settings["atol"])
    values = (pairs, cost.evaluations, cost.seconds)
    for (metric, unit), value in zip(METRICS.items(), values, strict=True):
        job.add(metric, value, unit, nfe=cost.evaluations / settings["pairs"], **columns)
