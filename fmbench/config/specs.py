"""What each job depends on, and nothing else: the contract between the Snakefile and the stages.

A spec is plain data, passed to a stage as canonical JSON. Snakemake reruns a job when its spec (or its code's hash)
changes, so a setting that a stage does not use must not be in its spec, and one that it uses must be. A stage that works on
a model has that model's spec hash in its own spec, so the hash in every row covers all settings the number depends on.
"""

from collections.abc import Sequence
from typing import Any

from fmbench.config.config import Config
from fmbench.config.datasets import sample_shape
from fmbench.config.hashing import settings_hash
from fmbench.config.method_settings import MethodSettings, method_values
from fmbench.config.names import FIRST_SEED, GATHERED, STEP_COSTS
from fmbench.config.plugins import is_dotted

Spec = dict[str, Any]


def prepare(config: Config, dataset: str) -> Spec:
    """The data set's source."""
    return {"stage": "prepare", "dataset": dataset, **config.dataset(dataset).data.model_dump()}


def features(config: Config, dataset: str) -> Spec:
    """The feature extractor and the floor of a data set.

    Its seed is not of the config's list: samples of other seeds, drawn elsewhere, are to be judged by the same extractor.
    """
    return {
        "stage": "features",
        "dataset": dataset,
        "data": settings_hash(prepare(config, dataset)),
        "seed": 0,
        "device": config.device,
        "settings": config.dataset(dataset).evaluation.features.used(),
    }


def train(config: Config, dataset: str, method: str, seed: int) -> Spec:
    """One training; for an oracle, which has none, without network and training settings."""
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
    return spec


def evaluate(stage: str, config: Config, dataset: str, method: str, seed: int) -> Spec:
    """A stage that works on one model: ``sample``, ``likelihood``, ``dequantisation``, ``sweep``, ``sample_quality``,
    ``learning_curve``, ``few_step`` or ``trajectory``."""
    spec = {
        "stage": stage,
        "dataset": dataset,
        "method": method,
        "seed": seed,
        "model": settings_hash(train(config, dataset, method, seed)),
        "device": config.device,
    }
    evaluation = config.dataset(dataset).evaluation
    if stage in ("sample_quality", "few_step"):
        spec["samples"] = settings_hash(evaluate("sample", config, dataset, method, seed))
    if stage in ("sample_quality", "learning_curve", "few_step"):
        spec["features"] = settings_hash(features(config, dataset))
    if stage != "sample_quality":
        spec["settings"] = getattr(evaluation, stage).model_dump()
    return spec


def check(config: Config) -> Spec:
    """Everything that can be found impossible before any training."""
    return {
        "stage": "check",
        "methods": [method_values(m.resolve()) for m in config.methods],
        "datasets": {
            d: {
                "data": config.dataset(d).data.model_dump(),
                "network": config.dataset(d).network.model_dump(),
                "extractors": [part.model_dump() for part in config.dataset(d).evaluation.features.extractors()],
            }
            for d in config.datasets
        },
        "grids": _grids(config),
    }


def _grids(config: Config) -> list[list[Any]]:
    """Every time grid of the sweeps and budgets with its steps; uniform ones always exist."""
    settings = [s for d in config.datasets for s in (config.dataset(d).evaluation.sweep, config.dataset(d).evaluation.few_step)]
    cells = {cell for s in settings for cell in s.cells() if cell.grid != "uniform"}
    return sorted([cell.grid, cell.nfe // STEP_COSTS[cell.solver]] for cell in cells)


def overridden(config: Config) -> dict[str, dict[str, Any]]:
    """Methods that do not train under the common settings, with what differs: the tables say so."""
    own = {m.name: m.training.model_dump(exclude_none=True) for m in config.methods}
    return {name: values for name, values in own.items() if values}


def table1(config: Config) -> Spec:
    """What the main table shows, in its order."""
    return {
        "stage": "table1",
        "datasets": config.datasets,
        "methods": [m.name for m in config.methods],
        "seeds": config.seeds,
        "overrides": overridden(config),
        "oracles": oracles(config),
    }


def table4(config: Config) -> Spec:
    """NLL over the number of draws, of what was trained: test points are nothing to an oracle of the training set."""
    datasets, methods = images(config), [m.name for m in config.methods if m.name not in oracles(config)]
    return {
        "stage": "table4",
        "datasets": datasets,
        "methods": methods,
        "seeds": config.seeds,
        "draws": {d: config.dataset(d).evaluation.dequantisation.draws for d in datasets},
        "of": _of("dequantisation", config, [(d, m, s) for d in datasets for m in methods for s in config.seeds]),
    }


def _of(stage: str, config: Config, models: Sequence[tuple[str, str, int]]) -> str:
    """A hash of what the rows of a stage on these models depend on, by which a file that joins them says what it is of."""
    return settings_hash({"rows": [evaluate(stage, config, *model) for model in models]})


def oracles(config: Config) -> list[str]:
    """Methods without a network."""
    return [m.name for m in config.methods if m.resolve().oracle is not None]


def images(config: Config) -> list[str]:
    """The data sets with likelihoods over dequantisation draws: those whose source is known to give images.

    Of arrays and somebody's own source it is not known before they are prepared, but an MLP takes points only.
    """
    found = []
    for name in config.datasets:
        settings = config.dataset(name)
        shape = sample_shape(settings.data.source, settings.data.parameters)
        if settings.network.kind != "mlp" if shape is None else len(shape) == 3:
            found.append(name)
    return found


def theory(config: Config) -> Spec:
    """What is drawn and tabulated from the methods' definitions alone."""
    return {"stage": "theory", "methods": [method_values(m.resolve()) for m in config.methods]}


USES_EXTRACTOR = ("sample_quality", "learning_curve", "few_step")
"""Stages of a model that run the feature extractor, whose code is part of theirs."""


def code_specs(stage: str, config: Config, dataset: str, method: str, seed: int) -> list[Spec]:
    """The specs whose plug-ins a stage of one model runs."""
    model = train(config, dataset, method, seed)
    return [model, features(config, dataset)] if stage in USES_EXTRACTOR else [model]


def code_stage(spec: Spec) -> str:
    """The stage whose code a job runs: an oracle's training is none."""
    return "oracles" if spec["stage"] == "train" and spec["method"]["oracle"] is not None else spec["stage"]


def processes(spec: Spec) -> int:
    """How many processes do a job together."""
    return int(spec.get("processes", 1))


def launcher(count: int) -> str:
    """What a module is started with, by so many processes. torchrun takes every option before a ``--`` for its own."""
    return "python -m" if count == 1 else f"torchrun --standalone --nproc-per-node {count} -m --"


def plugins(spec: Any) -> tuple[str, ...]:
    """The dotted names anywhere in a spec."""
    if isinstance(spec, dict):
        return tuple(p for v in spec.values() for p in plugins(v))
    if isinstance(spec, list | tuple):
        return tuple(p for v in spec for p in plugins(v))
    if isinstance(spec, str) and is_dotted(spec):
        return (spec,)
    return ()


def collect(config: Config) -> Spec:
    """Which results belong together, the files among them that other jobs gather."""
    return {
        "stage": "collect",
        "datasets": config.datasets,
        "methods": [m.name for m in config.methods],
        "seeds": config.seeds,
        "gathered": {f"{kind}.parquet": gather(kind, config)["of"] for kind in GATHERED}
        | {"dequantisation.parquet": table4(config)["of"]},
    }


def gather(kind: str, config: Config) -> Spec:
    """Which files of models belong together; the kinds are :data:`fmbench.config.names.GATHERED`."""
    stage, file = GATHERED[kind]
    untrained = oracles(config) if stage == "learning_curve" else []  # what is not trained has no learning curve
    models = [
        (dataset, method.name, seed)
        for dataset in config.datasets
        for method in config.methods
        for seed in (config.seeds[:1] if kind in FIRST_SEED else config.seeds)
        if method.name not in untrained
    ]
    return {
        "stage": "gather",
        "kind": kind,
        "files": [f"{model_folder(stage, *model)}/{file}" for model in models],
        "of": _of(stage, config, models),
    }


def describe(config: Config) -> Spec:
    """The whole config, less what says only where things stand, in a form that needs no module of somebody's own to be read.

    A method from ``package.module:MY_METHOD`` is written out.
    """
    values = config.model_dump(exclude={"results_dir", "tracking"})
    values["settings"] = {name: values["settings"][name] for name in config.datasets}
    values["methods"] = [_written_out(m) for m in config.methods]
    return values


def _written_out(settings: MethodSettings) -> Spec:
    values = settings.model_dump()
    if settings.use is None or not is_dotted(settings.use):
        return values
    method = settings.resolve()
    parts = ("path",) if method.oracle is not None else ("path", "prediction", "weighting", "time")
    for name in parts:
        part = getattr(method, name)
        values[name] = {"name": part.name, **(part.parameters if name in ("path", "time") else {})}
    return values | {"use": None, "t_min": method.t_min, "t_max": method.t_max, "oracle": method.oracle}


def model_folder(stage: str, dataset: str, method: str, seed: int | str) -> str:
    """Where a stage writes what belongs to one model, below the results folder."""
    return f"{stage}/{dataset}/{method}/{seed}"
