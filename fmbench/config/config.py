"""The whole config as typed settings, checked as a whole.

Imports nothing heavy: the Snakefile reads the config through here on every start.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)

from fmbench.config.base import GrownSettings, Name, Named, Parameters, Settings, ShortForm, known_name
from fmbench.config.condition_settings import LABEL, ConditionSettings, condition_problem
from fmbench.config.datasets import DATASETS, not_the_papers, sample_shape
from fmbench.config.evaluation_settings import EvaluationSettings
from fmbench.config.folder import results_folder
from fmbench.config.messages import FOLDER_PATTERN, in_words
from fmbench.config.method_settings import MethodSettings
from fmbench.config.network_settings import (
    MLPSettings,
    PluginNetworkSettings,
    TransformerSettings,
    UNetSettings,
    network_of_its_kind,
)
from fmbench.config.numbers import number, twice, whole_number
from fmbench.config.training_settings import TrainingSettings, why_no_jumps
from fmbench.errors import ConfigError


class SourceSettings(Settings):
    """The source of a data set."""

    source: Annotated[str, known_name("data set", DATASETS)]
    parameters: Parameters = Field({}, description="parameters of the source, such as the number of points")


class DataSetSettings(GrownSettings):
    """Everything about one data set: its source, the network for it, training and evaluation."""

    later = ("condition",)

    data: Annotated[SourceSettings, ShortForm("source")]
    condition: ConditionSettings | None = Field(
        None, description="what networks are told of each sample: label, or {low_resolution: {factor: 4}}; null for nothing"
    )
    network: Annotated[
        MLPSettings | UNetSettings | TransformerSettings | PluginNetworkSettings, BeforeValidator(network_of_its_kind)
    ]
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()


LONG_TRAINING = 600.0
"""Seconds after which MLflow also shows the machine, unless the config says otherwise."""


class TrackingSettings(Settings):
    """MLflow, which mirrors the records for browsing."""

    enabled: bool = True
    uri: str | None = Field(None, description="a tracking server; null for sqlite under results_dir/mlflow")
    live_after: Annotated[float, Field(ge=0), BeforeValidator(number)] = Field(
        60.0,
        description="show a training live once it has lasted this many seconds; shorter ones appear when records are collected",
    )
    models: bool = Field(False, description="copy finished networks to MLflow, as models with a signature")
    system_metrics: bool | None = Field(
        None,
        description="show processor, memory, disk, network and GPUs of trainings that appear live: true from their start, false "
        "never, null after ten minutes of training",
    )

    @property
    def system_metrics_after(self) -> float:
        """Seconds of training after which the machine is shown."""
        return LONG_TRAINING if self.system_metrics is None else 0.0 if self.system_metrics else math.inf


MOST_MODELS = 10_000
"""The most models of a run: data sets times methods times seeds."""


class Config(Settings):
    """The whole benchmark."""

    results_dir: Annotated[str, Field(min_length=1, pattern=FOLDER_PATTERN), AfterValidator(results_folder)] = Field(
        "results", description="the results folder; ~ and $ are not expanded"
    )
    seeds: Annotated[
        list[Annotated[int, Field(ge=0, lt=2**31), BeforeValidator(whole_number)]], Field(min_length=1, max_length=MOST_MODELS)
    ] = [0, 1]
    device: Literal["cpu", "cuda"] = Field("cpu", description="the device of training and evaluation; part of every result")
    processes: Annotated[int, Field(ge=1, le=4096), BeforeValidator(whole_number)] = Field(
        1,
        description="processes of one training, each with its share of every batch and, with device cuda, its own GPU. Part of "
        "every trained model, since sums are rounded in another order and each process draws its own dropout masks",
    )
    datasets: Annotated[list[Name], Field(min_length=1, max_length=MOST_MODELS)]
    methods: Annotated[
        list[Named[MethodSettings]],
        Field(min_length=1, max_length=MOST_MODELS, description="names of known methods, or methods written out"),
    ]
    settings: dict[Name, DataSetSettings]
    tracking: TrackingSettings = TrackingSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._check_number_of_models()
        self._check_nothing_is_listed_twice()
        missing = [d for d in self.datasets if d not in self.settings]
        if missing:
            raise ValueError(
                f"unknown data set {', '.join(missing)}: settings has {', '.join(self.settings)}. "
                "Add an entry under settings with data, network, training and evaluation"
            )
        self._check_teachers()
        for dataset in self.datasets:
            self._check_source(dataset)
            self._check_condition(dataset)
            for method in self.methods:
                if not method.is_oracle:
                    self._check_training(dataset, method.name)
        return self

    def _check_number_of_models(self) -> None:
        datasets, methods, seeds = len(self.datasets), len(self.methods), len(self.seeds)
        if datasets * methods * seeds > MOST_MODELS:
            raise ValueError(
                f"{datasets:,} data sets x {methods:,} methods x {seeds:,} seeds are {datasets * methods * seeds:,} models, but "
                f"a run has at most {MOST_MODELS:,}; make several runs, each with its own results_dir"
            )

    def _check_nothing_is_listed_twice(self) -> None:
        lists: dict[str, Sequence[int | str]] = {
            "seed": self.seeds,
            "data set": self.datasets,
            "method": [m.name for m in self.methods],
        }
        for what, values in lists.items():
            if repeated := twice(values):
                raise ValueError(f"{what} {', '.join(map(str, repeated))} is listed more than once")
            if folders := twice([str(value).casefold() for value in values]):
                alike = [str(value) for value in values if str(value).casefold() == folders[0]]
                raise ValueError(
                    f"{what} {' and '.join(alike)} differ in upper and lower case alone, so some disks would keep them in one "
                    "folder; choose another name"
                )

    def _check_teachers(self) -> None:
        teachers = {m.name: m.taught_by for m in self.methods}
        for method, teacher in teachers.items():
            if teacher is None:
                continue
            if teacher not in teachers:
                raise ValueError(
                    f"{method} is trained on samples of {teacher}, which this config does not train; add {teacher} to methods"
                )
            chain = [method]
            while (above := teachers.get(chain[-1])) is not None:
                if above in chain:
                    raise ValueError(f"the teachers {' of '.join(chain)} go round in a circle; choose another teacher")
                chain.append(above)
            if conditioned := [d for d in self.datasets if self.settings[d].condition is not None]:
                raise ValueError(
                    f"{method} is trained on samples of {teacher}, which goes with data sets without a condition; leave out the "
                    f"method, or the condition of {', '.join(conditioned)}"
                )

    def _check_source(self, dataset: str) -> None:
        if dataset.casefold() == "all":
            raise ValueError(f"a data set cannot be called {dataset}, since claims.csv has verdicts on all; choose another name")
        source = self.settings[dataset].data
        if differs := not_the_papers(dataset, source.source, source.parameters):
            raise ValueError(
                f"{dataset} is a data set of the paper ({differs}), and tables show the paper's numbers beside that name. "
                "Give this data set another name"
            )

    def _check_condition(self, dataset: str) -> None:
        settings = self.settings[dataset]
        if settings.training.label_dropout and settings.condition != LABEL:
            raise ValueError(f"settings.{dataset}.training.label_dropout: there is no label to leave out; set condition: label")
        if settings.evaluation.guidance != 1 and not settings.training.label_dropout:
            raise ValueError(
                f"settings.{dataset}.evaluation.guidance: it needs networks that also know the data without the label; set "
                "condition: label and a training.label_dropout, such as 0.1"
            )
        data = settings.data
        if problem := condition_problem(settings.condition, data.source, data.parameters, settings.network.kind):
            raise ValueError(f"settings.{dataset}.{problem}")

    def _check_training(self, dataset: str, method: str) -> None:
        where = f"training of {method} on {dataset}"
        try:
            training = self.training(dataset, method)
        except ValidationError as error:
            message = "; ".join(in_words(e) for e in error.errors())
            raise ValueError(f"{where}: {message}") from None
        if training.batch_size % (self.processes * training.accumulation):
            raise ValueError(
                f"{where}: batch_size ({training.batch_size}) must be a multiple of processes x accumulation "
                f"({self.processes} x {training.accumulation})"
            )
        if training.precision == "tf32" and self.device == "cpu":
            raise ValueError(f"{where}: precision tf32 needs an NVIDIA GPU; with device cpu choose fp32")
        if self.method(method).jumps_too and (problem := why_no_jumps(training, self.processes)):
            raise ValueError(f"{where}: {problem}")
        source = self.settings[dataset].data
        shape = sample_shape(source.source, source.parameters)
        if training.flips and shape is not None and len(shape) != 3:
            raise ValueError(f"{where}: flips are for images, but {source.source} has points; set flips to false")

    def method(self, name: str) -> MethodSettings:
        """The settings of one method.

        Raises:
            ConfigError: this config does not have it.
        """
        for method in self.methods:
            if method.name == name:
                return method
        raise ConfigError(f"unknown method {name!r}; this config has {', '.join(m.name for m in self.methods)}")

    def dataset(self, name: str) -> DataSetSettings:
        """The settings of one data set.

        Raises:
            ConfigError: this config does not have it.
        """
        if name not in self.datasets:
            raise ConfigError(f"unknown data set {name!r}; this config has {', '.join(self.datasets)}")
        return self.settings[name]

    def training(self, dataset: str, method: str) -> TrainingSettings:
        """The training settings of a method on a data set: those of the data set with the method's overrides."""
        overrides = self.method(method).training.model_dump()
        return TrainingSettings.model_validate(self.settings[dataset].training.model_dump() | overrides)
