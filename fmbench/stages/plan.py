"""What a config costs before anything runs: parameters, operations, memory, iterations, disk, and hours by hardware.

Operations are counted by torch on tensors without storage, one image through the real network; memory of activations is what
autograd would keep of it. Hours are operations over a rate: of this machine from a short probe of the real training step and of
a forward pass, of a GPU from its data sheet and a utilisation, or bytes over its memory's bandwidth where that takes longer. A
GPU's peak rate goes with the precision of the training; evaluations run in float32 proper, since a solver's tolerance is finer
than TF32's rounding.
"""

import contextlib
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from fmbench import specs
from fmbench.config import Config, LikelihoodSettings
from fmbench.data.prepared import read
from fmbench.errors import ConfigError, DataError
from fmbench.extractors import make_extractor
from fmbench.names import sample_shape
from fmbench.objectives import build
from fmbench.records import PREVIEW_POINTS, STATES_IMAGES
from fmbench.stages.common import initial_network
from fmbench.training.step import Step
from fmbench.weights import problem

SIZES = {
    "digits": (1437, 360),
    "fashion_mnist": (60_000, 10_000),
    "cifar10": (50_000, 10_000),
    "imagenet_downsampled": (1_281_167, 50_000),
    "imagenet": (1_281_167, 50_000),
}
"""Training and test images of sources that always have the same."""
ADAPTIVE_NFE = 250
"""Evaluations of an adaptive solve that the estimate counts with: about the mean of the paper's Table 1, which has 122 to 601."""
STAGES_HELD = 10
"""States that dopri5 holds at once: seven stages, the state, its proposal and the error."""
UTILISATION, UTILISATION_FLOAT32 = 0.35, 0.6
"""The share of a GPU's peak rate that the estimate counts with: of tensor cores, which wait for memory, and without them."""
KEPT_AUTOCAST, KEPT_COMPILED = 0.75, 0.31
"""What 16-bit training keeps of the bytes that autograd keeps in float32, where norms put out float32 and where they are fused:
measured with the CIFAR-10 network on an H100 (benchmarks/README.md)."""
TRAFFIC_AUTOCAST, TRAFFIC_COMPILED = 27.6, 10.8
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
class DataSetPlan:
    """The cost of one data set.

    Attributes:
        shape: of a sample; parameters: of the network.
        forward_gflop: multiply-adds counted as two, one evaluation of one sample.
        train_gflop: one training step's share of one sample: forward and backward.
        state_gib: weights, gradients, Adam's moments and the averages; activation_mib: kept for the backward pass, a sample.
        batch_gib: state and the activations of what one process holds of a batch at once.
        sample_gib: the peak of sampling a batch; likelihood_gib: of the largest batch of a likelihood, activations and
            forward pass counted as if they peaked together. Weights are in both.
        precision: of the training; processes: of one training, each with a GPU; accumulation: micro-batches of a step.
        iterations, batch_size, samples_seen: of one training; models: how many trainings.
        train_pflop: all trainings; evaluate_pflop: all evaluations at the NFE assumed; features_pflop: feature extractors.
        disk_gib: checkpoints, weights and samples.
        cpu_samples_per_second: trained by this machine's probe, on the threads given; None where it would take too long.
        gpu_hours: of everything, each training on its processes' GPUs and everything else on one.
        notes: what the estimate leaves out.
    """

    dataset: str
    shape: list[int]
    parameters: int
    forward_gflop: float
    train_gflop: float
    state_gib: float
    activation_mib: float
    batch_gib: float
    sample_gib: float
    likelihood_gib: float
    precision: str
    processes: int
    accumulation: int
    iterations: int
    batch_size: int
    samples_seen: int
    models: int
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
        ConfigError: an unknown GPU.
    """
    unknown = [g for g in gpus if g not in GPUS]
    if unknown:
        raise ConfigError(f"unknown GPU {', '.join(unknown)}; known: {', '.join(GPUS)}")
    torch.set_num_threads(threads)
    plans = [plan(config, name, gpus, results, probe_seconds) for name in config.datasets]
    return {
        "datasets": [asdict(p) for p in plans],
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


def plan(config: Config, name: str, gpus: list[str], results: Path, probe_seconds: float) -> DataSetPlan:
    """The cost of one data set of a config."""
    notes: list[str] = []
    settings = config.dataset(name)
    trained = [m.name for m in config.methods if m.name not in specs.oracles(config)]
    if not trained:
        raise ConfigError("the config trains nothing: all its methods are oracles")
    if len(trained) < len(config.methods):
        notes.append("oracles are left out: they have no network")
    dataset = None
    with contextlib.suppress(DataError):
        dataset = read(results / "data" / name)
    shape = sample_shape(settings.data.source, settings.data.parameters) or (None if dataset is None else dataset.shape)
    if shape is None:
        raise ConfigError(f"the shape of {name} is known once it is prepared: run its preparation first, then plan")

    with torch.device("meta"):
        network = initial_network(settings.network.model_dump(), shape, 0)
    parameters = sum(p.numel() for p in network.parameters())
    forward = _flops(network, shape)
    activations = _activation_bytes(network, shape)
    training = config.training(name, trained[0])
    models = len(trained) * len(config.seeds)
    peak = _forward_bytes(network, shape)
    kept = activations  # evaluations are in float32, whatever the training's precision
    state = 4 * (5 + len(training.more_ema_decays)) * parameters  # float32: weights, gradients, two moments, the averages
    samples_seen = sum(config.training(name, m).iterations * config.training(name, m).batch_size for m in trained)
    samples_seen *= len(config.seeds)
    traffic = 0.0
    if training.precision in ("bf16", "fp16"):
        activations = int(activations * (KEPT_COMPILED if training.compile else KEPT_AUTOCAST))
        traffic = kept * samples_seen * (TRAFFIC_COMPILED if training.compile else TRAFFIC_AUTOCAST)
    at_once = training.batch_size // (config.processes * training.accumulation)

    evaluation = settings.evaluation
    solver = 4 * STAGES_HELD * int(torch.Size(shape).numel())
    in_likelihood = min(evaluation.likelihood.batch, evaluation.likelihood.n or evaluation.likelihood.batch)
    if len(shape) == 3:
        in_likelihood = max(in_likelihood, min(evaluation.draws.batch, evaluation.draws.n))
    sizes = SIZES.get(settings.data.source)
    if dataset is not None:
        splits = dataset.manifest["splits"]
        sizes = (splits["train"]["n"], splits["test"]["n"])
    n_test = evaluation.likelihood.n or (None if sizes is None else sizes[1])
    evaluations = (evaluation.sample.n + evaluation.sample.shared_batch) * ADAPTIVE_NFE
    evaluations += evaluation.sweep.n * (sum(cell.nfe for cell in evaluation.sweep.cells()) + evaluation.sweep.reference_nfe)
    if n_test is None:
        notes.append("the likelihood is left out: the number of test samples is known once the data set is prepared")
    else:
        evaluations += n_test * ADAPTIVE_NFE * _likelihood_passes(evaluation.likelihood, shape)
    evaluations += evaluation.budget.n * sum(cell.nfe for cell in evaluation.budget.cells())
    evaluations += evaluation.along.n * len(training.snapshot_steps()) * ADAPTIVE_NFE
    # States on the way are of the first seed only.
    on_the_way = evaluation.states.n or (STATES_IMAGES if len(shape) == 3 else PREVIEW_POINTS)
    evaluations += on_the_way * ADAPTIVE_NFE // len(config.seeds)
    if len(shape) == 3:
        draws = evaluation.draws
        evaluations += draws.n * max(draws.draws) * ADAPTIVE_NFE * (1 + 2 * draws.probes)

    extraction = 0
    if len(shape) == 3:
        extraction, left_out = _extraction(config, name, shape, sizes)
        notes += left_out

    train_flop, evaluate_flop = 3 * forward * samples_seen, forward * evaluations * models
    rates = None
    if probe_seconds > 0:
        rates = _probe(config, name, trained[0], shape, probe_seconds, 3 * forward)
        if rates is None:
            notes.append("no probe of this machine: one training step on one sample would take too long")
    cpu = None
    if rates is not None:  # extractors at the rate of the network's forward pass
        cpu = (samples_seen / rates[0] + (evaluations * models + extraction / forward) / rates[1]) / 3600
    steps = sum(config.training(name, m).iterations for m in trained) * len(config.seeds)

    def gpu_hours(gpu: Gpu) -> float:
        share = UTILISATION_FLOAT32 if training.precision == "fp32" else UTILISATION
        train_rate = share * gpu.peak(training.precision) * 1e12 * config.processes
        moved = traffic / (gpu.bandwidth * 1e12 * config.processes)
        trained = max(train_flop / train_rate, moved, steps * training.accumulation * LEAST_STEP)
        return (trained + (evaluate_flop + extraction) / (UTILISATION_FLOAT32 * gpu.float32 * 1e12)) / 3600

    return DataSetPlan(
        dataset=name,
        shape=list(shape),
        parameters=parameters,
        forward_gflop=forward / 1e9,
        train_gflop=3 * forward / 1e9,
        state_gib=state / 2**30,
        activation_mib=activations / 2**20,
        batch_gib=(state + activations * at_once) / 2**30,
        sample_gib=(4 * parameters + (peak + solver) * min(evaluation.sample.batch, evaluation.sample.n)) / 2**30,
        likelihood_gib=(4 * parameters + (peak + kept + solver) * in_likelihood) / 2**30,
        precision=training.precision,
        processes=config.processes,
        accumulation=training.accumulation,
        iterations=training.iterations,
        batch_size=training.batch_size,
        samples_seen=training.iterations * training.batch_size,
        models=models,
        train_pflop=train_flop / 1e15,
        evaluate_pflop=evaluate_flop / 1e15,
        features_pflop=extraction / 1e15,
        disk_gib=disk_bytes(config, name, shape, parameters) / 2**30,
        cpu_samples_per_second=None if rates is None else rates[0],
        cpu_hours=cpu,
        gpu_hours={g: gpu_hours(GPUS[g]) for g in gpus},
        notes=notes,
    )


def _extraction(config: Config, name: str, shape: tuple[int, ...], sizes: tuple[int, int] | None) -> tuple[int, list[str]]:
    """Operations of the feature extractors over samples, training and test images, and what is not counted."""
    settings, evaluation = config.dataset(name).evaluation.features, config.dataset(name).evaluation
    images, notes = evaluation.sample.n * len(config.methods) * len(config.seeds), []
    if sizes is None:
        notes.append("features of the data's own images are left out: how many there are is known once they are prepared")
    else:
        images += min(sizes[0], settings.reference_n or sizes[0]) + sizes[1]
    # Along training and at few evaluations there is the main distance alone, of the first extractor.
    trained = [m.name for m in config.methods if m.name not in specs.oracles(config)]
    more = sum(len(config.training(name, m).snapshot_steps()) for m in trained) * evaluation.along.n * len(config.seeds)
    more += (len(evaluation.budget.cells()) + 1) * evaluation.budget.n * len(config.methods) * len(config.seeds)
    total = 0
    for i, part in enumerate(settings.extractors()):
        judged = images + (0 if i else more)
        if part.extractor == "inception":
            from fmbench.inception import SIZE, build

            with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
                build()(torch.zeros(1, 3, SIZE, SIZE))
            total += judged * int(counter.get_total_flops())
        elif part.extractor == "efficientnet_lite0" and not problem(part.extractor, part.options):
            extractor = make_extractor(part.extractor, "cpu", **part.options)
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                extractor(torch.zeros(1, *shape, dtype=torch.uint8))
            total += judged * int(counter.get_total_flops())
        else:
            notes.append(f"the feature extractor {part.extractor} is not counted")
    return total, notes


def disk_bytes(config: Config, name: str, shape: tuple[int, ...], parameters: int) -> int:
    """What the checkpoints (two of each training), snapshots, averages, weights and samples of a data set take."""
    trained = [m.name for m in config.methods if m.name not in specs.oracles(config)]
    copies = 0  # of the weights: a checkpoint has them, two moments and each average, and snapshots are in two places
    for method in trained:
        training = config.training(name, method)
        averages = len(training.more_ema_decays)
        copies += 2 * (4 + averages) + 1 + averages + 2 * len(training.snapshot_steps())
    samples = 4 * config.dataset(name).evaluation.sample.n * int(torch.Size(shape).numel())
    return len(config.seeds) * (4 * parameters * copies + len(config.methods) * samples)


def parameter_count(config: Config, name: str, shape: tuple[int, ...]) -> int:
    """Parameters of a data set's network, without making it."""
    with torch.device("meta"):
        network = initial_network(config.dataset(name).network.model_dump(), shape, 0)
    return sum(p.numel() for p in network.parameters())


def _likelihood_passes(settings: LikelihoodSettings, shape: tuple[int, ...]) -> int:
    """Forward passes' worth of one evaluation of the joint solve: a vector-Jacobian product is two."""
    dimensions = int(torch.Size(shape).numel())
    return 1 + 2 * (dimensions if dimensions <= settings.exact_up_to else settings.probes)


def _inputs(shape: tuple[int, ...], batch: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((batch,), 0.5, device=device), torch.zeros(batch, *shape, device=device)


def _flops(network: nn.Module, shape: tuple[int, ...]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*_inputs(shape, 1, "meta"))
    return int(counter.get_total_flops())


def _activation_bytes(network: nn.Module, shape: tuple[int, ...]) -> int:
    """What autograd keeps of one sample, weights apart."""
    weights = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, torch.Tensor] = {}  # by storage: views of one tensor are kept once

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(*_inputs(shape, 1, "meta")).sum()
    return sum(t.untyped_storage().nbytes() for storage, t in kept.items() if storage not in weights)


class _Live(TorchDispatchMode):
    """The most bytes of tensors that operations made and that were alive at once, other than ``known`` ones and views of them."""

    def __init__(self, known: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self._born(tensor.untyped_storage())
        return out

    def _born(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def _forward_bytes(network: nn.Module, shape: tuple[int, ...]) -> int:
    """The peak of one sample's forward pass without gradients, weights apart."""
    inputs = _inputs(shape, 1, "meta")
    with torch.no_grad(), _Live([*network.parameters(), *network.buffers()]) as live:
        network(*inputs)
    return live.peak


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
        shape, at_once = " x ".join(map(str, p["shape"])), p["batch_size"] // (p["processes"] * p["accumulation"])
        lines += [
            f"{p['dataset']} ({shape})",
            f"  network      {p['parameters']:,} parameters, {p['forward_gflop']:.4g} GFLOP a forward pass of one sample",
            f"  training     {p['models']} models, each {p['iterations']:,} iterations x {p['batch_size']} = "
            f"{p['samples_seen']:,} samples; {p['train_pflop']:.4g} PFLOP in all",
            f"  evaluation   {p['evaluate_pflop']:.4g} PFLOP in all, at {plans['assumed']['nfe']} NFE a solve; "
            f"{p['features_pflop']:.4g} PFLOP of feature extractors",
            f"  memory       {p['state_gib']:.3g} GiB of state, {p['activation_mib']:.3g} MiB of activations a sample, "
            f"{p['batch_gib']:.3g} GiB for {'a batch' if at_once == p['batch_size'] else f'{at_once} samples at once'} in "
            f"{p['precision']}; {p['sample_gib']:.3g} GiB to sample a batch, {p['likelihood_gib']:.3g} GiB in the likelihood",
            f"  disk         {p['disk_gib']:.3g} GiB of checkpoints, weights and samples",
        ]
        if p["cpu_hours"] is not None:
            threads = plans["assumed"]["threads"]
            lines.append(
                f"  this machine {p['cpu_hours']:.3g} h on {threads} thread{'s' if threads > 1 else ''} "
                f"({p['cpu_samples_per_second']:.3g} samples a second in training)"
            )
        for gpu, hours in p["gpu_hours"].items():
            assumed = plans["assumed"]
            count = f"{p['processes']} in training, " if p["processes"] > 1 else ""
            share = assumed["gpu_utilisation_float32" if p["precision"] == "fp32" else "gpu_utilisation"]
            rate = (
                f"{count}{share:.0%} of its {p['precision']} peak in training and "
                f"{assumed['gpu_utilisation_float32']:.0%} of its float32 peak after, "
                f"and {assumed['gpu_least_step_seconds']:g} s a step at least; 16 bits are bounded by its memory, too"
            )
            lines.append(f"  {gpu:<12} {hours:.3g} h, assuming {rate}")
        lines += [f"  note: {note}" for note in p["notes"]]
    return "\n".join(lines)
