"""Stage ``train``: one method on one data set with one seed."""

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fmbench.config.hashing import settings_hash
from fmbench.config.method_settings import method_from_values
from fmbench.config.training_settings import TrainingSettings, why_no_jumps
from fmbench.data.prepared import DataSet, read
from fmbench.errors import ConfigError
from fmbench.flow.objectives import Objective
from fmbench.flow.regression import Loss, build_loss
from fmbench.stages.shared.initial_network import new_network
from fmbench.stages.shared.job import Job, check_data, split_hashes
from fmbench.stages.shared.model_files import FinishedModel, add_times, write_model
from fmbench.stages.shared.pair_files import Pairs, read_pairs, skip_student
from fmbench.stages.shared.plugin_guard import PluginGuard
from fmbench.store.checkpoint import CheckpointFolder, described, differences
from fmbench.store.codehash import plugin_files
from fmbench.store.provenance import versions
from fmbench.store.records import DIVERGED
from fmbench.store.tracker import Tracker
from fmbench.store.tracking_runs import data_input
from fmbench.training.loop import train
from fmbench.training.run import Entry, Listener, Outcome, TrainingRun
from fmbench.training.snapshots import Snapshots


@dataclass(frozen=True)
class Variant:
    """What trainings of one kind do more than others.

    Attributes:
        bind: from objective, data, settings and device to the objective to train by.
        add_rows: adds rows at the end, from job, objective, network, data, settings and outcome.
    """

    bind: Callable[[Loss, DataSet, TrainingSettings, torch.device], Loss] = lambda objective, *_: objective
    add_rows: Callable[[Job, Loss, nn.Module, DataSet, TrainingSettings, Outcome], None] = lambda *_: None


PLAIN = Variant()


def run(
    job: Job,
    data: Path,
    out: Path,
    checkpoints: Path,
    tracker: Tracker,
    pairs_folder: Path | None = None,
    variant: Variant = PLAIN,
) -> None:
    """Train, and write the model into ``out`` (:func:`fmbench.stages.shared.model_files.write_model`).

    If the loss stops being finite, or a plug-in raises an exception (:class:`fmbench.stages.shared.plugin_guard.PluginGuard`),
    the model is that of the last good checkpoint, and its rows have a status and a reason.

    Args:
        checkpoints: folder of all checkpoints. Those of this training are in a subfolder named by its key.
        pairs_folder: where the stage ``pairs`` wrote, for a method with a teacher. If the teacher has no pairs, the model is
            that of the initial weights, and its rows are skipped with the reason.
    """
    spec = job.spec
    dataset = read(data)
    objective = build_loss(method_from_values(spec["method"]), dataset.model_std)
    check_data(spec, dataset)
    network = new_network(spec, dataset)
    settings = TrainingSettings.model_validate(spec["training"])
    if isinstance(objective, Objective) and objective.jumps and (problem := why_no_jumps(settings, job.group.size)):
        raise ConfigError(problem)
    objective = variant.bind(objective, dataset, settings, job.device)
    pairs = read_pairs(spec, pairs_folder)
    if pairs is not None and pairs.reason:
        skip_student(job, dataset, network, out, pairs.reason)
        return
    key, about = _identity(job, dataset, pairs)
    guard = PluginGuard(objective, network, plugin_files(spec), job.console.say)
    loss = guard if job.group.size == 1 else objective
    seed, start, coupling = spec["seed"], objective.start, objective.coupling
    given = None if pairs is None else (pairs.x0, pairs.x1)
    training = TrainingRun(loss, network, dataset, settings, seed, key, job.device, job.group, start, coupling, given)

    folder = CheckpointFolder(checkpoints / key, about)
    outcome = _train(job, training, folder, about, tracker)
    if not job.group.main:
        return
    if guard.raised:
        outcome.reason = f"{guard.raised}, so {outcome.reason}"

    snapshots = Snapshots(folder.folder, key).load(outcome.snapshots)
    model = FinishedModel(network, outcome.step, outcome.curve, outcome.reason, snapshots, outcome.averages)
    _add_rows(job, outcome, settings, model.parameters)
    variant.add_rows(job, objective, network, dataset, settings, outcome)
    # A training that was done before this attempt ended with its last checkpoint.
    ended = time.time() if outcome.reason else folder.written()
    add_times(job, folder.began, ended, outcome.step)
    write_model(job, dataset, out, model)
    tracker.close(outcome.reason, ended)
    if outcome.reason:
        job.console.say(f"DIVERGED: {outcome.reason}; weights of iteration {outcome.step} -> {out}")
    else:
        loss_at_end = outcome.curve[-1][1]
        job.console.say(f"{outcome.step} iterations in {outcome.seconds:.0f} s, loss {loss_at_end:.4g} -> {out}")


def _identity(job: Job, dataset: DataSet, pairs: Pairs | None) -> tuple[str, dict[str, Any]]:
    """Everything that a training depends on, as a key and in words.

    With other data, other code, another torch or another kind of device, a training must not go on from the same checkpoint.
    """
    content: Any = split_hashes(dataset) if pairs is None else [split_hashes(dataset), pairs.digest]
    device = job.device.type  # the command line may have chosen another device than the spec's
    key = f"{settings_hash(job.spec)}-{settings_hash([job.code_hash, content, versions(), device])}"
    about = {"spec": job.spec, "code": job.code_hash, "data": content, "versions": json.loads(versions()), "device": device}
    return key, about


def _train(job: Job, training: TrainingRun, folder: CheckpointFolder, about: dict[str, Any], tracker: Tracker) -> Outcome:
    """Train under the lock of the checkpoint folder, with a progress bar and MLflow."""
    with folder if job.group.main else contextlib.nullcontext():
        job.group.wait()  # no process reads a checkpoint before the lock is held
        if job.group.main and not folder.begun():
            for line in unused_checkpoints(folder.folder, about):
                job.console.say(line)
        parameters = sum(p.numel() for p in training.network.parameters())
        tracker.open(folder.began, parameters, data_input(training.dataset.manifest))
        progress = job.console.progress(training.settings.iterations, "it")

        def on_log(step: int, loss: float, rate: float) -> None:
            progress.update(step, loss=loss)
            tracker.log(step, {"loss": loss, "learning_rate": rate})

        def on_resume(step: int, curve: list[Entry]) -> None:
            nonlocal progress
            job.console.say(f"resumed from the checkpoint at iteration {step}")
            progress = job.console.progress(training.settings.iterations, "it", start=step)
            for done, loss, rate in curve:
                tracker.log(done, {"loss": loss, "learning_rate": rate})

        outcome = train(training, folder, Listener(on_log, tracker.flush, on_resume, job.console.say))
        progress.close()
    return outcome


def _add_rows(job: Job, outcome: Outcome, settings: TrainingSettings, parameters: int) -> None:
    columns: dict[str, Any] = {"step": outcome.step}
    if outcome.reason:
        status = {"status": DIVERGED, "reason": outcome.reason}
        job.add("final_loss", None, "loss", **columns, **status)
        job.add("iterations", None, "iterations", **columns, **status)
    else:
        job.add("final_loss", outcome.curve[-1][1], "loss", **columns)
        job.add("iterations", outcome.step, "iterations", **columns)
    job.add("parameters", parameters, "parameters", **columns)
    job.add("images_seen", outcome.step * settings.batch_size, "samples", **columns)
    job.add("train_seconds", outcome.seconds, "s", **columns)
    if outcome.compile_seconds is not None:
        job.add("compile_seconds", outcome.compile_seconds, "s", **columns)
    if settings.precision == "fp16":
        job.add("skipped_steps", outcome.skipped, "iterations", **columns)


def unused_checkpoints(ours: Path, about: dict[str, Any]) -> list[str]:
    """A line for each other folder with checkpoints of the same model: which settings, code, data or versions differ."""

    def model(spec: Any) -> tuple[Any, ...]:
        return spec["dataset"], spec["method"]["name"], spec["seed"]

    lines = []
    for folder in sorted(p for p in ours.parent.iterdir() if p.is_dir() and p != ours):
        theirs = described(folder)
        if theirs is not None and model(theirs["spec"]) == model(about["spec"]) and any(folder.glob("checkpoint*.pt")):
            lines.append(f"starts afresh: not from the checkpoints in {folder}, where {differences(theirs, about)}")
    return lines
