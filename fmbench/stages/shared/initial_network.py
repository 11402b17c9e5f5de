"""Networks with their initial weights: for every method the same, a function of the seed and of nothing else."""

from typing import Any

import torch
from torch import nn

from fmbench.data.prepared import DataSet
from fmbench.networks import build_network
from fmbench.system.rng import generator


def new_network(spec: dict[str, Any], dataset: DataSet) -> nn.Module:
    """The network of a training spec with its initial weights."""
    return initial_network(spec["network"], dataset.shape, spec["seed"])


def initial_network(settings: dict[str, Any], shape: tuple[int, ...], seed: int) -> nn.Module:
    """A network for samples of ``shape`` with its initial weights.

    Raises:
        ValueError: the settings contradict each other, or do not fit the shape.
    """
    settings = dict(settings)
    kind = settings.pop("kind")
    parameters = settings.pop("parameters", settings)
    # torch initialises layers from the global generator only. Seed it here, and restore it afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "network").initial_seed())
        network = build_network(kind, shape, parameters)
    if len(shape) == 3:
        network = network.to(memory_format=torch.channels_last)
    return network
