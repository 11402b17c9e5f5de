"""The training loop: one for every method, resumable to the bit.

Every random number of iteration i comes from generators seeded by (seed, name, i), and the batch of iteration i is a
function of (seed, i), so nothing but weights, optimiser, average and counters has to be in a checkpoint.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fmbench.checkpoint import CheckpointFolder
from fmbench.config import TrainingSettings
from fmbench.data.prepared import DataSet, resident
from fmbench.errors import CheckpointError
from fmbench.networks.ema import EMA
from fmbench.objectives import Objective
from fmbench.rng import generator, named_seed
from fmbench.training.schedule import learning_rate


@dataclass
class Outcome:
    """How a training ended.

    Attributes:
        step: iterations done; on divergence those of the last good checkpoint, whose weights are returned.
        curve: (iteration, mean loss since the last entry, learning rate).
        reason: why it stopped early; empty when it did not.
        seconds: spent in the loop up to the last checkpoint that led here, by all processes together.
    """

    step: int
    curve: list[tuple[int, float, float]]
    reason: str = ""
    seconds: float = 0.0
    resumed_from: int = 0
    complaints: list[str] = field(default_factory=list)


class BatchSampler:
    """Which samples iteration i sees: consecutive pieces of one random order per epoch, as a function of (seed, i)."""

    def __init__(self, size: int, batch: int, seed: int) -> None:
        self.size, self.batch, self.seed = size, batch, seed
        self._orders: dict[int, Tensor] = {}

    def indices(self, step: int) -> Tensor:
        """int64 of shape (batch,). A batch may run over the end of an epoch into the next."""
        first, last = step * self.batch, (step + 1) * self.batch
        pieces, position = [], first
        while position < last:
            epoch, offset = divmod(position, self.size)
            piece = self._order(epoch)[offset : offset + last - position]
            pieces.append(piece)
            position += len(piece)
        return torch.cat(pieces)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            if len(self._orders) > 1:
                self._orders.pop(min(self._orders))
            self._orders[epoch] = torch.randperm(self.size, generator=generator(self.seed, f"train/epoch/{epoch}"))
        return self._orders[epoch]


def train(
    objective: Objective,
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
) -> Outcome:
    """Train ``network`` in place and leave its averaged weights in it.

    Args:
        key: hash of everything the training depends on; a checkpoint of another key is not used.
        on_log: called with (iteration, mean loss, learning rate) every ``log_every`` iterations.
        on_checkpoint: called before each checkpoint is written (flush what must not be lost).
        on_resume: called with the iteration and the curve of the checkpoint that the training goes on from.

    Returns:
        The outcome. A loss that is not finite ends the training with the weights of the last good checkpoint.
    """
    network.to(device).train()
    parameters = list(network.parameters())
    optimiser = torch.optim.Adam(
        parameters,
        lr=settings.learning_rate,
        betas=(settings.betas[0], settings.betas[1]),
        eps=settings.adam_epsilon,
        fused=True,
    )
    ema = EMA(parameters, settings.ema_decay)
    data = resident(dataset, device)
    sampler = BatchSampler(len(data), settings.batch_size, seed)
    noise = torch.Generator(device)

    def rate_of(step: int) -> float:
        peak, warmup = settings.learning_rate, settings.warmup_iterations
        return learning_rate(step, settings.iterations, peak, warmup, settings.schedule)

    has_dropout = any(isinstance(m, nn.Dropout) and m.p > 0 for m in network.modules())

    state, complaints = checkpoints.load(key)
    outcome = Outcome(step=0, curve=[], complaints=complaints)
    if state is not None:
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        ema.load_state_dict(state["ema"])
        outcome.step = outcome.resumed_from = state["step"]
        outcome.curve = [tuple(entry) for entry in state["curve"]]
        outcome.seconds = state["seconds"]
        on_resume(outcome.step, outcome.curve)
    losses: list[Tensor] = [] if state is None else list(state["losses"].to(device))

    before, began = outcome.seconds, time.monotonic()

    def save(done: int) -> None:
        outcome.seconds = before + time.monotonic() - began
        on_checkpoint()
        checkpoints.save(
            {
                "key": key,
                "step": done,
                "network": network.state_dict(),
                "optimiser": optimiser.state_dict(),
                "ema": ema.state_dict(),
                "losses": torch.stack(losses) if losses else torch.empty(0),
                "curve": outcome.curve,
                "seconds": outcome.seconds,
            }
        )

    if state is None:
        save(0)  # a folder that cannot be written shows itself now, and a divergence always has weights to go back to

    for step in range(outcome.step, settings.iterations):
        rate = rate_of(step)
        for group in optimiser.param_groups:
            group["lr"] = rate

        noise.manual_seed(named_seed(seed, f"train/noise/{step}"))
        if has_dropout:  # dropout layers can draw from the global generator only
            torch.manual_seed(named_seed(seed, f"train/dropout/{step}"))
        x = data[sampler.indices(step).to(device)]
        u = torch.rand(x.shape, generator=noise, device=device) if dataset.is_images else torch.zeros((), device=device)
        x1 = dataset.to_model(x, u)
        x0 = torch.randn(x1.shape, generator=noise, device=device)
        times = torch.rand(x1.shape[0], generator=noise, device=device)

        loss = objective.loss(network, x0, x1, times).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if settings.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
        optimiser.step()
        ema.update()
        losses.append(loss.detach())

        done = step + 1
        last = done == settings.iterations
        if done % settings.log_every == 0 or done % settings.checkpoint_every == 0 or last:
            # Losses are looked at here only: one at each step would make a GPU wait for the CPU.
            values = torch.stack(losses)
            bad = (~torch.isfinite(values)).nonzero()
            if len(bad):
                at = done - len(losses) + int(bad[0])
                outcome.reason = f"the loss became {values[bad[0]].item()} at iteration {at} (learning rate {rate_of(at):.3g})"
                break
        if done % settings.log_every == 0 or last:
            entry = (done, float(values.mean()), rate)
            outcome.curve.append(entry)
            on_log(*entry)
            losses = []
        if done % settings.checkpoint_every == 0 or last:
            if not all(bool(torch.isfinite(a).all()) for a in ema.averages):
                outcome.reason = f"a weight stopped being finite by iteration {done} (learning rate {rate:.3g})"
                break
            outcome.step = done
            save(done)

    if outcome.reason:
        outcome.curve = [entry for entry in outcome.curve if entry[0] <= outcome.step]
        good, more = checkpoints.load(key)
        outcome.complaints += more
        if good is None:
            raise CheckpointError(f"{outcome.reason}, and no checkpoint to go back to can be read: {'; '.join(more)}")
        ema.load_state_dict(good["ema"])
        outcome.step = good["step"]
    ema.copy_to(parameters)
    network.eval()
    return outcome
