"""Operations of the evaluations: forward passes of the network, and feature extractors.

Passes are counted for one sample each, over all models. A vector-Jacobian product by the input counts as one forward pass,
since weights that are not trained need no gradients.
"""

from dataclasses import dataclass

from fmbench.config.config import Config
from fmbench.config.evaluation_settings import DequantisationSettings, EvaluationSettings, LikelihoodSettings
from fmbench.config.methods import TEACHER
from fmbench.config.selections import super_resolved
from fmbench.stages.evaluators.references import KEPT
from fmbench.stages.plan.workload import Workload
from fmbench.store.previews import PREVIEW_POINTS, TRAJECTORY_IMAGES

ADAPTIVE_NFE = 250
"""NFE that the estimate counts an adaptive solve with: about the mean of the paper's Table 1, which has 122 to 601."""
NEIGHBOUR_PASSES = 6
"""Comparisons of all pairs of features: two of precision and recall, one of density, three of the metrics of memorisation."""


@dataclass(frozen=True)
class EvaluationWork:
    """Operations of all evaluations of a data set, as FLOP."""

    sampling: int  # the samples that metrics are computed from; processes share them
    other_passes: int  # all other evaluations of the networks
    shared_features: int  # extractors on those samples and on the data's own images; processes share them
    other_features: int  # extractors on learning curves and few-step samples, and the training of the classifier
    notes: list[str]  # what is not counted

    @property
    def passes(self) -> int:
        """All evaluations of the networks."""
        return self.sampling + self.other_passes

    @property
    def features(self) -> int:
        """All feature extractors."""
        return self.shared_features + self.other_features


def evaluation_work(work: Workload) -> EvaluationWork:
    """The operations of all evaluations."""
    sample = work.evaluation.sample
    sampling = (sample.n + sample.shared_batch) * ADAPTIVE_NFE * work.solved * work.cost_of_field * work.cost.flops
    features, other_features, notes = extraction(work) if work.is_images else (0, 0, [])
    return EvaluationWork(sampling, evaluation_passes(work) * work.cost.flops, features, other_features, notes)


def evaluation_passes(work: Workload) -> int:
    """Forward passes of all evaluations but sampling. Those of regression, one for each sample, are left out."""
    of_sweeps = sweep_passes(work.evaluation) * work.solved
    of_few_steps = sum(few_step_passes(work, m) for m in work.flows) * len(work.config.seeds)
    of_likelihoods = likelihood_passes(work) + (dequantisation_passes(work) if work.is_images else 0)
    of_samples = of_sweeps + of_few_steps + pair_passes(work) + learning_curve_passes(work) + trajectory_passes(work)
    return of_samples * work.cost_of_field + of_likelihoods * work.solved


def sweep_passes(evaluation: EvaluationSettings) -> int:
    """Forward passes of a model's sweep: every cell, and the reference."""
    sweep = evaluation.sweep
    return sweep.n * (sum(cell.nfe for cell in sweep.cells()) + sweep.reference_nfe)


def few_step_passes(work: Workload, method: str) -> int:
    """Forward passes of a model's samples with few evaluations: every cell, and jumps of a method that learns them."""
    few_step = work.evaluation.few_step
    jumps = few_step.jumps if work.config.method(method).jumps_too else []
    return few_step.n * (sum(cell.nfe for cell in few_step.cells()) + sum(jumps))


def likelihood_passes(work: Workload) -> int:
    """Forward passes of a model's likelihoods of the test split."""
    settings = work.evaluation.likelihood
    exact = work.dimensions <= settings.exact_up_to
    a_step = 1 + work.dimensions if exact else _hutchinson_passes(settings.probes, settings.mode)
    return _test_samples(settings, work) * ADAPTIVE_NFE * a_step


def dequantisation_passes(work: Workload) -> int:
    """Forward passes of a model's NLL against K.

    The exact estimate is made beside the paper's, in a solve of its own. Averaged probes include the paper's one probe.
    """
    settings = work.evaluation.dequantisation
    exact = work.dimensions <= settings.exact_up_to
    paper = _hutchinson_passes(1, settings.mode)
    a_step = 1 + work.dimensions + paper if exact else _hutchinson_passes(settings.probes, settings.mode)
    return _test_samples(settings, work) * max(settings.draws) * ADAPTIVE_NFE * a_step


def learning_curve_passes(work: Workload) -> int:
    """Forward passes of the samples at every snapshot, of all models."""
    snapshots = _snapshots(work, work.flows)
    return work.evaluation.learning_curve.n * snapshots * ADAPTIVE_NFE * len(work.config.seeds)


def trajectory_passes(work: Workload) -> int:
    """Forward passes of the trajectories, of all models."""
    return trajectory_samples(work.evaluation, work.shape) * ADAPTIVE_NFE * work.solved


def pairs_of(config: Config, method: str) -> int:
    """The number of pairs that a method's teacher makes; 0 without a teacher."""
    teacher = config.method(method).resolve().teacher
    return 0 if teacher is None else int((TEACHER | teacher.parameters)["pairs"])


def pair_passes(work: Workload) -> int:
    """Forward passes of the teachers that make the pairs of students, of all models. An oracle has no network."""
    teachers = {m: work.config.method(m).taught_by for m in work.flows}
    pairs = sum(pairs_of(work.config, m) for m, teacher in teachers.items() if teacher in work.flows)
    return pairs * ADAPTIVE_NFE * len(work.config.seeds)


def trajectory_samples(evaluation: EvaluationSettings, shape: tuple[int, ...]) -> int:
    """Samples of a model whose trajectories are kept."""
    return evaluation.trajectory.n or (TRAJECTORY_IMAGES if len(shape) == 3 else PREVIEW_POINTS)


def _hutchinson_passes(probes: int, mode: str) -> int:
    """Passes of one evaluation with Hutchinson's divergence: in forward mode each probe is a pass with its derivative."""
    return 2 * probes if mode == "forward" else 1 + probes


def _test_samples(settings: LikelihoodSettings | DequantisationSettings, work: Workload) -> int:
    """Test samples that a stage uses; 0 if it asks for all and their number is unknown."""
    limits = [settings.n, None if work.sizes is None else work.sizes[1]]
    return min((n for n in limits if n is not None), default=0)


def _snapshots(work: Workload, methods: list[str]) -> int:
    """Snapshots of one seed's trainings of these methods together."""
    return sum(len(work.config.training(work.name, method).snapshot_steps()) for method in methods)


def extraction(work: Workload) -> tuple[int, int, list[str]]:
    """Operations of the feature extractors, as FLOP.

    Returns:
        Those on samples and the data's own images; those on learning curves and few-step samples, which only the first extractor
        sees, and in the training of the classifier; notes on what is not counted.
    """
    evaluation, generators = work.evaluation, len(work.config.methods) * len(work.config.seeds)
    images, notes = evaluation.sample.n * generators, []
    if work.name in super_resolved(work.config):  # each of the upsampled images once more, and the baselines
        images += evaluation.sample.n * (generators + 4)
    if work.sizes is None:
        notes.append("features of the data's own images are left out: their number is known once the data are prepared")
    else:
        train, test = work.sizes
        images += min(train, evaluation.features.reference_n or train) + test
    more_images = _snapshots(work, work.trained) * evaluation.learning_curve.n * len(work.config.seeds)
    more_images += (len(evaluation.few_step.cells()) + 1) * evaluation.few_step.n * generators

    shared = other = 0
    for i, (name, cost) in enumerate(work.extractors.items()):
        if cost is None:
            notes.append(f"the feature extractor {name} is not counted")
            continue
        shared += images * cost.flops
        other += (0 if i else more_images) * cost.flops
    return shared, other + classifier_training_flops(work), notes


def classifier_training_flops(work: Workload) -> int:
    """Operations of the training of the in-DAG classifier; 0 without one. A backward pass counts as two forward passes."""
    cost = work.extractors.get("classifier")
    return 0 if cost is None or work.sizes is None else 3 * cost.flops * work.evaluation.features.epochs * work.sizes[0]


def neighbour_flops(work: Workload, n: int) -> int:
    """Operations of the metrics that compare the features of n samples with all those that are kept of a reference."""
    return 2 * NEIGHBOUR_PASSES * min(n, work.evaluation.features.max_samples) * kept_references(work) * work.compared


def kept_references(work: Workload) -> int:
    """Training samples whose features are kept; 0 if the number of training samples is not known."""
    features = work.evaluation.features
    most = max(features.max_samples, KEPT)
    return 0 if work.sizes is None else min(work.sizes[0], features.reference_n or most, most)


def comparison_flops(shape: tuple[int, ...]) -> int:
    """Operations that compare one upsampled image (C, H, W) with its original: SSIM's five local means, each two products."""
    channels, height, width = shape
    planes = channels + (channels == 3)  # and Y of colour images
    return 5 * planes * 2 * height * width * (height + width)
