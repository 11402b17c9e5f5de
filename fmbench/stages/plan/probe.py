"""A short trial of this machine: the real training step in float32, and the network's forward pass."""

import time
from collections.abc import Callable
from typing import Any

import torch

from fmbench.flow.regression import build_loss
from fmbench.stages.plan.workload import Workload, dimensions
from fmbench.stages.shared.initial_network import initial_network
from fmbench.training.step import Step

SLOW_FLOPS = 2e10
"""A rate in FLOP/s that the probe's batch is sized for."""


def probe(work: Workload, seconds: float) -> tuple[float, float] | None:
    """Samples per second on this machine, in training (not compiled) and in forward passes alone.

    Args:
        seconds: how long the probe may take; each of the two rates gets half.

    Returns:
        The two rates; None if one training step on one sample would take too long.
    """
    flop = 3 * work.cost.flops
    if flop / SLOW_FLOPS > 4 * seconds:
        return None
    config, method = work.config, work.trained[0]
    settings = config.training(work.name, method)
    network = initial_network(config.dataset(work.name).network.model_dump(), work.shape, 0, work.condition)
    batch = max(1, min(settings.batch_size, int(seconds / 4 * SLOW_FLOPS / flop)))
    x = torch.linspace(-1, 1, batch * dimensions(work.shape)).reshape(batch, *work.shape)
    u = torch.linspace(0.1, 0.9, batch)
    condition = work.condition.example(batch, work.shape, "cpu")

    plain = settings.model_copy(update={"precision": "fp32", "compile": False, "accumulation": 1})
    step = Step(build_loss(config.method(method).resolve()), network, plain, torch.device("cpu"))
    step.set_rate(1e-8)

    def forward() -> None:
        with torch.no_grad():
            network(u, x, *condition)

    trained = calls_per_second(lambda: step(x.flip(0), x, u, *condition), seconds / 2)
    return batch * trained, batch * calls_per_second(forward, seconds / 2)


def calls_per_second(work: Callable[[], Any], seconds: float) -> float:
    """How often ``work`` runs in a second, tried for ``seconds`` after one call to warm up."""
    work()
    done, began = 0, time.monotonic()
    while done == 0 or time.monotonic() - began < seconds:
        work()
        done += 1
    return done / (time.monotonic() - began)
