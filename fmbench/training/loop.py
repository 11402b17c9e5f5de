"""The training loop: one for every method, and one that resumes to the bit.

Every random number of iteration i comes from generators seeded by (seed, name, i), and the batch of iteration i is a function of
(seed, i). So a checkpoint needs to hold nothing but weights, optimiser, averages and counters.
"""

import contextlib
import time
from typing import Any

import torch
from torch import Tensor

from fmbench.config.snapshots import snapshot_steps
from fmbench.errors import CheckpointError
from fmbench.store.checkpoint import CheckpointFolder
from fmbench.system.rng import named_seed, seed_global
from fmbench.training.batches import Batches
from fmbench.training.pairs import PairBatches
from fmbench.training.precision import matrix_precision
from fmbench.training.run import SILENT, Listener, Outcome, TrainingRun
from fmbench.training.schedule import learning_rate
from fmbench.training.snapshots import Snapshots
from fmbench.training.step import Step


def train(run: TrainingRun, checkpoints: CheckpointFolder, listener: Listener = SILENT) -> Outcome:
    """Train ``run.network`` in place and leave its averaged weights in it.

    Returns:
        The outcome. If a loss is not finite, training ends and the network gets the weights of the last good checkpoint.

    Raises:
        ConfigError: the device cannot do what the settings ask for.
        CheckpointError: a checkpoint or a snapshot cannot be written.
    """
    with matrix_precision(run.settings.precision, run.device):
        training = _Training(run, checkpoints, listener)
        with contextlib.closing(run.batches()) as batches:
            training.resume()
            training.prepare(batches)
            reason = _iterate(training, batches)
        if reason:
            training.go_back(reason)
        return training.finish()


def _iterate(training: "_Training", batches: Batches | PairBatches) -> str:
    """Train to the last iteration, or to the first at which training diverges. Returns why it diverged, or an empty string."""
    settings = training.settings
    for step in range(training.outcome.step, settings.iterations):
        training.advance(step, batches)
        done, last = step + 1, step + 1 == settings.iterations
        logs, saves = done % settings.log_every == 0 or last, done % settings.checkpoint_every == 0 or last
        # Only here does the CPU read losses: reading one at each step would make a GPU wait for the CPU.
        if (logs or saves) and (reason := training.bad_loss(done)):
            return reason
        if logs:
            training.log(done)
        if done in training.snapshot_steps:
            training.save_snapshot(done)
        if saves:
            if reason := training.bad_weight(done):
                return reason
            training.save(done)
    return ""


class _Training:
    """A training under way.

    Attributes:
        snapshot_steps: the iterations whose averaged weights are kept; those that are lost are not among them.
    """

    def __init__(self, run: TrainingRun, checkpoints: CheckpointFolder, listener: Listener) -> None:
        self.run, self.settings, self.checkpoints, self.listener = run, run.settings, checkpoints, listener
        self.update = Step(run.objective, run.network, run.settings, run.device, run.group)
        self.snapshots = Snapshots(checkpoints.folder, run.key)
        self.snapshot_steps = snapshot_steps(run.settings.iterations, run.settings.snapshots)
        self.outcome = Outcome()
        self._threads = torch.get_num_threads()
        self._losses: list[Tensor] = []  # of the iterations since the last entry of the curve, means over all processes
        self._unread: list[Tensor] = []  # losses of this process that nothing has read yet
        self._began = time.monotonic()

    # Resuming and getting ready

    def resume(self) -> None:
        """Go on from the newest good checkpoint. If there is none, save one with the initial weights.

        Raises:
            CheckpointError: the processes read different checkpoints, or the first one cannot be written.
        """
        run = self.run
        state, complaints = self.checkpoints.load(run.key)
        if state is not None:
            complaints = [*complaints, *self._leave_out_lost_snapshots(state["step"]), *self._other_threads(state)]
        self._complain(complaints, f"the training goes on from iteration {0 if state is None else state['step']}")
        if state is not None:
            self._restore(state)
            self.outcome.resumed_from = state["step"]
            self._losses = list(state["losses"].to(run.device))
            self.listener.on_resume(self.outcome.step, self.outcome.curve)
        # This waits until every process has read its checkpoint. Only then may the first process write.
        step = self.outcome.step
        if float(run.group.mean(torch.tensor([float(step)], device=run.device))) != step:
            raise CheckpointError(
                f"the processes read different checkpoints in {self.checkpoints.folder}; use a folder that all of them can see"
            )
        self._began = time.monotonic() - self.outcome.seconds
        if state is None:
            self.save(0)  # a folder that cannot be written shows itself now, and a divergence always has weights to go back to

    def _leave_out_lost_snapshots(self, step: int) -> list[str]:
        """Leave out the snapshots up to an iteration that cannot be read. Training again to remake them is not worth it."""
        lost = self.snapshots.damaged([kept for kept in self.snapshot_steps if kept <= step])
        self.snapshot_steps = [kept for kept in self.snapshot_steps if kept not in lost]
        return [f"the snapshot {reason}, and is left out" for reason in lost.values()]

    def _other_threads(self, state: dict[str, Any]) -> list[str]:
        before = state.get("threads", self._threads)
        if self.run.device.type != "cpu" or before == self._threads:
            return []
        return [f"it ran on {before} threads and now runs on {self._threads}, so its numbers are the same up to rounding only"]

    def _complain(self, complaints: list[str], then: str) -> None:
        self.outcome.complaints += complaints
        for complaint in complaints:
            self.listener.tell(f"warning: {complaint}; {then}")

    def _restore(self, state: dict[str, Any]) -> None:
        self.update.load_state_dict(state)
        self.outcome.step, self.outcome.seconds = state["step"], state["seconds"]
        self.outcome.curve = [tuple(entry) for entry in state["curve"]]

    def prepare(self, batches: Batches | PairBatches) -> None:
        """Compile the step, or warm it up for several processes. Compilation is left out of the training's seconds."""
        if self.outcome.step >= self.settings.iterations:
            return
        if self.settings.compile:
            self.outcome.compile_seconds = self.update.compile(*batches.example())
            self._began += self.outcome.compile_seconds
            if self.update.uncaptured:
                self.outcome.notes.append(f"the step is compiled, but not captured in a CUDA graph: {self.update.uncaptured}")
                self.listener.tell(f"note: {self.outcome.notes[-1]}")
        elif self.run.group.size > 1:
            self.update.warm_up(*batches.example())

    # Iterations

    def _rate(self, step: int) -> float:
        peak, warmup = self.settings.learning_rate, self.settings.warmup_iterations
        return learning_rate(step, self.settings.iterations, peak, warmup, self.settings.schedule)

    def advance(self, step: int, batches: Batches | PairBatches) -> None:
        """Train by the batch of iteration ``step``."""
        rank = self.run.group.rank
        self.update.set_rate(self._rate(step))
        # The global generator gives what dropout draws, and what else a plug-in network draws.
        seed_global(named_seed(self.run.seed, f"train/dropout/{step}" + (f"/{rank}" if rank else "")), self.run.device)
        self._unread.append(self.update(*batches(step)))

    def bad_loss(self, done: int) -> str:
        """Read the losses since the last log, as means over the processes. Returns a reason to stop if one is not finite."""
        self._losses, self._unread = [*self._losses, *self.run.group.mean(torch.stack(self._unread))], []
        losses = torch.stack(self._losses)
        bad = (~torch.isfinite(losses)).nonzero()
        if not len(bad):
            return ""
        step = done - len(losses) + int(bad[0])
        return f"the loss became {losses[bad[0]].item()} at iteration {step} (learning rate {self._rate(step):.3g})"

    def log(self, done: int) -> None:
        """Add an entry to the loss curve."""
        entry = (done, float(torch.stack(self._losses).mean()), self._rate(done - 1))
        self._losses = []
        self.outcome.curve.append(entry)
        self.listener.on_log(*entry)

    def save_snapshot(self, done: int) -> None:
        """Write a snapshot, in the first process."""
        if self.run.group.main:
            self.snapshots.save(done, self.update.averaged(self.update.ema))

    def bad_weight(self, done: int) -> str:
        """A reason to stop if an averaged weight is not finite; empty if all are finite."""
        if all(bool(torch.isfinite(average).all()) for average in self.update.ema.averages):
            return ""
        return f"a weight stopped being finite by iteration {done} (learning rate {self._rate(done - 1):.3g})"

    def save(self, done: int) -> None:
        """Write a checkpoint, in the first process."""
        self.outcome.step, self.outcome.seconds = done, time.monotonic() - self._began
        if not self.run.group.main:
            return
        self.listener.on_checkpoint()
        values = {
            "key": self.run.key,
            "step": done,
            "losses": torch.stack(self._losses) if self._losses else torch.empty(0),
            "curve": self.outcome.curve,
            "seconds": self.outcome.seconds,
            "threads": self._threads,
        }
        self.checkpoints.save(values | self.update.state_dict())

    # The end

    def go_back(self, reason: str) -> None:
        """Return to the last good checkpoint.

        Raises:
            CheckpointError: no checkpoint can be read.
        """
        good, complaints = self.checkpoints.load(self.run.key)
        if good is None:
            raise CheckpointError(f"{reason}, and no checkpoint to go back to can be read: {'; '.join(complaints)}")
        self._complain(complaints, f"the weights are those of iteration {good['step']}")
        self._restore(good)
        self.outcome.reason = reason

    def finish(self) -> Outcome:
        """Leave the averaged weights in the network. Returns the outcome."""
        outcome, update = self.outcome, self.update
        outcome.skipped = update.skipped()
        outcome.snapshots = [kept for kept in self.snapshot_steps if kept <= outcome.step]
        for ema, decay in zip(update.averages[1:], self.settings.more_ema_decays, strict=True):
            outcome.averages[decay] = {name: value.clone() for name, value in update.averaged(ema).items()}
        update.ema.copy_to(update.parameters)
        self.run.network.eval()
        return outcome
