"""The shape of each JSON document that fmbench reads: the keys that its readers use, and the types of their values.

Other keys may be there, too. The class names appear in messages: "... is not a Manifest of this version of fmbench".
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

_Count = Annotated[int, Field(ge=0)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Shape = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]


class _Shaped(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class SplitEntry(_Shaped):
    """One split in a manifest."""

    n: Annotated[int, Field(ge=2)]
    sha256: _Sha256
    std: _NotNegative
    column_std: list[_NotNegative] | None = None
    labels_sha256: _Sha256 | None = None
    low_resolution_sha256: _Sha256 | None = None


class Splits(_Shaped):
    """The splits of a manifest."""

    train: SplitEntry
    test: SplitEntry


class Manifest(_Shaped):
    """``manifest.json`` of a prepared data set."""

    dataset: str
    spec: dict[str, Any]
    shape: _Shape
    levels: Annotated[int, Field(ge=2, le=256)] | None
    scale: _Positive | Annotated[list[_Positive], Field(min_length=1)]
    shift: _Finite | Annotated[list[_Finite], Field(min_length=1)]
    support: str | None
    entropy: _Finite | None
    classes: Annotated[int, Field(ge=1)] | None
    class_names: list[str] | None
    splits: Splits
    warnings: list[str]


class NamedMethod(_Shaped):
    """A method in a config that is written out."""

    name: str


class TrainedMethod(NamedMethod):
    """The method in the spec of a training."""

    oracle: dict[str, Any] | None


class TrainingSpec(_Shaped):
    """The spec of a training."""

    dataset: str
    method: TrainedMethod
    seed: int


class ModelConfig(_Shaped):
    """``config.json`` of a trained model."""

    spec: TrainingSpec
    spec_hash: str
    code_hash: str
    shape: _Shape
    parameters: _Count
    step: _Count
    reason: str


class ExtractorEntry(_Shaped):
    """One extractor in ``extractor.json``."""

    extractor: str
    options: dict[str, Any]
    suffix: str
    batch: Annotated[int, Field(ge=1)]
    name: str
    reference: Annotated[str, Field(pattern=r"^[^/\\]+$")]
    reference_name: str


class EvaluatorOfPoints(_Shaped):
    """``extractor.json`` of a data set of points."""

    name: str
    floor_n: _Count
    seed: int
    settings: dict[str, Any]
    median_distance: _Positive | None


class EvaluatorOfImages(_Shaped):
    """``extractor.json`` of a data set of images."""

    name: str
    floor_n: _Count
    seed: int
    settings: dict[str, Any]
    extractors: Annotated[list[ExtractorEntry], Field(min_length=1)]


class WrittenConfig(_Shaped):
    """A config with every data set and method written out."""

    datasets: Annotated[list[str], Field(min_length=1)]
    methods: Annotated[list[NamedMethod], Field(min_length=1)]
    seeds: Annotated[list[int], Field(min_length=1)]
    settings: dict[str, dict[str, Any]]


class Benchmark(_Shaped):
    """``benchmark.json`` of a results folder."""

    format: int
    config: WrittenConfig
    hash: str
    code: dict[str, list[str]]
    commits: list[str]
    versions: list[dict[str, str]]
    devices: list[str]
    threads: list[int]
    rows: _Count
    data: dict[str, dict[str, str]]
    gathered: dict[str, str]
    merged: list[str]
    notes: list[str]


class Cell(_Shaped):
    """An entry of a cache."""

    key: Any
    value: Any


class TrainingOfCheckpoints(_Shaped):
    """``about.json`` beside the checkpoints of a training."""

    spec: TrainingSpec
    code: str
    data: Any
    versions: dict[str, str]
    device: str
    began: _Finite | None = None


class AskedFor(_Shaped):
    """What a job asks a cluster for, and the seconds that were counted for it."""

    memory_mib: _Count
    minutes: _Count
    seconds: _Count


class Counted(_Shaped):
    """``resources.json``: what the jobs of each data set ask for, by stage, and those of each model, by method and stage."""

    key: str
    datasets: dict[str, dict[str, AskedFor]]
    models: dict[str, dict[str, dict[str, AskedFor]]]


class Checked(_Shaped):
    """``checked.json``: the config that has passed the stage ``check``."""

    key: str
