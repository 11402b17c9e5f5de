"""The methods and data sets of a config that some stage, table or figure is about."""

from typing import Any

from fmbench.config.condition_settings import LowResolutionCondition
from fmbench.config.config import Config
from fmbench.config.datasets import sample_shape
from fmbench.config.stages import MODEL_STAGES, Model


def overridden(config: Config) -> dict[str, dict[str, Any]]:
    """The methods that do not train under the common settings, with the settings that differ; tables report them."""
    overrides = {m.name: m.training.model_dump(exclude_none=True) for m in config.methods}
    return {name: values for name, values in overrides.items() if values}


def oracles(config: Config) -> list[str]:
    """The methods without a network."""
    return [m.name for m in config.methods if m.resolve().oracle is not None]


def trained(config: Config) -> list[str]:
    """The methods with a network: all but oracles."""
    return [m.name for m in config.methods if m.resolve().oracle is None]


def flows(config: Config) -> list[str]:
    """The methods with a network and a path: all but oracles and regression."""
    return [m.name for m in (s.resolve() for s in config.methods) if m.oracle is None and m.path is not None]


def taught(config: Config) -> list[str]:
    """The methods that are trained on samples of another."""
    return [m.name for m in config.methods if m.resolve().teacher is not None]


def images(config: Config) -> list[str]:
    """The data sets of images, for which NLL against K is measured.

    The shape of arrays and plug-in sources is not known before they are prepared. They count as images unless their network is an
    MLP, which takes points only.
    """
    found = []
    for name in config.datasets:
        settings = config.dataset(name)
        shape = sample_shape(settings.data.source, settings.data.parameters)
        if settings.network.kind != "mlp" if shape is None else len(shape) == 3:
            found.append(name)
    return found


def super_resolved(config: Config) -> list[str]:
    """The data sets whose condition is the low-resolution image (Table 2)."""
    return [d for d in config.datasets if isinstance(config.dataset(d).condition, LowResolutionCondition)]


CHOICES = {choice.__name__: choice for choice in (trained, flows, taught, images, super_resolved)}
"""The choices of data sets and methods that :mod:`fmbench.config.stages` names."""


def models(config: Config, stage: str | None = None) -> list[Model]:
    """The models of a config, or those that one of its stages works on, by data set, method and seed."""
    found = [(dataset, method.name, seed) for dataset in config.datasets for method in config.methods for seed in config.seeds]
    if stage is None:
        return found
    chosen = {choice: CHOICES[choice](config) for choice in MODEL_STAGES[stage].choices}
    return [model for model in found if MODEL_STAGES[stage].works_on(model, chosen)]
