"""The whole config: typed, closed to unknown keys, checked as a whole.

Imports nothing heavy: the Snakefile reads the config through here on every start.
"""

import os
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from fmbench.config import datasets
from fmbench.config.base import Name, Parameters, Settings, by_name, known
from fmbench.config.evaluation_settings import EvaluationSettings
from fmbench.config.method_settings import MethodSettings
from fmbench.config.network_settings import MLPSettings, PluginNetworkSettings, UNetSettings, network_of_its_kind
from fmbench.config.numbers import Count, number, whole_number
from fmbench.config.training_settings import TrainingSettings
from fmbench.errors import ConfigError


class DataSettings(Settings):
    """Where a data set comes from."""

    source: Annotated[str, known("data set", datasets.DATASETS)]
    parameters: Parameters = Field({}, description="what that source takes, such as the number of points")


class DataSetSettings(Settings):
    """Everything about one data set: its source, the network on it, training and evaluation."""

    data: Annotated[
        DataSettings,
        BeforeValidator(lambda v: {"source": v} if isinstance(v, str) else v, json_schema_input_type=str | DataSettings),
    ]
    network: Annotated[MLPSettings | UNetSettings | PluginNetworkSettings, BeforeValidator(network_of_its_kind)]
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()


class TrackingSettings(Settings):
    """MLflow, a mirror of the records for browsing."""

    enabled: bool = True
    uri: str | None = Field(None, description="a tracking server; null for sqlite under results_dir/mlflow")
    live_after: Annotated[float, Field(ge=0), BeforeValidator(number)] = Field(
        60.0, description="write a training live once it has lasted this many seconds; shorter ones appear with the records"
    )


def _written_out(path: str) -> str:
    if path.startswith("~") or "$" in path:
        meant = os.path.expandvars(os.path.expanduser(path))
        whole = "" if meant == path else f", such as {meant}"
        raise ValueError(
            f"{path!r} would be a folder of that very name: ~ and $ stand for nothing here; write the path out{whole}"
        )
    if path != path.strip() or not path.isprintable():
        raise ValueError(f"{path!r} has spaces at an end, or what cannot be seen, such as a line break; leave them out")
    return path


class Config(Settings):
    """The whole benchmark."""

    results_dir: Annotated[str, Field(min_length=1, pattern=r"^[^{}]*$"), AfterValidator(_written_out)] = "results"
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31), BeforeValidator(whole_number)]], Field(min_length=1)] = [0, 1]
    device: Literal["cpu", "cuda"] = Field("cpu", description="what models are trained and evaluated on; part of every result")
    processes: Count = Field(
        1,
        description="processes of one training, each with its share of every batch, on its own GPU if the device is cuda; part "
        "of every trained model, as sums are rounded in another order and each draws dropout masks of its own",
    )
    datasets: Annotated[list[Name], Field(min_length=1)]
    methods: Annotated[
        list[Annotated[MethodSettings, BeforeValidator(by_name, json_schema_input_type=str | MethodSettings)]],
        Field(min_length=1, description="names of known methods, or methods written out"),
    ]
    settings: dict[Name, DataSetSettings]
    tracking: TrackingSettings = TrackingSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for what, values in (
            ("seed", self.seeds),
            ("data set", self.datasets),
            ("method", [m.name for m in self.methods]),
        ):
            twice = sorted({str(v) for v in values if values.count(v) > 1})  # type: ignore[arg-type]
            if twice:
                raise ValueError(f"{what} {', '.join(twice)} is listed more than once")
        missing = [d for d in self.datasets if d not in self.settings]
        if missing:
            raise ValueError(
                f"unknown data set {', '.join(missing)}: settings has {', '.join(self.settings)}. "
                "Add an entry under settings with data, network, training and evaluation"
            )
        for dataset in self.datasets:
            source = self.settings[dataset].data
            if differs := datasets.not_the_papers(dataset, source.source, source.parameters):
                raise ValueError(
                    f"{dataset} is a data set of the paper, whose numbers tables show beside that name; it is {differs}. "
                    "Give this data set another name"
                )
            for method in self.methods:
                if method.is_oracle:
                    continue
                try:
                    self.training(dataset, method.name)
                except ValidationError as error:
                    message = "; ".join(e["msg"].removeprefix("Value error, ") for e in error.errors())
                    raise ValueError(f"training of {method.name} on {dataset}: {message}") from None
                self._trainable(dataset, method.name)
        return self

    def _trainable(self, dataset: str, method: str) -> None:
        training, source = self.training(dataset, method), self.settings[dataset].data
        where = f"training of {method} on {dataset}"
        pieces = self.processes * training.accumulation
        if training.batch_size % pieces:
            raise ValueError(
                f"{where}: batch_size ({training.batch_size}) must be a multiple of processes x accumulation "
                f"({self.processes} x {training.accumulation})"
            )
        if training.precision == "tf32" and self.device == "cpu":
            raise ValueError(f"{where}: precision tf32 is one of NVIDIA GPUs; on device cpu choose fp32")
        shape = datasets.sample_shape(source.source, source.parameters)
        if training.flips and shape is not None and len(shape) != 3:
            raise ValueError(f"{where}: flips are of images, and {source.source} has points; set flips to false")

    def method(self, name: str) -> MethodSettings:
        """The settings of one method."""
        for method in self.methods:
            if method.name == name:
                return method
        raise ConfigError(f"unknown method {name!r}; this config has {', '.join(m.name for m in self.methods)}")

    def dataset(self, name: str) -> DataSetSettings:
        """The settings of one data set."""
        if name not in self.datasets:
            raise ConfigError(f"unknown data set {name!r}; this config has {', '.join(self.datasets)}")
        return self.settings[name]

    def training(self, dataset: str, method: str) -> TrainingSettings:
        """The training settings of a method on a data set: the data set's, with the method's overrides."""
        overrides = self.method(method).training.model_dump()
        return TrainingSettings.model_validate(self.settings[dataset].training.model_dump() | overrides)
