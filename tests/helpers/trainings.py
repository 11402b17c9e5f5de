"""Small trainings for tests: networks, objectives that misbehave, and a training with its checkpoints in a folder."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fmbench.config.methods import METHODS
from fmbench.config.training_settings import TrainingSettings
from fmbench.data.prepared import DataSet
from fmbench.flow.objectives import Objective, build
from fmbench.networks.mlp import MLP
from fmbench.networks.unet import UNet
from fmbench.store.checkpoint import CheckpointFolder
from fmbench.training.loop import train
from fmbench.training.run import SILENT, Listener, Outcome, TrainingRun

CPU = torch.device("cpu")
SETTINGS = TrainingSettings(
    iterations=30, batch_size=16, learning_rate=1e-3, warmup_iterations=4, checkpoint_every=10, log_every=4, ema_decay=0.9
)


class Interrupted(Exception):
    """Stands for a kill: nothing in the package catches it."""


class Spoiled:
    """An objective that at one iteration raises :class:`Interrupted` or, with a ``value``, multiplies its loss by it.

    Args:
        at: the iteration; never by default.
        first: the iteration of the first call.
    """

    def __init__(self, objective: Objective, at: int = -1, first: int = 0, value: float | None = None) -> None:
        self.objective, self.at, self.value, self.step = objective, at, value, first

    def loss(self, network: Any, x0: Tensor, x1: Tensor, u: Tensor) -> Tensor:
        step, self.step = self.step, self.step + 1
        loss = self.objective.loss(network, x0, x1, u)
        if step != self.at:
            return loss
        if self.value is None:
            raise Interrupted
        return loss * self.value


class Scaled:
    """An objective whose loss is a multiple of another's."""

    def __init__(self, objective: Objective, factor: float) -> None:
        self.objective, self.factor = objective, factor

    def loss(self, network: Any, x0: Tensor, x1: Tensor, u: Tensor) -> Tensor:
        return self.objective.loss(network, x0, x1, u) * self.factor


def fm_ot(at: int = -1, first: int = 0, value: float | None = None) -> Spoiled:
    """The objective of FM-OT, spoiled at one iteration."""
    return Spoiled(build(METHODS["fm_ot"]), at, first, value)


def network(dataset: DataSet, dropout: float = 0.0, width: int = 16) -> nn.Module:
    """A small network with initial weights that are always the same."""
    torch.manual_seed(11)
    if dataset.is_images:
        return UNet(dataset.shape, channels=8, channels_multiple=(1, 2), depth=1, head_channels=8, dropout=dropout)
    return MLP(dataset.shape, width=width, depth=2)


def run(
    dataset: DataSet,
    folder: Path,
    settings: TrainingSettings = SETTINGS,
    objective: Any = None,
    net: nn.Module | None = None,
    listener: Listener = SILENT,
    **changes: Any,
) -> tuple[Outcome, nn.Module]:
    """A training with its checkpoints in ``folder``; ``changes`` are other attributes of its :class:`TrainingRun`."""
    net = network(dataset) if net is None else net
    rest = {"seed": 5, "key": "key", "device": CPU} | changes
    with CheckpointFolder(folder) as checkpoints:
        outcome = train(TrainingRun(objective or fm_ot(), net, dataset, settings, **rest), checkpoints, listener)
    return outcome, net


def weights(net: nn.Module) -> bytes:
    """The bytes of a network's state dict."""
    return flat(net.state_dict())


def flat(tensors: dict[str, Tensor]) -> bytes:
    """The bytes of some tensors."""
    return b"".join(value.detach().contiguous().numpy().tobytes() for value in tensors.values())
