"""The estimate of a config: the cost of every data set, from operations, memory, disk and hardware."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fmbench.config import selections
from fmbench.config.config import Config
from fmbench.errors import ConfigError
from fmbench.stages.plan.hardware import (
    GPUS,
    LEAST_STEP,
    TRAFFIC_AUTOCAST,
    TRAFFIC_COMPILED,
    UTILISATION,
    UTILISATION_FLOAT32,
    evaluation_hours,
    traffic_per_byte,
    training_hours,
)
from fmbench.stages.plan.memory import activation_bytes, disk_bytes, likelihood_bytes, solve_bytes, state_bytes
from fmbench.stages.plan.operations import ADAPTIVE_NFE, EvaluationWork, evaluation_work
from fmbench.stages.plan.probe import probe
from fmbench.stages.plan.workload import Workload, read_workload


@dataclass
class TrainingPlan:
    """The cost of the trainings of methods with equal training settings and equal passes of the network."""

    methods: list[str]
    models: int  # trainings: one for each of these methods and each seed
    precision: str
    processes: int  # of one training, each with a GPU
    accumulation: int  # micro-batches of a step
    iterations: int
    batch_size: int
    samples_seen: int  # of one training
    passes: int  # of the network for each of them, in forward passes; a backward pass counts as two
    state_gib: float  # held by one process between steps
    activation_mib: float  # kept for the backward pass, per sample
    batch_gib: float  # the state, and the activations of the samples that one process holds at once
    pflop: float  # of all these trainings, forward and backward
    gpu_hours: dict[str, float]  # of all these trainings one after another, by the name of the GPU


@dataclass
class DataSetPlan:
    """The cost of one data set. Multiply-adds count as two operations.

    Hours on a GPU are those of one job after another. Training, sampling and the features of samples run on as many GPUs as a
    training has processes, everything else on one.
    """

    dataset: str
    shape: list[int]
    parameters: int
    forward_gflop: float  # one evaluation of one sample
    train_gflop: float  # one sample's share of a training step, forward and backward, without a loss of jumps
    trainings: list[TrainingPlan]  # in the order of the config's methods
    models: int  # trainings in all
    batch_gib: float  # the peak of the largest training
    sample_gib: float  # the peak of the largest solve of any stage, weights included
    likelihood_gib: float  # the peak of the largest batch of a likelihood, weights included
    train_pflop: float
    evaluate_pflop: float  # all evaluations of the networks, at the NFE assumed
    features_pflop: float  # feature extractors
    disk_gib: float  # prepared data, checkpoints, weights and samples
    cpu_samples_per_second: float | None  # in training, by this machine's probe; None without a probe
    cpu_hours: float | None  # of everything on this machine; None without a probe
    gpu_hours: dict[str, float]
    notes: list[str]  # what the estimate leaves out, and what does not fit


def run(config: Config, gpus: list[str], results: Path, probe_seconds: float, threads: int) -> dict[str, Any]:
    """The plan of every data set of a config, as plain values.

    Args:
        gpus: names of :data:`~fmbench.stages.plan.hardware.GPUS`.
        results: the results folder, which may hold prepared data.
        probe_seconds: how long this machine may be tried for each data set; 0 for not at all.

    Raises:
        ConfigError: an unknown GPU, a config that trains nothing, or a network that cannot be run.
    """
    unknown = [gpu for gpu in gpus if gpu not in GPUS]
    if unknown:
        raise ConfigError(f"unknown GPU {', '.join(unknown)}; known: {', '.join(GPUS)}")
    if not selections.trained(config):
        raise ConfigError("the config trains nothing, because all its methods are oracles; add a method that is trained")
    torch.set_num_threads(threads)
    plans = {name: plan(config, name, gpus, results, probe_seconds) for name in config.datasets}
    return {
        "datasets": [asdict(p) for p in plans.values() if p is not None],
        "unknown": [name for name, p in plans.items() if p is None],
        "assumed": {
            "nfe": ADAPTIVE_NFE,
            "gpu_utilisation": UTILISATION,
            "gpu_utilisation_float32": UTILISATION_FLOAT32,
            "gpu_memory_passes": [TRAFFIC_COMPILED, TRAFFIC_AUTOCAST],
            "gpu_rate": "peak of the training's precision; float32 peak in evaluations",
            "gpu_least_step_seconds": LEAST_STEP,
            "threads": threads,
        },
    }


def plan(config: Config, name: str, gpus: list[str], results: Path, probe_seconds: float) -> DataSetPlan | None:
    """The cost of one data set; None if the shape of a sample is known only once the data are prepared.

    Raises:
        ConfigError: the network cannot be run.
    """
    work = read_workload(config, name, results)
    if work is None:
        return None
    cost, evaluation = work.cost, evaluation_work(work)
    trainings = [_plan_training(work, methods, gpus) for methods in _alike(work)]
    rates, probe_notes = _probe(work, probe_seconds)
    peaks = {
        "training": max(t.batch_gib for t in trainings),
        "sampling": solve_bytes(work) / 2**30,
        "the likelihood": likelihood_bytes(work) / 2**30,
    }
    return DataSetPlan(
        dataset=name,
        shape=list(work.shape),
        parameters=cost.parameters,
        forward_gflop=cost.flops / 1e9,
        train_gflop=3 * cost.flops / 1e9,
        trainings=trainings,
        models=work.models,
        batch_gib=peaks["training"],
        sample_gib=peaks["sampling"],
        likelihood_gib=peaks["the likelihood"],
        train_pflop=sum(t.pflop for t in trainings),
        evaluate_pflop=evaluation.passes / 1e15,
        features_pflop=evaluation.features / 1e15,
        disk_gib=disk_bytes(work) / 2**30,
        cpu_samples_per_second=None if rates is None else rates[0],
        cpu_hours=None if rates is None else _cpu_hours(work, trainings, evaluation, rates),
        gpu_hours={gpu: _gpu_hours(work, trainings, evaluation, gpu) for gpu in gpus},
        notes=[*_left_out(work), *evaluation.notes, *probe_notes, *_too_large(peaks, gpus)],
    )


def _alike(work: Workload) -> list[list[str]]:
    """The trained methods, those with equal training settings and equal passes together."""
    alike: dict[tuple[str, int], list[str]] = {}
    for method in work.trained:
        settings = work.config.training(work.name, method).model_dump_json()
        alike.setdefault((settings, work.passes(method)), []).append(method)
    return list(alike.values())


def _plan_training(work: Workload, methods: list[str], gpus: list[str]) -> TrainingPlan:
    training, processes = work.config.training(work.name, methods[0]), work.config.processes
    models, passes = len(methods) * len(work.config.seeds), work.passes(methods[0])
    samples = training.iterations * training.batch_size * models
    flop = passes * work.cost.flops * samples
    traffic = passes / 3 * work.cost.kept * samples * traffic_per_byte(training.precision, training.compile)
    steps = training.iterations * models * training.accumulation

    def hours(gpu: str) -> float:
        return training_hours(GPUS[gpu], training.precision, processes, flop=flop, traffic=traffic, steps=steps)

    state, activations = state_bytes(work, training), activation_bytes(work, training, methods[0])
    at_once = training.batch_size // (processes * training.accumulation)
    return TrainingPlan(
        methods=methods,
        models=models,
        precision=training.precision,
        processes=processes,
        accumulation=training.accumulation,
        iterations=training.iterations,
        batch_size=training.batch_size,
        samples_seen=training.iterations * training.batch_size,
        passes=passes,
        state_gib=state / 2**30,
        activation_mib=activations / 2**20,
        batch_gib=(state + activations * at_once) / 2**30,
        pflop=flop / 1e15,
        gpu_hours={gpu: hours(gpu) for gpu in gpus},
    )


def _gpu_hours(work: Workload, trainings: list[TrainingPlan], evaluation: EvaluationWork, gpu: str) -> float:
    shared = (evaluation.sampling + evaluation.shared_features) / work.config.processes
    flop = shared + evaluation.other_passes + evaluation.other_features
    return sum(t.gpu_hours[gpu] for t in trainings) + evaluation_hours(GPUS[gpu], flop)


def _cpu_hours(work: Workload, trainings: list[TrainingPlan], evaluation: EvaluationWork, rates: tuple[float, float]) -> float:
    """Hours on this machine at the probe's rates. Extractors run at the rate of the network's forward pass."""
    seen = sum(t.samples_seen * t.models * t.passes / trainings[0].passes for t in trainings)
    return (seen / rates[0] + (evaluation.passes + evaluation.features) / work.cost.flops / rates[1]) / 3600


def _probe(work: Workload, seconds: float) -> tuple[tuple[float, float] | None, list[str]]:
    """This machine's rates, and a note where there are none although a probe was asked for."""
    if seconds <= 0:
        return None, []
    if not work.cost.flops:
        return None, ["no probe of this machine: no operation of the network can be counted"]
    rates = probe(work, seconds)
    return rates, [] if rates else ["no probe of this machine: one training step on one sample would take too long"]


def _left_out(work: Workload) -> list[str]:
    notes = []
    if len(work.trained) < len(work.config.methods):
        notes.append("oracles are left out: they have no network")
    if work.sizes is None:
        notes.append("a likelihood of all test samples is left out: their number is known once the data are prepared")
        notes.append("prepared data are left out of disk and memory")
    return notes


def _too_large(peaks: dict[str, float], gpus: list[str]) -> list[str]:
    """A note for each GPU whose memory is less than one of the peaks in GiB."""
    notes = []
    for gpu in gpus:
        over = [f"{what} ({gib:.3g} GiB)" for what, gib in peaks.items() if gib > GPUS[gpu].memory]
        if over:
            notes.append(
                f"{' and '.join(over)} would not fit into the {GPUS[gpu].memory:g} GiB of a {gpu}: "
                "lower the batches, or raise accumulation or processes"
            )
    return notes
