"""What each job asks a cluster for: memory and time, from the counts of the plan.

Both are upper bounds, because a job that asks for too little is ended by the cluster. They are a constant for everything that is
not counted, and a multiple of the count. A job that still needs more gets more at its next attempt.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from fmbench.config.config import Config
from fmbench.config.selections import super_resolved
from fmbench.networks.counting import Cost
from fmbench.stages.plan.hardware import GPUS, evaluation_hours, traffic_per_byte, training_hours
from fmbench.stages.plan.memory import activation_bytes, comparison_bytes, likelihood_bytes, solve_bytes, state_bytes
from fmbench.stages.plan.operations import (
    ADAPTIVE_NFE,
    comparison_flops,
    dequantisation_passes,
    extractor_flops,
    few_step_passes,
    likelihood_passes,
    pairs_of,
    sweep_passes,
    trajectory_samples,
)
from fmbench.stages.plan.probe import SLOW_FLOPS
from fmbench.stages.plan.workload import Workload, read_workload

BASE_MIB, MEMORY_FACTOR = 3000, 1.5
"""Memory that is not counted (Python, torch, a GPU's context: 1 to 3 GB), and what an allocator takes for each counted byte."""
BASE_MINUTES, TIME_FACTOR = 30, 4
"""Time that is not counted (a slow disk, the start), and a factor for slower hardware, other jobs and more than 250 NFE."""
GPU = "h100"
"""The GPU that the time is counted for."""
FEATURE_BYTES = 16 * 2048
"""Bytes for the features of one image: 2048 numbers in float64, and a copy."""

Needs = dict[str, dict[str, dict[str, tuple[int, int]]]]
"""For each data set, method and stage: memory in MiB and time in minutes."""


def needs(config: Config, results: Path) -> Needs:
    """What the jobs of each model ask for. Data sets that must be prepared first, so that they can be counted, are left out.

    Raises:
        ConfigError: a network cannot be run.
    """
    works = {name: read_workload(config, name, results) for name in config.datasets}
    return {
        name: {method.name: _of_method(work, method.name) for method in config.methods}
        for name, work in works.items()
        if work is not None and work.sizes is not None
    }


def _of_method(work: Workload, method: str) -> dict[str, tuple[int, int]]:
    """The needs of the jobs of one model."""
    resolved = work.config.method(method).resolve()
    oracle, teacher = resolved.oracle, resolved.teacher
    work = _solved_with(work, method)
    training = (0.0, 0.0) if oracle is not None else _training(work, method)
    snapshots = 0 if oracle is not None else len(work.config.training(work.name, method).snapshot_steps())
    e, solve, processes = work.evaluation, solve_bytes(work), work.config.processes
    nll = likelihood_bytes(work)
    features = 4 * e.sample.n * work.dimensions + FEATURE_BYTES * e.sample.n
    first, every = _extractors(work)
    curve, few = e.learning_curve.n * snapshots, e.few_step.n * len(e.few_step.cells())
    flops = work.cost.flops
    found = {
        "train": training,
        "sample": (solve * processes, _seconds(work, (e.sample.n + e.sample.shared_batch) * ADAPTIVE_NFE * flops)),
        "likelihood": (nll, _seconds(work, likelihood_passes(work) * flops)),
        "sweep": (solve, _seconds(work, sweep_passes(e) * flops)),
        "sample_quality": (features * processes, _seconds(work, e.sample.n * every)),
        "learning_curve": (solve + features, _seconds(work, curve * (ADAPTIVE_NFE * flops + first))),
        "few_step": (solve + features, _seconds(work, few_step_passes(work, method) * flops + few * first)),
        "trajectory": (solve, _seconds(work, trajectory_samples(e, work.shape) * ADAPTIVE_NFE * flops)),
    }
    if teacher is not None:
        pairs = pairs_of(work.config, method)
        ends, of = 2 * 4 * pairs * work.dimensions, _solved_with(work, teacher.name)
        found["pairs"] = (solve_bytes(of) + ends, _seconds(work, pairs * ADAPTIVE_NFE * of.cost.flops))
        found["train"] = (found["train"][0] + ends, found["train"][1])
    if work.name in super_resolved(work.config):
        compared = comparison_bytes(e.super_resolution.batch, work.shape)
        found["super_resolution"] = (
            features + compared,
            _seconds(work, e.sample.n * (every + comparison_flops(work.shape))),
        )
    if work.is_images:
        found["dequantisation"] = (nll, _seconds(work, dequantisation_passes(work) * flops))
    return {stage: (asked_memory(size), asked_minutes(seconds)) for stage, (size, seconds) in found.items()}


def _solved_with(work: Workload, method: str) -> Workload:
    """The workload with the cost of a method's field: that of an oracle's is not its network's."""
    oracle = work.config.method(method).resolve().oracle
    return work if oracle is None else replace(work, cost=oracle_cost(oracle, work))


def asked_memory(size: float) -> int:
    """MiB to ask for, from the bytes that were counted."""
    return round(BASE_MIB + MEMORY_FACTOR * size / 2**20)


def asked_minutes(seconds: float) -> int:
    """Minutes to ask for, from the seconds that were counted."""
    return round(BASE_MINUTES + TIME_FACTOR * seconds / 60)


def oracle_cost(oracle: dict[str, Any], work: Workload) -> Cost:
    """The cost of an oracle's field for one sample: distances to its points, a softmax over them, and their mean."""
    train = 0 if work.sizes is None else work.sizes[0]
    points = min(oracle["points"] or train, train)
    numbers = 4 * points
    return Cost(points * work.dimensions, 6 * points * work.dimensions, 0, 3 * numbers, 6 * numbers, 8 * numbers, 6 * numbers)


def _training(work: Workload, method: str) -> tuple[float, float]:
    """Bytes of all processes of a training, and its seconds."""
    training, processes = work.config.training(work.name, method), work.config.processes
    at_once = training.batch_size // (processes * training.accumulation)
    size = state_bytes(work, training) + activation_bytes(work, training, method) * at_once
    samples = training.iterations * training.batch_size
    flop = work.passes(method) * work.cost.flops * samples
    if work.config.device == "cpu":
        return size * processes, flop / SLOW_FLOPS
    traffic = work.cost.kept * samples * traffic_per_byte(training.precision, training.compile)
    steps = training.iterations * training.accumulation
    hours = training_hours(GPUS[GPU], training.precision, processes, flop=flop, traffic=traffic, steps=steps)
    return size * processes, 3600 * hours


def _seconds(work: Workload, flop: float) -> float:
    """Seconds of evaluations on one GPU, or on one thread."""
    return flop / SLOW_FLOPS if work.config.device == "cpu" else 3600 * evaluation_hours(GPUS[GPU], flop)


def _extractors(work: Workload) -> tuple[int, int]:
    """Operations of the first feature extractor and of all of them on one image; 0 for those that are not known beforehand."""
    if not work.is_images:
        return 0, 0
    flops = [extractor_flops(extractor, work.shape) or 0 for extractor in work.evaluation.features.extractors()]
    return flops[0], sum(flops)
