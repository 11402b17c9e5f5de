"""What a config costs before anything runs: parameters, operations, memory, iterations, disk, and hours by hardware.

Operations and bytes are counted of one sample through the real network (:mod:`fmbench.networks.counting`). Hours are operations
over a rate: of this machine from a short probe of the real training step and of a forward pass, of a GPU from its data sheet
and a utilisation, or bytes over its memory's bandwidth where that takes longer. A GPU's peak rate goes with the precision of the
training; evaluations run in float32 proper, since a solver's tolerance is finer than TF32's rounding.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from fmbench.config import specs
from fmbench.config.config import Config
from fmbench.config.evaluation_settings import DequantisationSettings, EvaluationSettings, LikelihoodSettings
from fmbench.config.names import sample_shape, split_sizes
from fmbench.config.training_settings import TrainingSettings
from fmbench.data.prepared import DataSet, read
from fmbench.errors import ConfigError, DataError
from fmbench.flow.objectives import build
from fmbench.metrics.extractors import make_extractor
from fmbench.metrics.weights import problem
from fmbench.networks.counting import Cost, count
from fmbench.stages.common import initial_network
from fmbench.store.records import PREVIEW_POINTS, TRAJECTORY_IMAGES
from fmbench.training.step import Step

ADAPTIVE_NFE = 250
"""Evaluations of an adaptive solve that the estimate counts with: about the mean of the paper's Table 1, which has 122 to 601."""
STAGES_HELD = 10
"""States that dopri5 holds at once: seven stages, the state, its proposal and the error."""
UTILISATION, UTILISATION_FLOAT32 = 0.35, 0.6
"""The share of a GPU's peak rate that the estimate counts with: of tensor cores, which wait for memory, and without them."""
KEPT_AUTOCAST, KEPT_COMPILED = 0.84, 0.35
"""What 16-bit training keeps of the bytes that autograd keeps in float32, where norms put out float32 and where they are fused:
measured with the CIFAR-10 network on an H100 (benchmarks/README.md)."""
TRAFFIC_AUTOCAST, TRAFFIC_COMPILED = 31.1, 12.2
"""How often 16-bit training moves those bytes through a GPU's memory, which is what bounds it: measured likewise."""
LEAST_STEP = 0.01
"""Seconds that a GPU takes for a training step however small the network: a thousand kernels to launch."""


@dataclass(frozen=True)
class Gpu:
    """A GPU's data sheet: memory in GiB, its bandwidth in TB/s, and dense peak rates in TFLOP/s: of 16 bits, TF32, and float32
    without tensor cores."""

    memory: float
    bandwidth: float
    bfloat16: float
    tf32: float
    float32: float

    def peak(self, precision: str) -> float:
        """The rate of a training's products in TFLOP/s."""
        return {"fp32": self.float32, "tf32": self.tf32}.get(precision, self.bfloat16)


GPUS = {
    "h100": Gpu(80, 3.35, 989, 495, 67),
    "h200": Gpu(141, 4.8, 989, 495, 67),
    "a100": Gpu(80, 2.04, 312, 156, 19.5),
    "l40s": Gpu(48, 0.864, 362, 183, 91.6),
    "rtx4090": Gpu(24, 1.01, 165, 83, 82.6),
}


@dataclass
class TrainingPlan:
    """The trainings of methods that are trained alike.

    Attributes:
        methods: their names; models: one for each of them and each seed.
        precision: of the products; processes: of one training, each with a GPU; accumulation: micro-batches of a step.
        iterations, batch_size, samples_seen: of one training.
        state_gib: weights, gradients, Adam's moments, the averages, with several processes the gradients they exchange, and the
            training split where it is held on the device.
        activation_mib: kept for the backward pass, a sample.
        batch_gib: state and the activations of what one process holds of a batch at once.
        pflop: all of these trainings, forwards and backwards.
        gpu_hours: one after another, each on its processes' GPUs.
    """

    methods: list[str]
    models: int
    precision: str
    processes: int
    accumulation: int
    iterations: int
    batch_size: int
    samples_seen: int
    state_gib: float
    activation_mib: float
    batch_gib: float
    pflop: float
    gpu_hours: dict[str, float]


@dataclass
class DataSetPlan:
    """The cost of one data set.

    Attributes:
        shape: of a sample; parameters: of the network.
        forward_gflop: multiply-adds counted as two, one evaluation of one sample.
        train_gflop: one training step's share of one sample: forward and backward.
        trainings: what is trained, in the order of the config's methods; models: how many trainings.
        batch_gib: the peak of the training that takes most.
        sample_gib: the peak of the solve that takes most: sampling, sweep, budget, along the training, states.
        likelihood_gib: that of the largest batch of a likelihood. Weights are in both.
        train_pflop: all trainings; evaluate_pflop: all evaluations at the NFE assumed; features_pflop: feature extractors.
        disk_gib: prepared data, checkpoints, weights and samples.
        cpu_samples_per_second: trained by this machine's probe, on the threads given; None where it would take too long.
        gpu_hours: of everything, one job after another: training, sampling and features on as many GPUs as a training has
            processes, everything else on one.
        notes: what the estimate leaves out, and what does not fit.
    """

    dataset: str
    shape: list[int]
    parameters: int
    forward_gflop: float
    train_gflop: float
    trainings: list[TrainingPlan]
    models: int
    batch_gib: float
    sample_gib: float
    likelihood_gib: float
    train_pflop: float
    evaluate_pflop: float
    features_pflop: float
    disk_gib: float
    cpu_samples_per_second: float | None
    cpu_hours: float | None
    gpu_hours: dict[str, float]
    notes: list[str]


def run(config: Config, gpus: list[str], results: Path, probe_seconds: float, threads: int) -> dict[str, Any]:
    """The plan of every data set of a config, as plain values.

    Args:
        gpus: names of :data:`GPUS`.
        probe_seconds: how long this machine may be tried for each data set; 0 for not at all.

    Raises:
        ConfigError: an unknown GPU, a config that trains nothing, or a network that cannot be run.
    """
    unknown = [g for g in gpus if g not in GPUS]
    if unknown:
        raise ConfigError(f"unknown GPU {', '.join(unknown)}; known: {', '.join(GPUS)}")
    if not _trained(config):
        raise ConfigError("the config trains nothing: all its methods are oracles")
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
    """The cost of one data set of a config; None where the shape of a sample is known only once it is prepared."""
    settings, notes = config.dataset(name), []
    if len(_trained(config)) < len(config.methods):
        notes.append("oracles are left out: they have no network")
    dataset = None
    with contextlib.suppress(DataError):
        dataset = read(results / "data" / name)
    shape = sample_shape(settings.data.source, settings.data.parameters) or (None if dataset is None else dataset.shape)
    if shape is None:
        return None
    sizes = _sizes(config, name, dataset)
    cost = _cost(config, name, shape)
    evaluation = settings.evaluation

    alike: dict[str, list[str]] = {}
    for method in _trained(config):
        alike.setdefault(config.training(name, method).model_dump_json(), []).append(method)
    trainings = [_training(config, name, methods, cost, shape, sizes, gpus) for methods in alike.values()]
    models = len(_trained(config)) * len(config.seeds)

    if sizes is None:
        notes.append("the likelihood is left out where all test samples are asked for: how many is known once they are prepared")
        notes.append("prepared data are left out of disk and memory")
    sampled = (evaluation.sample.n + evaluation.sample.shared_batch) * ADAPTIVE_NFE * models * cost.flops
    evaluated = _evaluations(config, name, shape, None if sizes is None else sizes[1]) * cost.flops
    shared_features, more_features, left_out = _extraction(config, name, shape, sizes) if len(shape) == 3 else (0, 0, [])
    extraction = shared_features + more_features
    notes += left_out

    rates = None
    if probe_seconds > 0 and not cost.flops:
        notes.append("no probe of this machine: no operation of the network can be counted")
    elif probe_seconds > 0:
        rates = _probe(config, name, _trained(config)[0], shape, probe_seconds, 3 * cost.flops)
        if rates is None:
            notes.append("no probe of this machine: one training step on one sample would take too long")
    cpu = None
    if rates is not None:  # extractors at the rate of the network's forward pass
        seen = sum(t.samples_seen * t.models for t in trainings)
        cpu = (seen / rates[0] + (sampled + evaluated + extraction) / cost.flops / rates[1]) / 3600

    def gpu_hours(gpu: str) -> float:
        flop = (sampled + shared_features) / config.processes + evaluated + more_features
        evaluating = flop / (UTILISATION_FLOAT32 * GPUS[gpu].float32 * 1e12) / 3600
        return sum(t.gpu_hours[gpu] for t in trainings) + evaluating

    found = DataSetPlan(
        dataset=name,
        shape=list(shape),
        parameters=cost.parameters,
        forward_gflop=cost.flops / 1e9,
        train_gflop=3 * cost.flops / 1e9,
        trainings=trainings,
        models=models,
        batch_gib=max(t.batch_gib for t in trainings),
        sample_gib=_solve_bytes(evaluation, cost, shape) / 2**30,
        likelihood_gib=_likelihood_bytes(evaluation, cost, shape) / 2**30,
        train_pflop=sum(t.pflop for t in trainings),
        evaluate_pflop=(sampled + evaluated) / 1e15,
        features_pflop=extraction / 1e15,
        disk_gib=disk_bytes(config, name, shape, cost.parameters, sizes) / 2**30,
        cpu_samples_per_second=None if rates is None else rates[0],
        cpu_hours=cpu,
        gpu_hours={g: gpu_hours(g) for g in gpus},
        notes=notes,
    )
    for gpu in gpus:
        wanted = {"training": found.batch_gib, "sampling": found.sample_gib, "the likelihood": found.likelihood_gib}
        over = [f"{what} ({gib:.3g} GiB)" for what, gib in wanted.items() if gib > GPUS[gpu].memory]
        if over:
            notes.append(
                f"{' and '.join(over)} would not fit into the {GPUS[gpu].memory:g} GiB of a {gpu}: "
                "lower the batches, or raise accumulation or processes"
            )
    return found


def _trained(config: Config) -> list[str]:
    return [m.name for m in config.methods if m.name not in specs.oracles(config)]


def _sizes(config: Config, name: str, dataset: DataSet | None = None) -> tuple[int, int] | None:
    """Training and test samples, as far as they are known."""
    if dataset is not None:
        splits = dataset.manifest["splits"]
        return splits["train"]["n"], splits["test"]["n"]
    source = config.dataset(name).data
    return split_sizes(source.source, source.parameters)


def _cost(config: Config, name: str, shape: tuple[int, ...]) -> Cost:
    settings = config.dataset(name).network.model_dump()
    try:
        return count(lambda: initial_network(settings, shape, 0), shape)
    except Exception as error:  # a network of one's own may raise anything
        raise ConfigError(f"the network of {name} cannot be run on a sample of shape {shape}: {error}") from error


def _split_bytes(n: int, shape: tuple[int, ...]) -> int:
    """Images are kept as bytes, points as float32."""
    return n * int(torch.Size(shape).numel()) * (1 if len(shape) == 3 else 4)


def _training(
    config: Config,
    name: str,
    methods: list[str],
    cost: Cost,
    shape: tuple[int, ...],
    sizes: tuple[int, int] | None,
    gpus: list[str],
) -> TrainingPlan:
    training = config.training(name, methods[0])
    models = len(methods) * len(config.seeds)
    # float32: weights, gradients, two moments, the averages; processes exchange gradients in buffers of their own.
    copies = 5 + len(training.more_ema_decays) + (config.processes > 1)
    held = 4 * copies * cost.parameters + _resident_bytes(training, shape, sizes)
    samples = training.iterations * training.batch_size * models
    flop, activations, traffic = 3 * cost.flops * samples, float(cost.kept), 0.0
    if training.precision in ("bf16", "fp16"):
        activations *= KEPT_COMPILED if training.compile else KEPT_AUTOCAST
        traffic = cost.kept * samples * (TRAFFIC_COMPILED if training.compile else TRAFFIC_AUTOCAST)
    at_once = training.batch_size // (config.processes * training.accumulation)

    def hours(gpu: Gpu) -> float:
        share = UTILISATION_FLOAT32 if training.precision == "fp32" else UTILISATION
        computed = flop / (share * gpu.peak(training.precision) * 1e12 * config.processes)
        moved = traffic / (gpu.bandwidth * 1e12 * config.processes)
        return max(computed, moved, training.iterations * models * training.accumulation * LEAST_STEP) / 3600

    return TrainingPlan(
        methods=methods,
        models=models,
        precision=training.precision,
        processes=config.processes,
        accumulation=training.accumulation,
        iterations=training.iterations,
        batch_size=training.batch_size,
        samples_seen=training.iterations * training.batch_size,
        state_gib=held / 2**30,
        activation_mib=activations / 2**20,
        batch_gib=(held + activations * at_once) / 2**30,
        pflop=flop / 1e15,
        gpu_hours={g: hours(GPUS[g]) for g in gpus},
    )


def _resident_bytes(training: TrainingSettings, shape: tuple[int, ...], sizes: tuple[int, int] | None) -> int:
    """What of the training split lies on the device, with its mirrored copy where that fits, too."""
    if sizes is None:
        return 0
    size, room = _split_bytes(sizes[0], shape), training.resident_mib * 2**20
    if size > room:
        return 0
    return 2 * size if training.flips and 2 * size <= room else size


def _evaluations(config: Config, name: str, shape: tuple[int, ...], n_test: int | None) -> int:
    """Forward passes' worth of all evaluations but sampling, of one sample each, by all models.

    A vector-Jacobian product by the input is a forward pass's worth: weights that are not trained take none.
    """
    evaluation, dimensions = config.dataset(name).evaluation, int(torch.Size(shape).numel())
    models = len(_trained(config)) * len(config.seeds)

    def at_most(n: int | None) -> int:
        """Of the test split."""
        return min(x for x in (n, n_test) if x is not None) if n is not None or n_test is not None else 0

    def passes(probes: int, mode: str) -> int:
        return 2 * probes if mode == "forward" else 1 + probes  # in forward mode each probe is a pass with its derivative

    each = evaluation.sweep.n * (sum(cell.nfe for cell in evaluation.sweep.cells()) + evaluation.sweep.reference_nfe)
    likelihood = evaluation.likelihood
    exact = dimensions <= likelihood.exact_up_to
    by = 1 + dimensions if exact else passes(likelihood.probes, likelihood.mode)
    each += at_most(likelihood.n) * ADAPTIVE_NFE * by
    each += evaluation.few_step.n * sum(cell.nfe for cell in evaluation.few_step.cells())
    if len(shape) == 3:
        draws = evaluation.dequantisation
        # The exact estimate is beside the paper's, in a solve of its own; averaged probes have the paper's among them.
        exact = dimensions <= draws.exact_up_to
        by = 1 + dimensions + passes(1, draws.mode) if exact else passes(draws.probes, draws.mode)
        each += at_most(draws.n) * max(draws.draws) * ADAPTIVE_NFE * by
    total = each * models
    for method in _trained(config):
        along = evaluation.learning_curve.n * len(config.training(name, method).snapshot_steps())
        total += along * ADAPTIVE_NFE * len(config.seeds)
    # States on the way are of the first seed only.
    return total + _states(evaluation, shape) * ADAPTIVE_NFE * len(_trained(config))


def _states(evaluation: EvaluationSettings, shape: tuple[int, ...]) -> int:
    return evaluation.trajectory.n or (TRAJECTORY_IMAGES if len(shape) == 3 else PREVIEW_POINTS)


def _solve_bytes(evaluation: EvaluationSettings, cost: Cost, shape: tuple[int, ...]) -> int:
    """The peak of the solve with the most samples at once."""
    sample, sweep, along, budget = evaluation.sample, evaluation.sweep, evaluation.learning_curve, evaluation.few_step
    batches = [min(sample.batch, sample.n), sample.shared_batch, min(sweep.batch, sweep.n), min(along.batch, along.n)]
    batches += [min(budget.batch, budget.n), min(evaluation.trajectory.batch, _states(evaluation, shape))]
    solver = 4 * STAGES_HELD * int(torch.Size(shape).numel())
    return 4 * cost.parameters + (cost.peak + solver) * max(batches)


def _likelihood_bytes(evaluation: EvaluationSettings, cost: Cost, shape: tuple[int, ...]) -> int:
    """The peak of the likelihood that takes most: of the test split, or, of images, over dequantisation draws."""
    solver = 4 * STAGES_HELD * int(torch.Size(shape).numel())
    stages: list[LikelihoodSettings | DequantisationSettings] = [evaluation.likelihood]
    stages += [evaluation.dequantisation] if len(shape) == 3 else []
    most = 0
    for stage in stages:
        if int(torch.Size(shape).numel()) <= stage.exact_up_to:
            peak = cost.peak_vjps
        elif stage.mode == "forward":
            peak = cost.peak_jvp or 2 * cost.peak
        else:
            peak = cost.peak_vjp if stage.probes == 1 else cost.peak_vjps
        most = max(most, (peak + solver) * min(stage.batch, stage.n or stage.batch))
    return 4 * cost.parameters + most


def _extraction(config: Config, name: str, shape: tuple[int, ...], sizes: tuple[int, int] | None) -> tuple[int, int, list[str]]:
    """Operations of the feature extractors: of samples and the data's own images, of all else; and what is not counted."""
    settings, evaluation = config.dataset(name).evaluation.features, config.dataset(name).evaluation
    images, notes = evaluation.sample.n * len(config.methods) * len(config.seeds), []
    if sizes is None:
        notes.append("features of the data's own images are left out: how many there are is known once they are prepared")
    else:
        images += min(sizes[0], settings.reference_n or sizes[0]) + sizes[1]
    # Along training and at few evaluations there is the main distance alone, of the first extractor.
    snapshots = sum(len(config.training(name, m).snapshot_steps()) for m in _trained(config))
    more = snapshots * evaluation.learning_curve.n * len(config.seeds)
    more += (len(evaluation.few_step.cells()) + 1) * evaluation.few_step.n * len(config.methods) * len(config.seeds)
    total = besides = 0
    for i, part in enumerate(settings.extractors()):
        if part.extractor == "inception":
            from fmbench.metrics.inception import SIZE, build

            with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
                build()(torch.zeros(1, 3, SIZE, SIZE))
        elif part.extractor == "efficientnet_lite0" and not problem(part.extractor, part.options):
            extractor = make_extractor(part.extractor, "cpu", **part.options)
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                extractor(torch.zeros(1, *shape, dtype=torch.uint8))
        else:
            notes.append(f"the feature extractor {part.extractor} is not counted")
            continue
        total += images * int(counter.get_total_flops())
        besides += (0 if i else more) * int(counter.get_total_flops())
    return total, besides, notes


def disk_bytes(config: Config, name: str, shape: tuple[int, ...], parameters: int, sizes: tuple[int, int] | None = None) -> int:
    """What checkpoints (two of each training), snapshots, averages, weights, samples and prepared data of these sizes take."""
    copies = 0  # of the weights: a checkpoint has them, two moments and each average, and snapshots are in two places
    for method in _trained(config):
        training = config.training(name, method)
        averages = len(training.more_ema_decays)
        copies += 2 * (4 + averages) + 1 + averages + 2 * len(training.snapshot_steps())
    samples = 4 * config.dataset(name).evaluation.sample.n * int(torch.Size(shape).numel())
    data = 0 if sizes is None else _split_bytes(sum(sizes), shape)
    return data + len(config.seeds) * (4 * parameters * copies + len(config.methods) * samples)


def parameter_count(config: Config, name: str, shape: tuple[int, ...]) -> int:
    """Parameters of a data set's network."""
    return _cost(config, name, shape).parameters


def _probe(
    config: Config, name: str, method: str, shape: tuple[int, ...], seconds: float, flop_per_sample: float
) -> tuple[float, float] | None:
    """Samples a second on this machine: of the real training step in float32, not compiled, and of a forward pass alone."""
    if flop_per_sample / 2e10 > 4 * seconds:
        return None
    settings = config.training(name, method)
    network = initial_network(config.dataset(name).network.model_dump(), shape, 0)
    objective = build(config.method(method).resolve())
    batch = max(1, min(settings.batch_size, int(seconds / 4 * 2e10 / flop_per_sample)))
    x = torch.linspace(-1, 1, batch * int(torch.Size(shape).numel())).reshape(batch, *shape)
    u = torch.linspace(0.1, 0.9, batch)

    plain = settings.model_copy(update={"precision": "fp32", "compile": False, "accumulation": 1})
    step = Step(objective, network, plain, torch.device("cpu"))
    step.set_rate(1e-8)

    def forward() -> None:
        with torch.no_grad():
            network(u, x)

    trained = _rate(lambda: step(x.flip(0), x, u), seconds / 2)
    return batch * trained, batch * _rate(forward, seconds / 2)


def _rate(work: Callable[[], Any], seconds: float) -> float:
    """Calls a second."""
    work()
    done, began = 0, time.monotonic()
    while done == 0 or time.monotonic() - began < seconds:
        work()
        done += 1
    return done / (time.monotonic() - began)


def text(plans: dict[str, Any]) -> str:
    """The plan for reading."""
    lines = []
    for p in plans["datasets"]:
        assumed = plans["assumed"]
        lines += [
            f"{p['dataset']} ({' x '.join(map(str, p['shape']))})",
            f"  network      {p['parameters']:,} parameters, {p['forward_gflop']:.4g} GFLOP a forward pass of one sample",
        ]
        for t in p["trainings"]:
            at_once = t["batch_size"] // (t["processes"] * t["accumulation"])
            whose = "" if len(p["trainings"]) == 1 else f" of {', '.join(t['methods'])}"
            models = f"{t['models']} model{'s' if t['models'] > 1 else ''}{whose}"
            lines += [
                f"  training     {models}, each {t['iterations']:,} iterations x {t['batch_size']} = "
                f"{t['samples_seen']:,} samples; {t['pflop']:.4g} PFLOP in all",
                f"  its memory   {t['state_gib']:.3g} GiB of state, {t['activation_mib']:.3g} MiB of activations a sample, "
                f"{t['batch_gib']:.3g} GiB for {'a batch' if at_once == t['batch_size'] else f'{at_once} samples at once'} in "
                f"{t['precision']}",
            ]
        lines += [
            f"  evaluation   {p['evaluate_pflop']:.4g} PFLOP in all, at {assumed['nfe']} NFE a solve; "
            f"{p['features_pflop']:.4g} PFLOP of feature extractors",
            f"  its memory   {p['sample_gib']:.3g} GiB to sample a batch, {p['likelihood_gib']:.3g} GiB in the likelihood",
            f"  disk         {p['disk_gib']:.3g} GiB of data, checkpoints, weights and samples",
        ]
        if p["cpu_hours"] is not None:
            threads = assumed["threads"]
            lines.append(
                f"  this machine {p['cpu_hours']:.3g} h on {threads} thread{'s' if threads > 1 else ''} "
                f"({p['cpu_samples_per_second']:.3g} samples a second in training)"
            )
        most = max(p["trainings"], key=lambda t: t["pflop"])
        for gpu, hours in p["gpu_hours"].items():
            several = f"{most['processes']} in training, " if most["processes"] > 1 else ""
            share = assumed["gpu_utilisation_float32" if most["precision"] == "fp32" else "gpu_utilisation"]
            rate = (
                f"{several}{share:.0%} of its {most['precision']} peak in training and "
                f"{assumed['gpu_utilisation_float32']:.0%} of its float32 peak after, "
                f"and {assumed['gpu_least_step_seconds']:g} s a step at least; 16 bits are bounded by its memory, too"
            )
            lines.append(f"  {gpu:<12} {hours:.3g} h, assuming {rate}")
        lines += [f"  note: {note}" for note in p["notes"]]
    for name in plans["unknown"]:
        lines.append(f"{name}: the shape of its samples is known once it is prepared: run its preparation first, then plan")
    return "\n".join(lines)
