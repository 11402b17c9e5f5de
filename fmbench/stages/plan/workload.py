"""A data set of a config as the estimate sees it: the shape and number of its samples, and the cost of its network."""

import contextlib
import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import torch

from fmbench.config import selections, specs
from fmbench.config.config import Config
from fmbench.config.datasets import CLASSES, sample_shape, split_sizes
from fmbench.config.evaluation_settings import EvaluationSettings
from fmbench.config.hashing import canonical
from fmbench.config.plugins import RAISED, reason
from fmbench.data.conditions import UNCONDITIONAL, Condition
from fmbench.data.prepared import read
from fmbench.errors import ConfigError, DataError
from fmbench.networks.counting import Cost, count
from fmbench.stages.plan.extractors import ExtractorCost, extractor_cost
from fmbench.stages.shared.initial_network import expected_condition, initial_network

Sizes = tuple[int, int]
"""Training and test samples."""
UNKNOWN_FEATURES = 2048
"""Features of an extractor whose cost is not known beforehand: as many as Inception's."""


@dataclass(frozen=True)
class Workload:
    """A data set of a config, with the network that is trained on it."""

    config: Config
    name: str
    shape: tuple[int, ...]  # of one sample
    sizes: Sizes | None  # training and test samples; None if they are known only once the data are prepared
    cost: Cost  # of the network, for one sample
    condition: Condition = UNCONDITIONAL

    @cached_property
    def evaluation(self) -> EvaluationSettings:
        return self.config.dataset(self.name).evaluation

    @cached_property
    def trained(self) -> list[str]:
        return selections.trained(self.config)

    @cached_property
    def flows(self) -> list[str]:
        return selections.flows(self.config)

    @cached_property
    def extractors(self) -> dict[str, ExtractorCost | None]:
        """The feature extractors of images with their costs, those of the first one first; none for points."""
        if not self.is_images:
            return {}
        settings, classes = self.evaluation.features, CLASSES.get(self.config.dataset(self.name).data.source, 1000)
        return {part.extractor: extractor_cost(part, settings, self.shape, classes) for part in settings.extractors()}

    @property
    def compared(self) -> int:
        """The numbers of one sample that metrics compare: its features by all extractors, or the coordinates of a point."""
        costs = self.extractors.values()
        return sum(cost.features if cost else UNKNOWN_FEATURES for cost in costs) if self.is_images else self.dimensions

    def passes(self, method: str) -> int:
        """Forward passes of the network for a sample of a training step, whose backward pass counts as two."""
        return self.config.method(method).resolve().passes

    @property
    def models(self) -> int:
        """Trained models: one for each trained method and seed."""
        return len(self.trained) * len(self.config.seeds)

    @property
    def solved(self) -> int:
        """Trained models that are flows, which samples and likelihoods are solved with."""
        return len(self.flows) * len(self.config.seeds)

    @property
    def cost_of_field(self) -> int:
        """Evaluations of the network in one of a sampling field: 2 with guidance."""
        return 1 if self.evaluation.guidance == 1 else 2

    @property
    def dimensions(self) -> int:
        return dimensions(self.shape)

    @property
    def stored(self) -> int:
        """Bytes of a prepared sample, of bytes (images) or float32 (points), and of what its condition is made from."""
        return self.dimensions * (1 if self.is_images else 4) + self.condition.stored_bytes(self.shape)

    @property
    def given(self) -> int:
        """Bytes of the condition of a sample as networks take it."""
        return sum(tensor.nbytes for tensor in self.condition.example(1, self.shape, "meta"))

    @property
    def is_images(self) -> bool:
        """Whether samples are images (C, H, W), not points (D,)."""
        return len(self.shape) == 3


def read_workload(config: Config, name: str, results: Path) -> Workload | None:
    """A data set's workload; None if the shape of a sample is known only once the data are prepared.

    Raises:
        ConfigError: the network cannot be run on a sample of that shape.
    """
    data = config.dataset(name).data
    shape, sizes = sample_shape(data.source, data.parameters), split_sizes(data.source, data.parameters)
    dataset = None
    with contextlib.suppress(DataError):
        dataset = read(results / "data" / name)
        shape = shape or dataset.shape
        splits = dataset.manifest["splits"]
        sizes = splits["train"]["n"], splits["test"]["n"]
    if shape is None:
        return None
    condition = expected_condition(specs.prepare(config, name).get("condition"), data.source, dataset)
    return Workload(config, name, shape, sizes, network_cost(config, name, shape, condition), condition)


def network_cost(config: Config, name: str, shape: tuple[int, ...], condition: Condition = UNCONDITIONAL) -> Cost:
    """The cost of a data set's network for one sample of ``shape`` with its condition.

    Raises:
        ConfigError: the network cannot be run on such a sample.
    """
    try:
        return _counted(canonical(config.dataset(name).network.model_dump()), shape, condition)
    except RAISED as error:
        raise ConfigError(f"the network of {name} cannot be run on a sample of shape {shape}: {reason(error)}") from error


@cache
def _counted(settings: str, shape: tuple[int, ...], condition: Condition) -> Cost:
    """The cost of the network of ``settings``, in JSON. Data sets and configs share networks, so each is counted once."""
    return count(lambda: initial_network(json.loads(settings), shape, 0, condition), shape, condition.example)


def dimensions(shape: tuple[int, ...]) -> int:
    """The numbers that one sample of ``shape`` has."""
    return int(torch.Size(shape).numel())
