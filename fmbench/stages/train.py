"""Stage ``train``: one method on one data set with one seed."""

import contextlib
import json
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fmbench.config.hashing import settings_hash
from fmbench.config.method_settings import method_from_values
from fmbench.config.training_settings import TrainingSettings
from fmbench.data.prepared import read
from fmbench.flow.objectives import Objective, build
from fmbench.stages.common import Job, check_data, new_network, write_model
from fmbench.store.checkpoint import CheckpointFolder, described, differences
from fmbench.store.codehash import plugin_files
from fmbench.store.provenance import versions
from fmbench.store.tracking import Tracker
from fmbench.training.loop import train
from fmbench.training.snapshots import Snapshots


def run(job: Job, data: Path, out: Path, checkpoints: Path, tracker: Tracker) -> None:
    """Train and write the model (:func:`fmbench.stages.common.write_model`) into ``out``.

    A training whose loss stops being finite writes them too, from its last good checkpoint, with status and reason; so does one
    in which a part of somebody's own raises (:class:`PluginGuard`).

    Args:
        checkpoints: folder of all checkpoints; this training's are in one named by its spec's and its code's hash.
    """
    spec = job.spec
    dataset = read(data)
    objective = build(method_from_values(spec["method"]))
    check_data(spec, dataset)
    network = new_network(spec, dataset)
    settings = TrainingSettings.model_validate(spec["training"])
    # Other data, other code, another torch or another kind of device must not go on from this checkpoint.
    content = [entry["sha256"] for entry in dataset.manifest["splits"].values()]
    key = f"{settings_hash(spec)}-{settings_hash([job.code_hash, content, versions(), job.device.type])}"
    about = {"spec": spec, "code": job.code_hash, "data": content, "versions": json.loads(versions())}
    about["device"] = job.device.type  # which the command line may have chosen in place of the spec's
    parameters = sum(p.numel() for p in network.parameters())

    folder = CheckpointFolder(checkpoints / key, about)
    with folder if job.group.main else contextlib.nullcontext():
        job.group.wait()  # nobody reads a checkpoint before the lock is held
        if job.group.main and not folder.begun():
            for line in not_gone_on_from(folder.folder, about):
                job.console.say(line)
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

        guarded = PluginGuard(objective, network, plugin_files(spec), job.console.say)
        outcome = train(
            guarded if job.group.size == 1 else objective,
            network,
            dataset,
            settings,
            spec["seed"],
            folder,
            key,
            job.device,
            on_log,
            tracker.flush,
            on_resume,
            job.group,
            job.console.say,
        )
        progress.close()
    if not job.group.main:
        return
    if guarded.raised:
        outcome.reason = f"{guarded.raised}, so {outcome.reason}"

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
    if outcome.compile_seconds is not None:
        job.add("compile_seconds", outcome.compile_seconds, "s", **columns)
    if settings.precision == "fp16":
        job.add("skipped_steps", outcome.skipped, "iterations", **columns)

    kept = Snapshots(folder.folder, key).load(outcome.snapshots)
    curve, reason = outcome.curve, outcome.reason
    write_model(job, dataset, out, network, outcome.step, curve, parameters, reason, kept, outcome.averages)
    tracker.close(failed=bool(outcome.reason), tags={"fmbench.reason": outcome.reason})
    if outcome.reason:
        job.console.say(f"DIVERGED: {outcome.reason}; weights of iteration {outcome.step} -> {out}")
    else:
        loss = outcome.curve[-1][1]
        job.console.say(f"{outcome.step} iterations in {outcome.seconds:.0f} s, loss {loss:.4g} -> {out}")


class PluginGuard:
    """An objective whose loss is NaN from where code of somebody's own raises, which ends the training as a divergence does.

    Until that code is edited it will raise again, and an edit is another code hash; so this is a result and no accident. What
    may be another time another way stays an error: memory, files, modules, the device, and whatever fmbench says itself. So does
    everything where several processes train together, as the others would wait for this one.

    Attributes:
        raised: where and what; empty if nothing.

    Args:
        files: of the code that is somebody's own.
        tell: called with the traceback.
    """

    def __init__(self, objective: Objective, network: nn.Module, files: set[str], tell: Callable[[str], None]) -> None:
        self.objective, self.network, self.files, self.tell = objective, network, files, tell
        self.raised = ""

    def loss(self, network: Any, x0: Tensor, x1: Tensor, u: Tensor) -> Tensor:
        """As :meth:`fmbench.flow.objectives.Objective.loss`."""
        try:
            if not self.raised:
                return self.objective.loss(network, x0, x1, u)
        except Exception as error:
            self.raised = raised_in(error, self.files)
            if not self.raised:
                raise
            self.tell(traceback.format_exc().rstrip())
        # Of every weight, so that each has a gradient, as fp16's scaler wants it.
        return sum(p.sum() for p in self.network.parameters()) * x1.new_full((len(x1),), torch.nan)


def raised_in(error: Exception, files: set[str]) -> str:
    """Where in these files an error was raised, and which; empty if elsewhere, or if it may be none of their doing."""
    whose = type(error).__module__.partition(".")[0]
    of_the_machine = isinstance(error, RuntimeError) and re.search("memory|alloc|cuda|cudnn|cublas", str(error), re.IGNORECASE)
    if isinstance(error, MemoryError | OSError | ImportError) or whose in ("torch", "fmbench") or of_the_machine:
        return ""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    if not own:
        return ""
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}, raised {what}"


def not_gone_on_from(own: Path, about: dict[str, Any]) -> list[str]:
    """A line for each folder beside ``own`` with checkpoints of the same model: which settings, code, data or versions differ."""

    def model(spec: Any) -> tuple[Any, ...]:
        return spec["dataset"], spec["method"]["name"], spec["seed"]

    lines = []
    for folder in sorted(p for p in own.parent.iterdir() if p.is_dir() and p != own):
        theirs = described(folder)
        if theirs is not None and model(theirs["spec"]) == model(about["spec"]) and any(folder.glob("checkpoint*.pt")):
            lines.append(f"starts afresh: not from the checkpoints in {folder}, where {differences(theirs, about)}")
    return lines
