"""What a training is given, what it tells while it runs, and what it returns."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fmbench.config.training_settings import TrainingSettings
from fmbench.data.prepared import DataSet
from fmbench.flow.couplings import INDEPENDENT, Coupling
from fmbench.flow.starts import NOISE, Start
from fmbench.system.distributed import ALONE, Group
from fmbench.training.batches import Batches
from fmbench.training.pairs import PairBatches
from fmbench.training.step import HasLoss

Entry = tuple[int, float, float]
"""An entry of the loss curve: the iteration, the mean loss since the entry before, the learning rate."""


@dataclass(frozen=True)
class TrainingRun:
    """What is trained, on which data, how, and by which processes.

    Attributes:
        network: trained in place.
        key: hash of everything that the training depends on. A checkpoint with another key is not used.
        group: the processes that train together. Each calls ``train`` itself; only the first writes, and only it holds the lock.
        start: where the paths of the objective start.
        coupling: which noise goes with which data.
        pairs: noise and samples (N, *) to train on in place of the data; None for the data.
    """

    objective: HasLoss
    network: nn.Module
    dataset: DataSet
    settings: TrainingSettings
    seed: int
    key: str
    device: torch.device
    group: Group = ALONE
    start: Start = NOISE
    coupling: Coupling = INDEPENDENT
    pairs: tuple[Tensor, Tensor] | None = None

    def batches(self) -> Batches | PairBatches:
        """The batch of each iteration.

        Raises:
            ConfigError: the settings do not go with the data.
        """
        if self.pairs is not None:
            return PairBatches(*self.pairs, self.settings, self.seed, self.device, self.group)
        return Batches(self.dataset, self.settings, self.seed, self.device, self.group, self.start, self.coupling)


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Listener:
    """Functions that a training calls.

    Attributes:
        on_log: called with each new entry of the loss curve, every ``log_every`` iterations.
        on_checkpoint: called before each checkpoint is written, to save whatever must not be lost.
        on_resume: called with the iteration and the curve of the checkpoint that the training resumes from.
        tell: called with each complaint and note as soon as it arises, so that none is lost if the process is killed later.
    """

    on_log: Callable[[int, float, float], None] = _ignore
    on_checkpoint: Callable[[], None] = _ignore
    on_resume: Callable[[int, list[Entry]], None] = _ignore
    tell: Callable[[str], None] = _ignore


SILENT = Listener()


@dataclass
class Outcome:
    """How a training ended."""

    step: int = 0  # iterations done. After a divergence, those of the last good checkpoint, whose weights the network then has
    curve: list[Entry] = field(default_factory=list)
    reason: str = ""  # why it stopped early; empty if it did not
    seconds: float = 0.0  # time in the loop up to the last checkpoint, of all attempts that led there, without compilation
    resumed_from: int = 0
    complaints: list[str] = field(default_factory=list)
    compile_seconds: float | None = None  # time that this attempt took to compile; None without compilation
    notes: list[str] = field(default_factory=list)  # what a user should know about how it ran
    skipped: int = 0  # steps that fp16 skipped because of an overflow
    snapshots: list[int] = field(default_factory=list)  # the iterations up to ``step`` whose averaged weights were kept
    averages: dict[float, dict[str, Tensor]] = field(default_factory=dict)  # the state dicts of the further averages, by decay
