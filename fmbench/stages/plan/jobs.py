"""What each job of a data set or a model asks a cluster for: memory and time, from the counts of the plan.

Both are upper bounds, because a job that asks for too little is ended by the cluster. They are a constant for everything that is
not counted, and a multiple of the count. A job that still needs more gets more at its next attempt.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from fmbench.config.config import Config
from fmbench.config.datasets import DECODED, DECODERS
from fmbench.config.selections import super_resolved
from fmbench.networks.counting import Cost
from fmbench.stages.plan.hardware import GPUS, LEAST_STEP, evaluation_hours, traffic_per_byte, training_hours
from fmbench.stages.plan.memory import (
    activation_bytes,
    comparison_bytes,
    evaluator_bytes,
    features_bytes,
    likelihood_bytes,
    preparation_bytes,
    solve_bytes,
    state_bytes,
)
from fmbench.stages.plan.operations import (
    ADAPTIVE_NFE,
    classifier_training_flops,
    comparison_flops,
    dequantisation_passes,
    few_step_passes,
    likelihood_passes,
    neighbour_flops,
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
DECODING = 0.02
"""Seconds in which a process decodes an image file, resizes it and passes it on."""
WRITTEN = 2e7
"""Prepared bytes that a source makes or reads in a second, and that are checked, hashed and written."""


class Asked(TypedDict):
    """What a job asks for, and the seconds that were counted for it."""

    memory_mib: int
    minutes: int
    seconds: int


class Needs(TypedDict):
    """What jobs ask for, by data set and stage; those of a model by data set, method and stage."""

    datasets: dict[str, dict[str, Asked]]
    models: dict[str, dict[str, dict[str, Asked]]]


def needs(config: Config, results: Path) -> Needs:
    """What jobs ask for. Data sets that must be prepared first, so that they can be counted, are left out.

    Raises:
        ConfigError: a network cannot be run.
    """
    works = {name: read_workload(config, name, results) for name in config.datasets}
    known = {name: work for name, work in works.items() if work is not None and work.sizes is not None}
    return {
        "datasets": {name: _asked(_of_data(work)) for name, work in known.items()},
        "models": {name: {m.name: _asked(_of_method(work, m.name)) for m in config.methods} for name, work in known.items()},
    }


def _asked(counted: dict[str, tuple[float, float]]) -> dict[str, Asked]:
    return {
        stage: {"memory_mib": asked_memory(size), "minutes": asked_minutes(seconds), "seconds": round(seconds)}
        for stage, (size, seconds) in counted.items()
    }


def _of_data(work: Workload) -> dict[str, tuple[float, float]]:
    """Bytes and seconds of the jobs of a data set."""
    e, processes, (train, test) = work.evaluation, work.config.processes, work.sizes or (0, 0)
    _, every = _extractors(work)
    images = min(train, e.features.reference_n or train) + test
    found: dict[str, tuple[float, float]] = {
        "prepare": (preparation_bytes(work), preparation_seconds(work)),
        "features": (
            features_bytes(work) * processes,
            _classifier_seconds(work) + _seconds(work, images * every + neighbour_flops(work, test)),
        ),
    }
    if work.name in super_resolved(work.config):
        n = e.sample.n  # of test images and interpolated ones, the latter also against the test images
        compared = evaluator_bytes(work, n) + comparison_bytes(e.super_resolution.batch, work.shape)
        flops = 4 * n * every + n * comparison_flops(work.shape) + 3 * neighbour_flops(work, n)
        found["baselines"] = (compared, _seconds(work, flops))
    return found


def preparation_seconds(work: Workload) -> float:
    """Seconds of a preparation: of the files that are decoded, or of the bytes that are written. Downloads are not counted."""
    n = sum(work.sizes or ())
    decoded = work.config.dataset(work.name).data.source in DECODED
    return n * DECODING / DECODERS if decoded else n * work.stored / WRITTEN


def _classifier_seconds(work: Workload) -> float:
    """Seconds of the training of the in-DAG classifier, by one process. On a GPU its steps are bound by the launch of kernels."""
    flops, settings = classifier_training_flops(work), work.evaluation.features
    steps = settings.epochs * (work.sizes or (0, 0))[0] / settings.batch_size
    launched = LEAST_STEP * steps if flops and work.config.device != "cpu" else 0.0
    return max(_seconds(work, flops), launched)


def _of_method(work: Workload, method: str) -> dict[str, tuple[float, float]]:
    """Bytes and seconds of the jobs of one model."""
    resolved = work.config.method(method).resolve()
    oracle, teacher = resolved.oracle, resolved.teacher
    first, every = _extractors(work)
    n = work.evaluation.sample.n
    of_quality, neighbours = evaluator_bytes(work, n), neighbour_flops(work, n)
    of_curve, of_few = (evaluator_bytes(work, part.n) for part in (work.evaluation.learning_curve, work.evaluation.few_step))
    work = _solved_with(work, method)
    training = (0.0, 0.0) if oracle is not None else _training(work, method)
    snapshots = 0 if oracle is not None else len(work.config.training(work.name, method).snapshot_steps())
    e, solve, processes = work.evaluation, solve_bytes(work), work.config.processes
    nll = likelihood_bytes(work)
    samples = 4 * n * work.dimensions
    curve, few = e.learning_curve.n * snapshots, e.few_step.n * len(e.few_step.cells())
    flops = work.cost.flops
    found = {
        "train": training,
        "sample": (solve * processes, _seconds(work, (n + e.sample.shared_batch) * ADAPTIVE_NFE * flops)),
        "likelihood": (nll, _seconds(work, likelihood_passes(work) * flops)),
        "sweep": (solve, _seconds(work, sweep_passes(e) * flops)),
        "sample_quality": ((samples + of_quality) * processes, _seconds(work, n * every + neighbours)),
        "learning_curve": (solve + of_curve, _seconds(work, curve * (ADAPTIVE_NFE * flops + first))),
        "few_step": (solve + samples + of_few, _seconds(work, few_step_passes(work, method) * flops + few * first)),
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
            samples + of_quality + compared,
            _seconds(work, n * (every + comparison_flops(work.shape)) + neighbours),
        )
    if work.is_images:
        found["dequantisation"] = (nll, _seconds(work, dequantisation_passes(work) * flops))
    return found


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
    flops = [0 if cost is None else cost.flops for cost in work.extractors.values()]
    return (flops[0], sum(flops)) if flops else (0, 0)
