"""What each job depends on, and nothing else: the contract between the Snakefile and the stages.

A spec is plain data, which a stage gets as canonical JSON. Snakemake reruns a job when its spec or the hash of its code changes.
So a spec holds every setting that the stage uses, and no setting that it does not use. The spec of a stage that works on a model
holds the hash of the model's spec, so the hash in every row covers all settings that the number depends on.

The functions follow the workflow: what precedes all data, then the jobs of a data set, of a model and of the whole run.
"""

from typing import Any

from fmbench.config import selections
from fmbench.config.config import Config, DataSetSettings
from fmbench.config.evaluation_settings import EvaluationSettings
from fmbench.config.hashing import settings_hash
from fmbench.config.measured_cells import own_solvers, time_grids
from fmbench.config.method_settings import method_values
from fmbench.config.methods import TEACHER
from fmbench.config.plugins import plugins_in
from fmbench.config.stages import FIRST_SEED, GATHERED, MODEL_STAGES, Model
from fmbench.errors import ConfigError

Spec = dict[str, Any]


# Before everything


def check(config: Config, code: bool = True) -> Spec:
    """Everything that the stage ``check`` tries before any training: methods, networks, extractors and time grids.

    Without ``code``, methods that name a plug-in are left out, so that none is imported.
    """
    methods = [m for m in config.methods if code or not plugins_in(m.model_dump())]
    return {
        "stage": "check",
        "methods": [method_values(m.resolve()) for m in methods],
        "datasets": {
            d: {
                "data": config.dataset(d).data.model_dump(),
                "network": config.dataset(d).network.model_dump(),
                "extractors": [part.model_dump() for part in config.dataset(d).evaluation.features.extractors()],
                **_condition(config.dataset(d)),
                **_comparison(config.dataset(d).evaluation if d in selections.super_resolved(config) else None),
            }
            for d in config.datasets
        },
        "grids": time_grids(config),
        "solvers": own_solvers(config),
    }


def _comparison(evaluation: EvaluationSettings | None) -> Spec:
    """What decides whether upsampled images can be compared with their originals; nothing where none are."""
    if evaluation is None:
        return {}
    settings = evaluation.super_resolution.model_dump()
    return {"comparison": {"settings": settings, "n": evaluation.sample.n, "splits": evaluation.features.splits}}


def theory(config: Config) -> Spec:
    """What figures and tables show from the definitions of the methods alone."""
    return {"stage": "theory", "methods": [method_values(m.resolve()) for m in config.methods]}


# One data set


def prepare(config: Config, dataset: str) -> Spec:
    """The source of a data set, and its condition if it has one."""
    settings = config.dataset(dataset)
    return {"stage": "prepare", "dataset": dataset, **settings.data.model_dump(), **_condition(settings)}


def _condition(settings: DataSetSettings) -> Spec:
    """The entry of a condition; none without one."""
    return {} if settings.condition is None else {"condition": settings.model_dump()["condition"]}


def features(config: Config, dataset: str) -> Spec:
    """The feature extractor and the floor of a data set.

    Its seed is not one of the config's: the same extractor must compare samples of other seeds, made in another run.
    """
    return {
        "stage": "features",
        "dataset": dataset,
        "data": settings_hash(prepare(config, dataset)),
        "seed": 0,
        "device": config.device,
        "settings": config.dataset(dataset).evaluation.features.used(),
    }


def baselines(config: Config, dataset: str) -> Spec:
    """What Table 2 compares models with, without a training: the test images, and their low-resolution images interpolated."""
    of, evaluation = features(config, dataset), config.dataset(dataset).evaluation
    settings = {"n": evaluation.sample.n, "settings": evaluation.super_resolution.model_dump()}
    return of | {"stage": "baselines", "features": settings_hash(of)} | settings


# One model


def train(config: Config, dataset: str, method: str, seed: int) -> Spec:
    """One training. A change of any value in this spec reruns it.

    The values are the data set's source, the method's definition, the seed, the device, all settings of network and training,
    and the number of processes. An oracle is not trained, so its spec has no network, training or processes.
    """
    resolved = config.method(method).resolve()
    spec = {
        "stage": "train",
        "dataset": dataset,
        "data": settings_hash(prepare(config, dataset)),
        "method": method_values(resolved),
        "seed": seed,
        "device": config.device,
    }
    if resolved.oracle is None:
        spec["network"] = config.dataset(dataset).network.model_dump()
        spec["training"] = config.training(dataset, method).model_dump()
        spec["processes"] = config.processes
    if resolved.teacher is not None:
        spec["pairs"] = settings_hash(pairs(config, dataset, method, seed))
    return spec


def pairs(config: Config, dataset: str, method: str, seed: int) -> Spec:
    """The pairs that a method with a teacher is trained on.

    Raises:
        ConfigError: the method has no teacher, or its teacher is not in the config.
    """
    teacher = config.method(method).resolve().teacher
    if teacher is None:
        raise ConfigError(f"{method} has no teacher, and so no pairs")
    return {
        "stage": "pairs",
        "dataset": dataset,
        "method": method,
        "teacher": teacher.name,
        "seed": seed,
        "model": settings_hash(train(config, dataset, teacher.name, seed)),
        "device": config.device,
        "settings": TEACHER | teacher.parameters,
    }


def evaluate(stage: str, config: Config, dataset: str, method: str, seed: int) -> Spec:
    """A stage that works on one model: one of :data:`~fmbench.config.stages.MODEL_STAGES`."""
    if stage == "pairs":
        return pairs(config, dataset, method, seed)
    spec = {
        "stage": stage,
        "dataset": dataset,
        "method": method,
        "seed": seed,
        "model": settings_hash(train(config, dataset, method, seed)),
        "device": config.device,
    }
    entry, evaluation = MODEL_STAGES[stage], config.dataset(dataset).evaluation
    if "samples" in entry.reads:
        spec["samples"] = settings_hash(evaluate("sample", config, dataset, method, seed))
    if "features" in entry.reads:
        spec["features"] = settings_hash(features(config, dataset))
    if "baselines" in entry.reads:
        spec["baselines"] = settings_hash(baselines(config, dataset))
    if entry.guided and evaluation.guidance != 1:
        spec["guidance"] = evaluation.guidance
    if stage in EvaluationSettings.model_fields:
        spec["settings"] = getattr(evaluation, stage).model_dump()
    return spec


def model_folder(stage: str, dataset: str, method: str, seed: int | str) -> str:
    """The folder, below the results folder, that a stage writes for one model."""
    return f"{stage}/{dataset}/{method}/{seed}"


# The whole run


def gather(kind: str, config: Config) -> Spec:
    """The files of all models that one gathered file holds; the kinds are :data:`fmbench.config.stages.GATHERED`."""
    stage, file = GATHERED[kind]
    seeds = config.seeds[:1] if kind in FIRST_SEED else config.seeds
    models = [model for model in selections.models(config, stage) if model[2] in seeds]
    return {
        "stage": "gather",
        "kind": kind,
        "files": [f"{model_folder(stage, *model)}/{file}" for model in models],
        "of": _rows_hash(stage, config, models),
    }


def _rows_hash(stage: str, config: Config, models: list[Model]) -> str:
    """The hash of everything that the rows of a stage on these models depend on; a gathered file holds it."""
    return settings_hash({"rows": [evaluate(stage, config, *model) for model in models]})


def collect(config: Config) -> Spec:
    """The results that make up the run, with the hashes of its gathered files."""
    choices = {choice for stage in MODEL_STAGES.values() if stage.collected for choice in stage.choices}
    return {
        "stage": "collect",
        **_whole(config),
        "gathered": {f"{kind}.parquet": gather(kind, config)["of"] for kind in GATHERED}
        | {"dequantisation.parquet": table4(config)["of"]},
        **{choice: names for choice in choices if (names := selections.CHOICES[choice](config))},
    }


def table1(config: Config) -> Spec:
    """What Table 1 shows, in its order."""
    return {
        "stage": "table1",
        **_whole(config),
        "overrides": selections.overridden(config),
        "oracles": selections.oracles(config),
    }


def _whole(config: Config) -> Spec:
    return {"datasets": config.datasets, "methods": [m.name for m in config.methods], "seeds": config.seeds}


def table4(config: Config) -> Spec:
    """NLL against K, for trained flows: test points have no meaning to an oracle of the training set."""
    datasets, methods = selections.images(config), selections.flows(config)
    return {
        "stage": "table4",
        "datasets": datasets,
        "methods": methods,
        "seeds": config.seeds,
        "draws": {d: config.dataset(d).evaluation.dequantisation.draws for d in datasets},
        "of": _rows_hash("dequantisation", config, selections.models(config, "dequantisation")),
    }
