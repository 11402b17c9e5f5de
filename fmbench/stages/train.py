"""Stage ``train``: one method on one data set with one seed; for an oracle, its bandwidth and nothing else."""

import time
from pathlib import Path
from typing import Any

import pyarrow as pa
from torch import nn

from fmbench.checkpoint import CheckpointFolder, save_weights
from fmbench.config import TrainingSettings, method_from_values, settings_hash
from fmbench.data.prepared import DataSet, read
from fmbench.files import write_json
from fmbench.objectives import Objective, build
from fmbench.provenance import versions
from fmbench.records import table, write_rows, write_table
from fmbench.stages import oracles
from fmbench.stages.common import Job, check_data, new_network
from fmbench.tracking import Tracker
from fmbench.training.loop import train

CURVE = pa.schema([("step", pa.int64()), ("loss", pa.float64()), ("learning_rate", pa.float64())])


def run(job: Job, data: Path, out: Path, checkpoints: Path, tracker: Tracker) -> None:
    """Train and write ``model.safetensors``, ``config.json``, ``curve.parquet`` and ``rows.parquet`` into ``out``.

    A training whose loss stops being finite writes them too, from its last good checkpoint, with status and reason.

    Args:
        checkpoints: folder of all checkpoints; this training's are in one named by its spec's and its code's hash.
    """
    spec = job.spec
    dataset = read(data)
    objective = build(method_from_values(spec["method"]))
    check_data(spec, dataset)
    if spec["method"]["oracle"] is not None:
        _set_up_oracle(job, dataset, objective, out)
        return
    network = new_network(spec, dataset)
    settings = TrainingSettings.model_validate(spec["training"])
    # Other data, other code or another torch must not go on from this checkpoint.
    content = [entry["sha256"] for entry in dataset.manifest["splits"].values()]
    key = f"{settings_hash(spec)}-{settings_hash([job.code_hash, content, versions()])}"
    parameters = sum(p.numel() for p in network.parameters())

    with CheckpointFolder(checkpoints / key) as folder:
        tracker.open(parameters=parameters)
        progress = job.console.progress(settings.iterations, "it")

        def on_log(step: int, loss: float, rate: float) -> None:
            progress.update(step, loss=loss)
            tracker.log(step, {"loss": loss, "learning_rate": rate})

        def on_resume(step: int, curve: list[tuple[int, float, float]]) -> None:
            nonlocal progress
            job.console.say(f"resumed from the checkpoint at iteration {step}")
            progress = job.console.progress(settings.iterations, "it", start=step)
            for done, loss, rate in curve:
                tracker.log(done, {"loss": loss, "learning_rate": rate})

        outcome = train(
            objective, network, dataset, settings, spec["seed"], folder, key, job.device, on_log, tracker.flush, on_resume
        )
        progress.close()

    for complaint in outcome.complaints:
        job.console.say(f"warning: {complaint}; went on from {'the one before it' if outcome.resumed_from else 'the start'}")

    columns: dict[str, Any] = {"step": outcome.step}
    if outcome.reason:
        status = {"status": "diverged", "reason": outcome.reason}
        job.add("final_loss", None, "loss", **columns, **status)
        job.add("iterations", None, "iterations", **columns, **status)
    else:
        job.add("final_loss", outcome.curve[-1][1], "loss", **columns)
        job.add("iterations", outcome.step, "iterations", **columns)
    job.add("parameters", parameters, "parameters", **columns)
    job.add("images_seen", outcome.step * settings.batch_size, "samples", **columns)
    job.add("train_seconds", outcome.seconds, "s", **columns)

    _write(job, dataset, out, network, outcome.step, outcome.curve, parameters, outcome.reason)
    tracker.close(failed=bool(outcome.reason), tags={"fmbench.reason": outcome.reason})
    if outcome.reason:
        job.console.say(f"DIVERGED: {outcome.reason}; weights of iteration {outcome.step} -> {out}")
    else:
        loss = outcome.curve[-1][1]
        job.console.say(f"{outcome.step} iterations in {outcome.seconds:.0f} s, loss {loss:.4g} -> {out}")


def _set_up_oracle(job: Job, dataset: DataSet, objective: Objective, out: Path) -> None:
    """An oracle in the form of a trained model: its bandwidth for weights, no curve, the least loss there is for a final one."""
    settings = job.spec["method"]["oracle"]
    started = time.monotonic()
    bandwidth = oracles.bandwidth_of(settings, dataset)
    oracle = oracles.oracle_of(settings, bandwidth, dataset, job.device)
    loss = oracles.least_loss(oracle, objective, job.spec["seed"])
    job.add("final_loss", loss, "loss", step=0)
    job.add("iterations", 0, "iterations", step=0)
    job.add("parameters", 0, "parameters", step=0)
    job.add("images_seen", len(oracle.points), "samples", step=0)
    job.add("train_seconds", time.monotonic() - started, "s", step=0)
    job.add("bandwidth", bandwidth, "model units", step=0)
    _write(job, dataset, out, oracles.weights(bandwidth), 0, [], 0, "")
    job.console.say(f"no training: {len(oracle.points)} points, bandwidth {bandwidth:.4g}, least loss {loss:.4g} -> {out}")


def _write(
    job: Job,
    dataset: DataSet,
    out: Path,
    network: nn.Module,
    step: int,
    curve: list[tuple[int, float, float]],
    parameters: int,
    reason: str,
) -> None:
    key = settings_hash(job.spec)
    # An oracle's field is in its data: files that differ must have another hash.
    content = [entry["sha256"] for entry in dataset.manifest["splits"].values()]
    save_weights(out / "model.safetensors", network, {"spec": key, "step": step, "data": settings_hash(content)})
    write_table(out / "curve.parquet", table([dict(zip(CURVE.names, entry, strict=True)) for entry in curve], CURVE))
    write_rows(out / "rows.parquet", job.rows)
    write_json(
        out / "config.json",
        {
            "spec": job.spec,
            "spec_hash": key,
            "code_hash": job.code_hash,
            "shape": list(dataset.shape),
            "parameters": parameters,
            "step": step,
            "reason": reason,
        },
    )
