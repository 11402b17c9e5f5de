"""The methods and data sets of a config that some stage, table or figure is about."""

from typing import Any

from fmbench.config.condition_settings import LowResolutionCondition
from fmbench.config.config import Config
from fmbench.config.datasets import sample_shape


def overridden(config: Config) -> dict[str, dict[str, Any]]:
    """The methods that do not train under the common settings, with the settings that differ; tables report them."""
    overrides = {m.name: m.training.model_dump(exclude_none=True) for m in config.methods}
    return {name: values for name, values in overrides.items() if values}


def oracles(config: Config) -> list[str]:
    """The methods without a network."""
    return [m.name for m in config.methods if m.resolve().oracle is not None]


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
