"""Bytes that a run takes: peaks of memory in training, solves and likelihoods, and what stays on disk."""

from fmbench.config.datasets import DECODED, DECODERS, STREAMED
from fmbench.config.evaluation_settings import DequantisationSettings, LikelihoodSettings
from fmbench.config.training_settings import TrainingSettings
from fmbench.networks.counting import Cost
from fmbench.stages.features import std_rows
from fmbench.stages.plan.operations import kept_references, trajectory_samples
from fmbench.stages.plan.workload import Workload, dimensions

STAGES_HELD = 10
"""States that dopri5 holds at once: seven stages, the state, its proposal and the error."""
KEPT_AUTOCAST, KEPT_COMPILED = 0.84, 0.35
"""Share that 16-bit training keeps of the bytes that autograd keeps in float32: with norms that return float32, and with norms
that torch.compile fuses. Measured with the CIFAR-10 network on an H100 (benchmarks/README.md)."""
KEPT_JUMPS = 8
"""How much more a loss of jumps holds at once, with the derivative of the network in forward mode: 4.3 and 8.2 times these bytes
at the peak, measured with the default networks of checkerboard and digits on a processor."""


FEATURE_BYTES = 20
"""Bytes of one feature of one sample: in float32, in float64, and a difference in float64."""
RAW_COPIES = 10
"""How often a source that makes or reads whole splits holds the bytes of a prepared sample: a point is made of two numbers in
float64 and two in int64, and their sum."""
DECODER_BYTES = 300 * 2**20
"""Bytes of a process that decodes images."""


def state_bytes(work: Workload, training: TrainingSettings) -> int:
    """Bytes that one process of a training holds between steps, in float32.

    These are weights, gradients, Adam's two moments, the averages, the buffers in which several processes exchange gradients,
    and the training split if it is on the device.
    """
    copies = 5 + len(training.more_ema_decays) + (work.config.processes > 1)
    return 4 * copies * work.cost.parameters + resident_bytes(work, training)


def resident_bytes(work: Workload, training: TrainingSettings) -> int:
    """Bytes of the training split on the device, with its mirrored copy if that fits too; 0 if the split is streamed."""
    if work.sizes is None:
        return 0
    size, room = work.sizes[0] * work.stored, training.resident_mib * 2**20
    if size > room:
        return 0
    return 2 * size if training.flips and 2 * size <= room else size


def activation_bytes(work: Workload, training: TrainingSettings, method: str) -> float:
    """Bytes that a training keeps of one sample for the backward pass."""
    cost = work.cost
    if work.config.method(method).jumps_too:
        return float(cost.kept) * KEPT_JUMPS
    if training.precision in ("bf16", "fp16"):
        return float(cost.kept) * (KEPT_COMPILED if training.compile else KEPT_AUTOCAST)
    return float(cost.kept)


def solve_bytes(work: Workload) -> int:
    """The peak of the solve with the most samples at once: sampling, sweep, learning curve, few-step samples, trajectories."""
    e = work.evaluation
    batches = [min(part.batch, part.n) for part in (e.sample, e.sweep, e.learning_curve, e.few_step)]
    batches += [e.sample.shared_batch, min(e.trajectory.batch, trajectory_samples(e, work.shape))]
    return 4 * work.cost.parameters + (work.cost.peak + _held(work)) * max(batches)


def likelihood_bytes(work: Workload) -> int:
    """The peak of the largest likelihood: that of the test split, or, for images, the NLL against K."""
    stages: list[LikelihoodSettings | DequantisationSettings] = [work.evaluation.likelihood]
    stages += [work.evaluation.dequantisation] if work.is_images else []
    most = 0
    for stage in stages:
        at_once = min(stage.batch, stage.n or stage.batch)
        most = max(most, (_divergence_peak(stage, work.cost, work.shape) + _held(work)) * at_once)
    return 4 * work.cost.parameters + most


def evaluator_bytes(work: Workload, n: int) -> int:
    """The peak of the comparison of n samples with a reference.

    Every extractor is held, one is at work on a batch, and the features of the samples, of the reference and of the test split
    are held in float32, in float64 and as a difference.
    """
    costs = [cost for cost in work.extractors.values() if cost is not None]
    at_work = max((min(cost.batch, n) * cost.peak for cost in costs), default=0)
    held = n + kept_references(work) + (work.sizes or (0, 0))[1]
    return sum(cost.weights for cost in costs) + at_work + FEATURE_BYTES * held * work.compared


def features_bytes(work: Workload) -> int:
    """The peak of the stage ``features``: the standard deviation of the data, the training of the classifier, or the floors."""
    train, test = work.sizes or (0, 0)
    deviation = 3 * 8 * min(train, std_rows(work.shape)) * work.dimensions
    cost, trained = work.extractors.get("classifier"), 0
    if cost is not None:  # weights, gradients and two moments, and a batch
        trained = 4 * cost.weights + min(work.evaluation.features.batch_size, train) * cost.kept
    return max(deviation, trained, evaluator_bytes(work, test))


def preparation_bytes(work: Workload) -> int:
    """The peak of a preparation: whole splits of most sources, and the processes that decode the images of the others."""
    source = work.config.dataset(work.name).data.source
    if source in DECODED:
        return DECODERS * DECODER_BYTES
    return 0 if source in STREAMED else RAW_COPIES * sum(work.sizes or ()) * work.stored


def comparison_bytes(batch: int, shape: tuple[int, ...]) -> int:
    """The peak of the comparison of upsampled images with their originals: SSIM holds about a dozen maps in float64."""
    return 8 * 12 * batch * dimensions(shape)


def _divergence_peak(stage: LikelihoodSettings | DequantisationSettings, cost: Cost, shape: tuple[int, ...]) -> int:
    """The peak of one evaluation of the field and its divergence, per sample."""
    if dimensions(shape) <= stage.exact_up_to:
        return cost.peak_vjps
    if stage.mode == "forward":
        return cost.peak_jvp or 2 * cost.peak
    return cost.peak_vjp if stage.probes == 1 else cost.peak_vjps


def _held(work: Workload) -> int:
    """Bytes that a solve holds of a sample beside the network's evaluation: the solver's states, and the condition."""
    return 4 * STAGES_HELD * work.dimensions + work.given


def disk_bytes(work: Workload) -> int:
    """Bytes of checkpoints, snapshots, averages, weights, samples, and of the prepared data if their number is known.

    Each training has two checkpoints: weights, two moments and the averages. Snapshots are kept in two places.
    """
    config, copies = work.config, 0  # copies of the weights
    for method in work.trained:
        training = config.training(work.name, method)
        averages = len(training.more_ema_decays)
        copies += 2 * (4 + averages) + 1 + averages + 2 * len(training.snapshot_steps())
    samples = 4 * work.evaluation.sample.n * work.dimensions
    data = sum(work.sizes or ()) * work.stored
    return data + len(config.seeds) * (4 * work.cost.parameters * copies + len(config.methods) * samples)
