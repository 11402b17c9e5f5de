"""One optimiser step: forward, backward, clipping, Adam, averages."""

import contextlib
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fmbench.config.training_settings import TrainingSettings
from fmbench.errors import ConfigError
from fmbench.networks.ema import EMA
from fmbench.system.distributed import ALONE, Group
from fmbench.training import capture, precision


class HasLoss(Protocol):
    """The part of an objective that training needs (:meth:`fmbench.flow.objectives.Objective.loss`)."""

    def loss(self, network: Any, x0: Tensor, x1: Tensor, u: Tensor) -> Tensor: ...


class Step:
    """``step(x0, x1, u, *condition)`` trains a network in place by one batch and returns the batch's mean loss.

    With precision bf16 or fp16 the network runs under autocast; the loss is always float32. A batch is cut into ``accumulation``
    micro-batches, whose gradients are added. Each of several processes has its share of the batch, and the gradients are averaged
    over the processes. With fp16, a step whose scaled gradients overflow is skipped, and the scale is halved.

    On a single GPU a compiled step is also captured in a CUDA graph (:mod:`fmbench.training.capture`), except for the averages.

    Attributes:
        uncaptured: why a compiled step on a GPU is not captured in a CUDA graph; empty if it is. :meth:`compile` may set it.

    Args:
        network: moved to the device and left in training mode.
        group: the processes that train together. Each makes its own Step.

    Raises:
        ConfigError: the device does not support the precision.
    """

    def __init__(
        self, objective: HasLoss, network: nn.Module, settings: TrainingSettings, device: torch.device, group: Group = ALONE
    ) -> None:
        precision.check(settings.precision, device)
        self.objective, self.network, self.settings, self.device = objective, network.to(device).train(), settings, device
        self.parameters = list(network.parameters())
        wanted = settings.compile and _can_capture(device)
        self.uncaptured = _obstacle(settings, group) if wanted else ""
        self._captures = wanted and not self.uncaptured
        # A graph keeps the value that a number had when it was captured. It reads a tensor again at each replay.
        self._rate = torch.tensor(settings.learning_rate, device=device) if self._captures else None
        self.optimiser = torch.optim.Adam(
            self.parameters,
            lr=settings.learning_rate if self._rate is None else self._rate,
            betas=(settings.betas[0], settings.betas[1]),
            eps=settings.adam_epsilon,
            fused=True,
            capturable=self._captures,
        )
        self._recording: capture.Recording | None = None
        self.averages = [EMA(self.parameters, decay) for decay in (settings.ema_decay, *settings.more_ema_decays)]
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
        # The plain network holds the weights under their names. These wrappers only run it.
        self._runner: Any = torch.compile(network, dynamic=False) if settings.compile else network
        if group.size > 1:
            ids = [device] if device.type == "cuda" else None
            self._runner = DistributedDataParallel(self._runner, device_ids=ids)
        self._autocast = precision.AUTOCAST.get(settings.precision)

    @property
    def ema(self) -> EMA:
        """The average that becomes the model."""
        return self.averages[0]

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next step."""
        if self._rate is not None:
            self._rate.fill_(rate)
            return
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def __call__(self, *batch: Tensor) -> Tensor:
        """Make one step on a batch: noise and data (B, *), uniforms (B,) for times, and the condition (B, *) if there is one.

        Returns the mean loss, a detached scalar.
        """
        loss = (self._recording or self._update)(*batch)
        for average in self.averages:
            average.update()
        return loss

    def _update(self, *batch: Tensor) -> Tensor:
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._gradients(*batch)
        if self.settings.clip_norm is not None:
            self.scaler.unscale_(self.optimiser)
            torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return loss

    def _gradients(self, *batch: Tensor) -> Tensor:
        pieces = self.settings.accumulation
        if len(batch[0]) % pieces:
            raise ValueError(f"a batch of {len(batch[0])} cannot be cut into accumulation = {pieces} equal micro-batches")
        losses = []
        for number, piece in enumerate(zip(*(part.chunk(pieces) for part in batch), strict=True), start=1):
            x0, x1, u, *condition = piece
            with self._exchange(last=number == pieces):
                loss = self.objective.loss(partial(self._run, condition), x0, x1, u).mean() / pieces
                self.scaler.scale(loss).backward()
            losses.append(loss.detach())
        return sum(losses[1:], losses[0])

    def _run(self, condition: Sequence[Tensor], t: Tensor, x: Tensor) -> Tensor:
        if self._autocast is None:
            out: Tensor = self._runner(t, x, *condition)
            return out
        with torch.autocast(self.device.type, self._autocast):
            out = self._runner(t, x, *condition)
        return out.float()

    def _exchange(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """A context in which processes exchange gradients only with the last micro-batch, so once a step."""
        if last or not isinstance(self._runner, DistributedDataParallel):
            return contextlib.nullcontext()
        alone: contextlib.AbstractContextManager[None] = self._runner.no_sync()
        return alone

    def compile(self, *batch: Tensor) -> float:
        """Compile by a first forward and backward pass, and capture. Returns the seconds taken. No weight or buffer changes.

        Raises:
            ConfigError: the network cannot be compiled here.
        """
        with self._buffers_kept():
            return self._compile(*batch)

    def warm_up(self, *batch: Tensor) -> None:
        """Make a forward and a backward pass that change nothing, for several processes. Compilation makes such a pass, too.

        In its first pass DDP adds up gradients in one order, and in all later passes in another, which matters with three or more
        processes. After this pass every step uses the later order, the first step of a new or resumed training included.
        """
        with self._buffers_kept():
            self._gradients(*batch)
        self.optimiser.zero_grad(set_to_none=True)

    @contextlib.contextmanager
    def _buffers_kept(self) -> Iterator[None]:
        """A context that restores all buffers at its end, so that running statistics do not include a trial batch."""
        places = [(module._buffers, name) for module in self.network.modules() for name in module._buffers]
        kept = [(buffers, name, buffers[name]) for buffers, name in places]
        values = [None if buffer is None else buffer.clone() for _, _, buffer in kept]
        yield
        for (buffers, name, buffer), value in zip(kept, values, strict=True):
            buffers[name] = buffer if buffer is None or value is None else buffer.copy_(value)

    def _compile(self, *batch: Tensor) -> float:
        from torch._dynamo.exc import TorchDynamoException
        from torch._inductor.exc import InductorError

        began = time.monotonic()
        try:
            float(self._gradients(*batch))
        except (TorchDynamoException, InductorError) as error:
            reason = " ".join(str(error).strip().split("\n\n")[0].split())
            raise ConfigError(f"compile: the network cannot be compiled here ({reason}); set it to false") from error
        self.optimiser.zero_grad(set_to_none=True)
        if self._captures:
            self._capture(*batch)
        return time.monotonic() - began

    def _capture(self, *batch: Tensor) -> None:
        """Record the step, unless a rehearsal finds an obstacle.

        Raises:
            ConfigError: the rehearsal found no obstacle, but the recording failed.
        """
        if not self.optimiser.state:
            self._make_moments()
        inputs = [x.clone() for x in batch]

        def gradients(*inputs: Tensor) -> Tensor:
            self.optimiser.zero_grad(set_to_none=True)
            return self._gradients(*inputs)

        self.uncaptured = capture.rehearse(gradients, inputs, self.device)
        self.optimiser.zero_grad(set_to_none=True)
        if self.uncaptured:
            return
        try:
            self._recording = capture.Recording(self._update, inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ConfigError(f"compile: the step cannot be captured in a CUDA graph ({error}); set it to false") from error

    def _make_moments(self) -> None:
        """Let Adam allocate its moments by a step of length 0 with gradient 0. If that were recorded, each replay would do it."""
        assert self._rate is not None
        rate = float(self._rate)
        self.set_rate(0.0)
        for p in self.parameters:
            p.grad = torch.zeros_like(p)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This instance was constructed with capturable=True")
            self.optimiser.step()
        for state in self.optimiser.state.values():
            state["step"].zero_()
        self.optimiser.zero_grad(set_to_none=True)
        self.set_rate(rate)

    def skipped(self) -> int:
        """The number of steps skipped so far because fp16 overflowed: the averages counted them, Adam did not."""
        if not self.scaler.is_enabled():
            return 0
        counts = [int(state["step"]) for state in self.optimiser.state.values()]
        return self.ema.updates - min(counts, default=self.ema.updates)

    def averaged(self, ema: EMA) -> dict[str, Tensor]:
        """The network's state dict, with an average in place of its parameters."""
        of = {id(p): average for p, average in zip(self.parameters, ema.averages, strict=True)}
        return {name: of.get(id(value), value.detach()) for name, value in self.network.state_dict(keep_vars=True).items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on: weights, optimiser, averages with their counters, loss scale."""
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "ema": self.ema.state_dict(),
            "more_emas": [ema.state_dict() for ema in self.averages[1:]],
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned, here or in another process."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self._recording = None  # it would use the moments from before
        for group in self.optimiser.param_groups:
            group["capturable"] = self._captures  # the state may be from a step that was captured, or was not
        if self._rate is not None:
            for group in self.optimiser.param_groups:
                self._rate.fill_(float(group["lr"]))
                group["lr"] = self._rate
        for ema, values in zip(self.averages, [state["ema"], *state["more_emas"]], strict=True):
            ema.load_state_dict(values)
        self.scaler.load_state_dict(state["scaler"])


def _can_capture(device: torch.device) -> bool:
    return device.type == "cuda"


def _obstacle(settings: TrainingSettings, group: Group) -> str:
    """Why these settings do not allow a CUDA graph; empty if they do."""
    if group.size > 1:
        return "several processes wait for each other"
    return "the scaler of fp16 decides on the CPU whether to make a step" if settings.precision == "fp16" else ""
