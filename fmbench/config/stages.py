"""The stages that have a job for each data set or model. Specs, jobs, rules and commands follow these tables.

A stage of a model is an entry here, a module with ``run`` in ``fmbench/stages/`` and a rule in ``workflow/rules/``. Its settings
are the field of its name in :class:`~fmbench.config.evaluation_settings.EvaluationSettings`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

Model = tuple[str, str, int]
"""A model: its data set, its method and its seed."""


@dataclass(frozen=True)
class Stage:
    """A stage whose ``run`` takes a job and then folders.

    Attributes:
        does: what it does, in one sentence.
        reads: what it reads besides the prepared data: a ``model``, or the results of the stages ``samples``, ``features`` and
            ``baselines``. Its spec has their hashes.
        datasets, methods: the choice of the config's that it works on, by name (:data:`fmbench.config.selections.CHOICES`);
            empty for all.
        cached: it keeps what it has finished, from which a killed job continues.
        guided: it makes samples, and so follows the guidance.
        shared: any number of processes may share its work. The results are the same.
        collected: its rows are in ``records.parquet``.
        gathered: files of the results folder (without .parquet), and which file of each model each of them gathers.
    """

    does: str
    reads: tuple[str, ...] = ("model",)
    datasets: str = ""
    methods: str = ""
    cached: bool = False
    guided: bool = False
    shared: bool = False
    collected: bool = False
    gathered: Mapping[str, str] = field(default_factory=dict)

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders that ``run`` takes, in order."""
        return ("data", *self.reads, "out", *(["cache"] if self.cached else []))

    @property
    def choices(self) -> set[str]:
        """The names of its choices of data sets and methods."""
        return {self.datasets, self.methods} - {""}

    def works_on(self, model: Model, chosen: Mapping[str, Collection[str]]) -> bool:
        """Whether it works on a model, from the data sets or methods of each choice. A choice that is not there is empty."""
        dataset, method, _ = model
        return all(not of or name in chosen.get(of, ()) for of, name in ((self.datasets, dataset), (self.methods, method)))


DATA_STAGES = {
    "features": Stage("Train the feature extractor of a data set and measure the floors.", reads=(), shared=True),
    "baselines": Stage(
        "Measure the test images and their interpolated low-resolution images (super-resolution only).", reads=("features",)
    ),
}
"""Stages that work on one data set."""
MODEL_STAGES = {
    "pairs": Stage(
        "Make the pairs of noise and sample that a method with a teacher is trained on (reflow).",
        methods="taught",
        collected=True,
    ),
    "sample": Stage(
        "Sample a model with the adaptive solver and count its evaluations.",
        guided=True,
        shared=True,
        collected=True,
        gathered={"nfe": "nfe.parquet"},
    ),
    "likelihood": Stage("Measure a model's NLL on the test split.", collected=True),
    "dequantisation": Stage(
        "Measure a model's NLL against the number K of dequantisation draws (images only).",
        datasets="images",
        methods="flows",
        cached=True,
    ),
    "sweep": Stage(
        "Compare every fixed-step solver at every NFE with the reference solution.", cached=True, guided=True, collected=True
    ),
    "sample_quality": Stage(
        "Measure the distance between samples and data.", reads=("samples", "features"), shared=True, collected=True
    ),
    "super_resolution": Stage(
        "Compare a model's upsampled test images with their originals (super-resolution only).",
        reads=("samples", "features", "baselines"),
        datasets="super_resolved",
        collected=True,
    ),
    "learning_curve": Stage(
        "Measure NFE and distance during training, at each snapshot.",
        reads=("model", "features"),
        methods="trained",
        cached=True,
        guided=True,
        gathered={"learning_curve": "rows.parquet"},
    ),
    "few_step": Stage(
        "Measure the distance of samples made with few evaluations, and keep pictures of them.",
        reads=("model", "samples", "features"),
        cached=True,
        guided=True,
        gathered={"few_step": "rows.parquet", "few_step_previews": "previews.parquet"},
    ),
    "trajectory": Stage(
        "Keep states on the way from noise to data.",
        guided=True,
        gathered={"trajectory": "trajectory.parquet", "half_way": "rows.parquet"},
    ),
}
"""Stages that work on one model, in the order of a run."""
STAGES = DATA_STAGES | MODEL_STAGES
GATHERED = {kind: (name, file) for name, stage in MODEL_STAGES.items() for kind, file in stage.gathered.items()}
"""Gathered files of the results folder (without .parquet): the stage and the name of the file of each model that they gather."""
FIRST_SEED = ("few_step_previews", "trajectory")
"""Gathered files that hold pictures, of the first seed only."""


def read_by(stage: str) -> tuple[str, ...]:
    """What one of :data:`STAGES` reads besides the prepared data; nothing for other stages, whose inputs are not in the table."""
    return STAGES[stage].reads if stage in STAGES else ()
