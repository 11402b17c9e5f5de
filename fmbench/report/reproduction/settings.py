"""Which numbers of a run have the settings of the reference: those whose job has the same spec, apart from seed and device."""

from pathlib import Path
from typing import Any

from fmbench.config import specs
from fmbench.config.config import Config
from fmbench.errors import first_few
from fmbench.store.agreement import setting_differences
from fmbench.store.benchmark import FILE, parse_config

NAMED = 3
"""How many different settings a reason names."""
Job = tuple[str, str, str]
"""Data set, method and stage."""


class Settings:
    """The settings of a run beside those of the reference, from their descriptions (``benchmark.json``).

    Raises:
        DataError: this version of fmbench does not know the settings of one of them.
    """

    def __init__(self, reference: dict[str, Any], run: dict[str, Any]) -> None:
        self._descriptions = reference, run
        self._configs = tuple(_on_cpu(parse_config(found["config"], Path(FILE))) for found in (reference, run))
        self._known: dict[Job, str] = {}

    def reason(self, dataset: str, method: str, stage: str) -> str:
        """Why the numbers of a job cannot be compared, or an empty text if they can."""
        job = dataset, method, stage
        if job not in self._known:
            self._known[job] = self._find(*job)
        return self._known[job]

    def any(self) -> bool:
        """Whether the training or the oracle of any data set and method has the settings of the reference."""
        run = self._configs[1]
        return any(not self.reason(d, m.name, "train") for d in run.datasets for m in run.methods)

    def _find(self, dataset: str, method: str, stage: str) -> str:
        for config in self._configs:
            if dataset not in config.datasets or method not in {m.name for m in config.methods}:
                return (
                    "the reference has no such data set or method" if config is self._configs[0] else "not in this run's config"
                )
        data = [found["data"].get(dataset) for found in self._descriptions]
        if data[0] != data[1]:
            return "the data differ"
        one, other = (_spec(config, dataset, method, stage) for config in self._configs)
        return "" if one == other else f"the settings differ{self._named(dataset, method)}"

    def _named(self, dataset: str, method: str) -> str:
        """The names of the first different settings that are about the data set, the method or all of them."""
        one, other = (found["config"] for found in self._descriptions)
        names = [
            name
            for name in setting_differences(one, other)
            if name.startswith((f"settings.{dataset}.", f"methods.{method}."))
            or (name != "device" and not name.startswith(("settings.", "methods.")))
        ]
        return f": {first_few(names, NAMED)}" if names else ""


def _on_cpu(config: Config) -> Config:
    """The config for one device: a GPU rounds differently, but its numbers have the same distribution."""
    return config.model_copy(update={"device": "cpu"})


def _spec(config: Config, dataset: str, method: str, stage: str) -> dict[str, Any]:
    """What the numbers of a job depend on, for one seed."""
    if stage == "train":
        return specs.train(config, dataset, method, 0)
    return specs.evaluate(stage, config, dataset, method, 0)
