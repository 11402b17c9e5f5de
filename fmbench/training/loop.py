"""The training loop: one for every method, resumable to the bit.

Every random number of iteration i comes from generators seeded by (seed, name, i), and the batch of iteration i is a
function of (seed, i), so nothing but weights, optimiser, averages and counters has to be in a checkpoint.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fmbench.config.milestones import snapshot_steps
from fmbench.config.training_settings import TrainingSettings
from fmbench.data.prepared import DataSet
from fmbench.errors import CheckpointError
from fmbench.store.checkpoint import CheckpointFolder
from fmbench.system.distributed import ALONE, Group
from fmbench.system.rng import named_seed, seed_global
from fmbench.training.batches import Batches
from fmbench.training.precision import matrix_precision
from fmbench.training.schedule import learning_rate
from fmbench.training.snapshots import Snapshots
from fmbench.training.step import Loss, Step


@dataclass
class Outcome:
    """How a training ended.

    Attributes:
        step: iterations done; on divergence those of the last good checkpoint, whose weights are returned.
        curve: (iteration, mean loss since the last entry, learning rate).
        reason: why it stopped early; empty when it did not.
        seconds: spent in the loop up to the last checkpoint that led here, by all attempts together; compilation apart.
        compile_seconds: of this attempt's compilation; None without one.
        notes: what a user should know of how it ran.
        skipped: steps that fp16 skipped for an overflow.
        snapshots: the iterations up to ``step`` whose averaged weights were kept.
        averages: the state dict of every further average, by its decay.
    """

    step: int
    curve: list[tuple[int, float, float]]
    reason: str = ""
    seconds: float = 0.0
    resumed_from: int = 0
    complaints: list[str] = field(default_factory=list)
    compile_seconds: float | None = None
    notes: list[str] = field(default_factory=list)
    skipped: int = 0
    snapshots: list[int] = field(default_factory=list)
    averages: dict[float, dict[str, Tensor]] = field(default_factory=dict)


def train(
    objective: Loss,
    network: nn.Module,
    dataset: DataSet,
    settings: TrainingSettings,
    seed: int,
    checkpoints: CheckpointFolder,
    key: str,
    device: torch.device,
    on_log: Callable[[int, float, float], None],
    on_checkpoint: Callable[[], None],
    on_resume: Callable[[int, list[tuple[int, float, float]]], None] = lambda step, curve: None,
    group: Group = ALONE,
    tell: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Train ``network`` in place and leave its averaged weights in it.

    Args:
        key: hash of everything the training depends on; a checkpoint of another key is not used.
        on_log: called with (iteration, mean loss, learning rate) every ``log_every`` iterations.
        on_checkpoint: called before each checkpoint is written (flush what must not be lost).
        on_resume: called with the iteration and the curve of the checkpoint that the training goes on from.
        group: the processes that train together, each in a call of its own; the first alone writes, and holds the lock.
        tell: called with each complaint and note as it comes, so that none is lost with a process that is killed later.

    Returns:
        The outcome. A loss that is not finite ends the training with the weights of the last good checkpoint.

    Raises:
        ConfigError: the device cannot do what the settings ask for.
        CheckpointError: a checkpoint or a snapshot cannot be written.
    """
    with contextlib.ExitStack() as ending, matrix_precision(settings.precision, device):
        update = Step(objective, network, settings, device, group)
        batches = Batches(dataset, settings, seed, device, group)
        ending.callback(batches.close)
        snapshots = Snapshots(checkpoints.folder, key)
        kept = snapshot_steps(settings.iterations, settings.snapshots)

        def rate_of(step: int) -> float:
            peak, warmup = settings.learning_rate, settings.warmup_iterations
            return learning_rate(step, settings.iterations, peak, warmup, settings.schedule)

        state, complaints = checkpoints.load(key)
        if state is not None:
            # A snapshot that was lost is left out: no reason to train what came after it again.
            lost = snapshots.damaged([step for step in kept if step <= state["step"]])
            kept = [step for step in kept if step not in lost]
            complaints = [*complaints, *(f"the snapshot {why}, and is left out" for why in lost.values())]
        outcome = Outcome(step=0, curve=[])
        losses: list[Tensor] = []  # since the last entry of the curve, of all processes
        threads = torch.get_num_threads()
        had = threads if state is None or device.type != "cpu" else state.get("threads", threads)
        if had != threads:
            complaints = [*complaints, f"it was on {had} threads and is on {threads} now: the same numbers to rounding only"]

        def complain(what: list[str], then: str) -> None:
            outcome.complaints += what
            for complaint in what:
                tell(f"warning: {complaint}; {then}")

        complain(complaints, f"the training goes on from iteration {0 if state is None else state['step']}")
        if state is not None:
            update.load_state_dict(state)
            outcome.step = outcome.resumed_from = state["step"]
            outcome.curve = [tuple(entry) for entry in state["curve"]]
            outcome.seconds = state["seconds"]
            losses = list(state["losses"].to(device))
            on_resume(outcome.step, outcome.curve)
        fresh, state = state is None, None  # copied; the weights and averages in it would stay in memory to the end
        # All have read, so the first may write.
        if float(group.mean(torch.tensor([float(outcome.step)], device=device))) != outcome.step:
            raise CheckpointError(
                f"the processes read different checkpoints in {checkpoints.folder}; it must be a folder that all of them see"
            )

        before, began = outcome.seconds, time.monotonic()

        def save(done: int) -> None:
            outcome.seconds = before + time.monotonic() - began
            if not group.main:
                return
            on_checkpoint()
            values = {
                "key": key,
                "step": done,
                "losses": torch.stack(losses) if losses else torch.empty(0),
                "curve": outcome.curve,
                "seconds": outcome.seconds,
                "threads": threads,
            }
            checkpoints.save(values | update.state_dict())

        if group.main:
            snapshots.tidy()
        if fresh:
            save(0)  # a folder that cannot be written shows itself now, and a divergence always has weights to go back to
        if settings.compile and outcome.step < settings.iterations:
            outcome.compile_seconds = update.compile(*batches.example())
            began += outcome.compile_seconds
            if update.uncaptured:
                outcome.notes.append(f"the step is compiled, but in no CUDA graph: {update.uncaptured}")
                tell(f"note: {outcome.notes[-1]}")
        elif group.size > 1 and outcome.step < settings.iterations:
            update.warm_up(*batches.example())

        unseen: list[Tensor] = []  # losses not looked at yet, of this process
        for step in range(outcome.step, settings.iterations):
            rate = rate_of(step)
            update.set_rate(rate)
            # Dropout, and what else a network of one's own draws, comes from the global generator.
            seed_global(named_seed(seed, f"train/dropout/{step}" + (f"/{group.rank}" if group.rank else "")), device)
            unseen.append(update(*batches(step)))

            done = step + 1
            last = done == settings.iterations
            if done % settings.log_every == 0 or done % settings.checkpoint_every == 0 or last:
                # Losses are looked at here only: one at each step would make a GPU wait for the CPU.
                losses, unseen = [*losses, *group.mean(torch.stack(unseen))], []
                values = torch.stack(losses)
                bad = (~torch.isfinite(values)).nonzero()
                if len(bad):
                    at = done - len(losses) + int(bad[0])
                    outcome.reason = (
                        f"the loss became {values[bad[0]].item()} at iteration {at} (learning rate {rate_of(at):.3g})"
                    )
                    break
            if done % settings.log_every == 0 or last:
                entry = (done, float(values.mean()), rate)
                outcome.curve.append(entry)
                on_log(*entry)
                losses = []
            if done in kept and group.main:
                snapshots.save(done, update.averaged(update.ema))
            if done % settings.checkpoint_every == 0 or last:
                if not all(bool(torch.isfinite(a).all()) for a in update.ema.averages):
                    outcome.reason = f"a weight stopped being finite by iteration {done} (learning rate {rate:.3g})"
                    break
                outcome.step = done
                save(done)

        if outcome.reason:
            good, more = checkpoints.load(key)
            if good is None:
                raise CheckpointError(f"{outcome.reason}, and no checkpoint to go back to can be read: {'; '.join(more)}")
            complain(more, f"the weights are those of iteration {good['step']}")
            update.load_state_dict(good)
            outcome.step, outcome.seconds = good["step"], good["seconds"]
            outcome.curve = [tuple(entry) for entry in good["curve"]]
        outcome.skipped = update.skipped()
        outcome.snapshots = [step for step in kept if step <= outcome.step]
        for ema, decay in zip(update.averages[1:], settings.more_ema_decays, strict=True):
            outcome.averages[decay] = {name: value.clone() for name, value in update.averaged(ema).items()}
        update.ema.copy_to(update.parameters)
        network.eval()
        return outcome
