"""The config: typed, closed to unknown keys, checked as a whole, and cut into the piece each job depends on.

Imports nothing heavy: the Snakefile reads the config through here on every start.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from fmbench import names
from fmbench.cells import Cell, cells
from fmbench.errors import ConfigError
from fmbench.methods import METHODS, ORACLES, Method, Part
from fmbench.milestones import snapshot_steps
from fmbench.plugins import is_dotted, resolve

_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]([+-]?)(\d+))?")


def _number(value: Any) -> Any:
    number = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if number is None:
        return value
    mantissa, sign, exponent = number.groups()
    if exponent is None:
        raise ValueError(f"the number {value!r} is written as a string: write {float(value):.15g}, without quotes")
    dotted = re.sub(r"^([+-]?)\.", r"\g<1>0.", mantissa) if "." in mantissa else f"{mantissa}.0"
    written = f"{dotted}e{sign or '+'}{exponent}"
    plain = f", or {float(value):.0f}" if float(value).is_integer() else ""
    raise ValueError(
        f"the number {value!r} is written as a string: in YAML an exponent needs a dot before it and a sign in it, and no quotes "
        f"around: write {written}{plain}"
    )


def _whole_number(value: Any) -> Any:
    number = float(value) if isinstance(value, float) or (isinstance(value, str) and _NUMBER.fullmatch(value)) else None
    if number is not None and number.is_integer():
        kind = "a string" if isinstance(value, str) else "a decimal"
        raise ValueError(f"the number {value!r} is written as {kind}, and must be a whole one: write {number:.0f}")
    return _number(value)


class Settings(BaseModel):
    """Base of all settings: no unknown keys, no silent conversions, no change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


# The bounds come before the validators: after one, pydantic does not know them for the JSON schema.
Number = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_number)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_number)]
Decay = Annotated[float, Field(ge=0, lt=1), BeforeValidator(_number)]
Count = Annotated[int, Field(ge=1), BeforeValidator(_whole_number)]
Several = Annotated[int, Field(ge=2), BeforeValidator(_whole_number)]
"""A number of samples: one has no spread."""
Natural = Annotated[int, Field(ge=0), BeforeValidator(_whole_number)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$")]
Precision = Literal["fp32", "tf32", "bf16", "fp16"]


def _known(what: str, known: tuple[str, ...], dotted: bool = True) -> BeforeValidator:
    """``dotted``: whether it may be somebody's own."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and value not in known and not (dotted and is_dotted(value)):
            or_own = "; or a dotted name 'package.module:ATTRIBUTE'" if dotted else ""
            raise ValueError(f"unknown {what} {value!r}; known: {', '.join(known)}{or_own}")
        return value

    return BeforeValidator(check)


def _plain(value: Any) -> Any:
    """What JSON has, all the way down, without numbers written as strings."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} is not text; put it in quotes")
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _plain(inner)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number; choose one that is")
    elif not isinstance(value, str | int | float | None):
        raise ValueError(
            f"{value} is a {type(value).__name__}, and a parameter is text, a number, true, false, null, a list or a mapping; "
            "put it in quotes if it is text"
        )
    return _number(value) if isinstance(value, str) and re.search("[eE]", value) else value


Parameters = dict[str, Annotated[Any, BeforeValidator(_plain)]]
"""Parameters of a part, open to any name and to every type of JSON; 1e-4 is a string in YAML here too."""


def _by_name(value: Any) -> Any:
    """``vp`` is short for ``{name: vp}``."""
    return {"name": value} if isinstance(value, str) else value


class PathPart(Settings):
    """The probability path: a name and the parameters that path takes."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    name: Annotated[str, _known("path", names.PATHS)]
    __pydantic_extra__: Parameters


class PredictionPart(Settings):
    """What the network predicts."""

    name: Annotated[str, _known("prediction", names.PREDICTIONS)]


class WeightingPart(Settings):
    """The weight of the loss over time."""

    name: Annotated[str, _known("weighting", names.WEIGHTINGS)]


class TimePart(Settings):
    """The distribution of training times and its parameters."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    name: Annotated[str, _known("time distribution", names.TIME_DISTRIBUTIONS)]
    __pydantic_extra__: Parameters


class TrainingSettings(Settings):
    """Optimiser, schedule and budget: the same for every method unless a method overrides it."""

    iterations: Count = 5000
    batch_size: Count = 256
    learning_rate: Positive = 1e-3
    schedule: Literal["polynomial", "constant"] = Field(
        "polynomial", description="polynomial: linear warm-up, then linear decay to 1e-8 at the last step (appendix E.2)"
    )
    warmup_iterations: Natural = 0
    betas: Annotated[list[Decay], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    adam_epsilon: Positive = 1e-8
    ema_decay: Decay = 0.999
    more_ema_decays: list[Decay] = Field(
        [], description="further averages kept at once, written to averages.safetensors; evaluated is that of ema_decay"
    )
    clip_norm: Positive | None = Field(None, description="clip the gradient's norm; null for the paper's none")
    precision: Precision = Field(
        "fp32",
        description="of the network's products and convolutions in training: fp32; tf32 (NVIDIA GPUs); bf16 or fp16 by autocast, "
        "with float32 weights, loss and optimiser, fp16 with a loss scaler. On a CPU 16 bits are for trials: the same "
        "rounding, no speed",
    )
    compile: bool = Field(
        False,
        description="torch.compile of the network, and on one GPU, but with fp16, a CUDA graph of the step, averages apart; "
        "their time is compile_seconds",
    )
    accumulation: Count = Field(
        1,
        description="micro-batches that a batch is cut into, for less memory: without dropout, whose masks are drawn for each, "
        "the same gradient to rounding",
    )
    flips: bool = Field(False, description="mirror each training image left to right with probability 1/2; images only")
    resident_mib: Natural = Field(
        4096, description="a training split of at most so many MiB is held on the device, a larger one streamed: the same batches"
    )
    snapshots: Natural = Field(5, description="averaged weights are kept at so many evenly spaced iterations, the last included")
    checkpoint_every: Count = 500
    log_every: Count = 50

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.warmup_iterations >= self.iterations:
            raise ValueError(f"warmup_iterations ({self.warmup_iterations}) must be less than iterations ({self.iterations})")
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of accumulation ({self.accumulation}): its micro-batches "
                "weigh the same"
            )
        decays = [self.ema_decay, *self.more_ema_decays]
        twice = sorted({d for d in decays if decays.count(d) > 1})
        if twice:
            raise ValueError(f"more_ema_decays: {twice[0]} is there already, as ema_decay or twice")
        return self

    def snapshot_steps(self) -> list[int]:
        """As the training itself finds them, whose code counts where this module's does not."""
        return snapshot_steps(self.iterations, self.snapshots)


class TrainingOverrides(Settings):
    """A method's own training settings, over those of the data set. What is not set is not in a dump either."""

    iterations: Count | SkipJsonSchema[None] = None
    batch_size: Count | SkipJsonSchema[None] = None
    learning_rate: Positive | SkipJsonSchema[None] = None
    schedule: Literal["polynomial", "constant"] | SkipJsonSchema[None] = None
    warmup_iterations: Natural | SkipJsonSchema[None] = None
    ema_decay: Decay | SkipJsonSchema[None] = None
    clip_norm: Positive | None = Field(None, description="null for none, where the data set has one")
    precision: Precision | SkipJsonSchema[None] = None
    accumulation: Count | SkipJsonSchema[None] = None

    @field_validator("*", mode="before")
    @classmethod
    def _set(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None and info.field_name != "clip_norm":
            raise ValueError("null sets nothing; give a value, or leave the key out for the data set's own")
        return value

    @model_serializer
    def _what_is_set(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in type(self).model_fields if key in self.model_fields_set}


class OracleSettings(Settings):
    """A method without a network: the closed-form field of the training set."""

    points: Count = Field(2000, description="so many points of the training set, at random; time goes with it, memory does not")
    bandwidth: Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_number)] | None = Field(
        None,
        description="standard deviation of the Gaussian about each point, in model units; null takes, for images, that of a "
        "uniform within one level, and for points the one with the largest leave-one-out likelihood; 0 is the points themselves",
    )


class MethodSettings(Settings):
    """A method: the name of a known one, or path + prediction + weighting + time distribution written out.

    With ``oracle`` there is no network, only a path.
    """

    name: Name
    use: str | None = Field(
        None, description="start from a known method, or from 'package.module:MY_METHOD', a fmbench.methods.Method"
    )
    path: Annotated[PathPart, BeforeValidator(_by_name, json_schema_input_type=str | PathPart)] | None = None
    prediction: Annotated[PredictionPart, BeforeValidator(_by_name, json_schema_input_type=str | PredictionPart)] | None = None
    weighting: Annotated[WeightingPart, BeforeValidator(_by_name, json_schema_input_type=str | WeightingPart)] | None = None
    time: Annotated[TimePart, BeforeValidator(_by_name, json_schema_input_type=str | TimePart)] | None = None
    t_min: Number | None = None
    t_max: Number | None = None
    oracle: OracleSettings | None = None
    training: TrainingOverrides = TrainingOverrides()

    @property
    def is_oracle(self) -> bool:
        """Whether nothing is trained, as far as that is known without importing somebody's module."""
        return self.oracle is not None or (self.use or self.name) in ORACLES

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.use is not None and not is_dotted(self.use) and self.use not in METHODS:
            raise ValueError(f"use: unknown method {self.use!r}; known: {', '.join(METHODS)}; or 'package.module:MY_METHOD'")
        parts = ("use", "path", "prediction", "weighting", "time", "t_min", "t_max", "oracle")
        changed = [k for k in parts if getattr(self, k) is not None]
        if self.name in METHODS and changed:
            raise ValueError(
                f"{self.name} is a known method, which tables and figures show by that name, so its {', '.join(changed)} cannot "
                f"be changed. Give the variant a name of its own: {{name: my_{self.name}, use: {self.name}, ...}}"
            )
        if self.name == "data":
            raise ValueError("a method cannot be called data: figures show the real data by that name")
        if self.is_oracle:
            trained = [k for k in ("prediction", "weighting", "time") if getattr(self, k) is not None]
            trained += sorted(self.training.model_dump())
            if trained:
                raise ValueError(f"{self.name} is an oracle: nothing is trained, so {', '.join(trained)} would change nothing")
        needed = self.path is None or (self.prediction is None and self.oracle is None)
        if self.name not in METHODS and self.use is None and needed:
            raise ValueError(
                f"unknown method {self.name!r}; known: {', '.join(METHODS)}. A method of your own needs at least "
                "path and prediction (weighting and time are uniform unless given), or path and oracle: {}, or "
                "use: package.module:MY_METHOD"
            )
        return self

    def resolve(self) -> Method:
        """The method with every ingredient filled in."""
        given: dict[str, Any] = {}
        for name in ("path", "prediction", "weighting", "time"):
            settings = getattr(self, name)
            if settings is not None:
                values = settings.model_dump()
                given[name] = Part(values.pop("name"), values)
        given |= {name: getattr(self, name) for name in ("t_min", "t_max") if getattr(self, name) is not None}
        if self.oracle is not None:
            given["oracle"] = self.oracle.model_dump()
            given.setdefault("prediction", Part("velocity"))

        base: Method | None = METHODS.get(self.name)
        if self.use is not None:
            try:
                base = resolve(METHODS, "method", self.use)
            except ValueError as error:
                raise ConfigError(str(error)) from None
            if not isinstance(base, Method):
                raise ConfigError(f"{self.use} is a {type(base).__name__}, not a fmbench.methods.Method")
        if base is None:
            return Method(name=self.name, **given)
        return dataclasses.replace(base, name=self.name, **given)


class MLPSettings(Settings):
    """The MLP for points (fmbench/networks/mlp.py)."""

    kind: Literal["mlp"]
    width: Count = 512
    depth: Count = 5
    time_embedding: Literal["raw", "sinusoidal"] = "raw"
    time_dimension: Count = 32
    max_frequency: Positive = 60.0


class UNetSettings(Settings):
    """The ADM U-Net for images (fmbench/networks/unet.py)."""

    kind: Literal["unet"]
    channels: Count = 128
    channels_multiple: Annotated[list[Count], Field(min_length=1)] = [1, 2, 2, 2]
    depth: Count = 2
    attention_resolutions: list[Count] = [16]
    head_channels: Count = 64
    dropout: Decay = 0.0
    resample_blocks: bool = True
    max_frequency: Positive = Field(1000.0, description="top frequency of the time embedding, rad per unit t; ADM: 1000")


class PluginNetworkSettings(Settings):
    """A network of your own: a dotted name of a class called as cls(shape, **parameters)."""

    kind: Annotated[str, Field(pattern=":")]
    parameters: Parameters = {}


def _network_kind(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    kind = value.get("kind")
    known: dict[str, type[Settings]] = {"mlp": MLPSettings, "unet": UNetSettings}
    if not isinstance(kind, str):
        raise ValueError(f"a network needs a kind: {', '.join(names.NETWORKS)}, or a dotted name")
    if kind not in known and not is_dotted(kind):
        raise ValueError(f"unknown network kind {kind!r}; known: {', '.join(names.NETWORKS)}; or a dotted name")
    chosen = known.get(kind, PluginNetworkSettings)
    others = {*MLPSettings.model_fields, *UNetSettings.model_fields, *PluginNetworkSettings.model_fields}
    strange = [key for key in value if key in others - set(chosen.model_fields)]
    if strange:
        raise ValueError(
            f"a network of kind {kind} takes {', '.join(chosen.model_fields)}, and not {', '.join(strange)}. If these are of an "
            "earlier config file: files are laid over each other key by key, so its keys stay; give your data set a name that no "
            "earlier file has"
        )
    return chosen.model_validate(value)  # against that kind alone, for errors to the point


class SampleSettings(Settings):
    """The adaptive solve that makes the samples."""

    n: Several = 1000
    batch: Count = 1000
    rtol: Positive = 1e-5
    atol: Positive = 1e-5
    shared_batch: Count = Field(256, description="batch of the second solve, whose samples share one step size")
    max_nfe: Count = 5000


class LikelihoodSettings(Settings):
    """NLL of the test split."""

    n: Several | None = Field(None, description="the first n test samples; null for every one")
    batch: Count = 1000
    rtol: Positive = 1e-5
    atol: Positive = 1e-5
    exact_up_to: Natural = Field(16, description="exact divergence up to this many dimensions, Hutchinson's above")
    probes: Count = 1
    probe: Literal["rademacher", "gaussian"] = "rademacher"
    mode: Literal["reverse", "forward"] = Field(
        "reverse", description="how probes are applied: forward mode needs less memory and more time"
    )


Solver = Annotated[str, _known("solver", tuple(names.STEP_COSTS), dotted=False)]


class SolverSettings(Settings):
    """A fixed-step solver with its own time grid and list of NFE."""

    name: Solver
    grid: Literal["uniform", "karras", "log_snr", "cosine"] = "uniform"
    nfe: Annotated[list[Count], Field(min_length=1)] | None = Field(None, description="null for the sweep's own list")


def _spend(solver: str, nfe: int, remedy: str) -> None:
    cost = names.STEP_COSTS[solver]
    if nfe % cost:
        raise ValueError(f"{solver} costs {cost} evaluations a step and cannot spend exactly {nfe}; {remedy}")


class FixedStepSettings(Settings):
    """Fixed-step solvers at several NFE."""

    nfe: Annotated[list[Count], Field(min_length=1)] = [4, 8, 12, 20, 40, 60, 100]
    solvers: Annotated[
        list[Annotated[SolverSettings, BeforeValidator(_by_name, json_schema_input_type=str | SolverSettings)]],
        Field(min_length=1, description="names, or {name: midpoint, grid: karras, nfe: [4, 8]}"),
    ] = [SolverSettings(name=name) for name in ("euler", "midpoint", "heun", "rk4")]

    @model_validator(mode="after")
    def _spendable(self) -> Self:
        for solver, _, nfe in self.cells():
            own = f"or a list of its own: solvers: [{{name: {solver}, nfe: [...]}}]"
            _spend(solver, nfe, f"give multiples of {names.STEP_COSTS[solver]}, {own}")
        return self

    def cells(self) -> list[Cell]:
        """As the stages themselves find them, whose code counts where this module's does not."""
        return cells(self.solvers, self.nfe)


class SweepSettings(FixedStepSettings):
    """Fixed-step solvers against a fine reference."""

    n: Count = 256
    batch: Count = 256
    reference_solver: Solver = Field(
        "midpoint",
        description="midpoint never evaluates the end of a diffusion path, where a noise-predicting field is stiff; rk4 does",
    )
    reference_nfe: Count = 1000
    reference_check_n: Count = Field(16, description="samples on which the reference itself is checked by dopri5 at 1e-7")

    @model_validator(mode="after")
    def _reference_spendable(self) -> Self:
        remedy = f"make reference_nfe a multiple of {names.STEP_COSTS[self.reference_solver]}, or choose another reference_solver"
        _spend(self.reference_solver, self.reference_nfe, remedy)
        return self


class AlongSettings(Settings):
    """NFE and quality along training: at each snapshot of the averaged weights (Fig. 5 and 10 of Lipman et al. 2023)."""

    n: Several = Field(256, description="samples for each snapshot, by the adaptive solver; distances depend on their number")
    batch: Count = 1000
    rtol: Positive = 1e-5
    atol: Positive = 1e-5
    max_nfe: Count = 5000


class BudgetSettings(FixedStepSettings):
    """Samples made with few evaluations (Fig. 4 right, 7 right, 16 and 17 of Lipman et al. 2023)."""

    n: Several = Field(256, description="samples of each cell; distances depend on their number")
    batch: Count = 1000
    nfe: Annotated[list[Count], Field(min_length=1)] = [4, 8, 12, 20, 40, 100]
    solvers: Annotated[
        list[Annotated[SolverSettings, BeforeValidator(_by_name, json_schema_input_type=str | SolverSettings)]],
        Field(min_length=1, description="names, or {name: midpoint, grid: karras, nfe: [4, 8]}"),
    ] = [SolverSettings(name=name) for name in ("euler", "midpoint", "rk4")]
    shown: Natural | None = Field(
        None, description="the first so many samples of a cell are kept as pictures; null for 16 images, or for all n points"
    )


class StatesSettings(Settings):
    """States on the way from noise to data (Fig. 4 left, 6 and 9 of Lipman et al. 2023), by the adaptive solver."""

    n: Count | None = Field(None, description="null for 32 images, or 4000 points: enough for a density")
    batch: Count = 4000
    times: Annotated[list[Annotated[float, Field(ge=0, le=1), BeforeValidator(_number)]], Field(min_length=1)] = Field(
        [0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0], description="0 is noise, 1 data; a path that ends sooner is shown at its end"
    )
    rtol: Positive = 1e-5
    atol: Positive = 1e-5
    max_nfe: Count = 5000

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if any(later <= sooner for sooner, later in itertools.pairwise(self.times)):
            raise ValueError(f"times must increase, not {self.times}")
        return self


class DrawsSettings(Settings):
    """NLL of images over the number of dequantisation draws, by both estimators: Table 4."""

    n: Several = Field(64, description="the first so many test images")
    draws: Annotated[list[Count], Field(min_length=1)] = [1, 5, 20]
    probes: Several = Field(
        4, description="Hutchinson probes averaged for each draw, in one solve; the paper's estimator has the first of them"
    )
    probe: Literal["rademacher", "gaussian"] = "rademacher"
    mode: Literal["reverse", "forward"] = Field("reverse", description="how probes are applied, as in likelihood")
    exact_up_to: Natural = Field(0, description="exact divergence up to this many dimensions, in place of the averaged probes")
    batch: Count = 1000
    rtol: Positive = 1e-5
    atol: Positive = 1e-5

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        twice = sorted({k for k in self.draws if self.draws.count(k) > 1})
        if twice:
            raise ValueError(f"draws: {', '.join(map(str, twice))} is listed more than once")
        return self


class ExtractorSettings(Settings):
    """A feature extractor of images and its options."""

    extractor: Annotated[str, _known("extractor", tuple(names.EXTRACTORS))]
    options: Parameters = Field({}, description="inception: weights (a path); efficientnet_lite0: size; a dotted name: its own")

    @model_validator(mode="after")
    def _takes_its_options(self) -> Self:
        known = names.EXTRACTORS.get(self.extractor)
        unknown = [] if known is None else sorted(set(self.options) - set(known))
        if unknown:
            takes = "takes none; its settings stand beside it: epochs, width, ..." if not known else f"takes {', '.join(known)}"
            raise ValueError(f"the extractor {self.extractor} has no option {', '.join(unknown)}: it {takes}")
        weights, size = self.options.get("weights"), self.options.get("size", 1)
        if self.extractor == "inception" and not isinstance(weights, str | None):
            raise ValueError(f"options.weights must be the path of a file, as text, not {weights!r}")
        if self.extractor == "efficientnet_lite0" and (type(size) is not int or size < 1):
            raise ValueError(f"options.size must be a whole number of pixels, 1 or more, not {size!r}")
        return self


class KidSettings(Settings):
    """The subsets of the kernel distance."""

    subsets: Several = 100
    size: Several = Field(1000, description="features of one subset; half of those there are, where they are fewer than twice it")


class FeatureSettings(Settings):
    """What judges the samples: of images, distances on an extractor's features; of points, distances in the plane."""

    extractor: Annotated[str, _known("extractor", tuple(names.EXTRACTORS))] = Field(
        "classifier",
        description="whose features the tables' distance is of: classifier (trained in the DAG on the data set's labels), "
        "inception (the FID's), efficientnet_lite0, or a dotted name 'package.module:FACTORY'",
    )
    options: Parameters = Field({}, description="inception: weights (a path); efficientnet_lite0: size; a dotted name: its own")
    also: list[
        Annotated[
            ExtractorSettings,
            BeforeValidator(
                lambda v: {"extractor": v} if isinstance(v, str) else v, json_schema_input_type=str | ExtractorSettings
            ),
        ]
    ] = Field([], description="further extractors, whose rows have their name behind the metric's: frechet/efficientnet_lite0")
    epochs: Count = Field(20, description="epochs, batch_size, learning_rate and width are the classifier's")
    batch_size: Count = 64
    learning_rate: Positive = 2e-3
    width: Count = 16
    batch: Count = Field(50, description="images at a time through an extractor that is not the classifier")
    reference_n: Several | None = Field(None, description="so many training images, drawn at random; null for every one")
    most: Several = Field(
        10000, description="at most so many features or points on each side, where time goes with their square (not Frechet)"
    )
    kid: KidSettings = KidSettings()
    nearest: Count = Field(3, description="k of precision and recall: a ball reaches to the k-th nearest feature")
    splits: Count = Field(10, description="of the Inception Score")
    infinity: Annotated[int, Field(ge=3), BeforeValidator(_whole_number)] | None = Field(
        None, description="sizes that the distance is taken at and extrapolated from to infinitely many samples; null for none"
    )
    projections: Count = Field(128, description="directions of the sliced Wasserstein distance of points")

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        chosen = [part.extractor for part in self.extractors()]
        twice = sorted({name for name in chosen if chosen.count(name) > 1})
        if twice:
            raise ValueError(f"the extractor {', '.join(twice)} is listed more than once")
        return self

    def extractors(self) -> list[ExtractorSettings]:
        """Every extractor, the tables' first."""
        return [ExtractorSettings(extractor=self.extractor, options=self.options), *self.also]

    def used(self) -> dict[str, Any]:
        """The settings without the classifier's, where there is none."""
        values = self.model_dump()
        if "classifier" not in [part.extractor for part in self.extractors()]:
            for name in ("epochs", "batch_size", "learning_rate", "width"):
                del values[name]
        return values


class EvaluationSettings(Settings):
    """What is measured on every trained model."""

    sample: SampleSettings = SampleSettings()
    likelihood: LikelihoodSettings = LikelihoodSettings()
    sweep: SweepSettings = SweepSettings()
    draws: DrawsSettings = DrawsSettings()
    along: AlongSettings = AlongSettings()
    budget: BudgetSettings = BudgetSettings()
    states: StatesSettings = StatesSettings()
    features: FeatureSettings = FeatureSettings()


class DataSettings(Settings):
    """Where a data set comes from."""

    source: Annotated[str, _known("data set", names.DATASETS)]
    parameters: Parameters = Field({}, description="what that source takes, such as the number of points")


class DataSetSettings(Settings):
    """Everything about one data set: its source, the network on it, training and evaluation."""

    data: Annotated[
        DataSettings,
        BeforeValidator(lambda v: {"source": v} if isinstance(v, str) else v, json_schema_input_type=str | DataSettings),
    ]
    network: Annotated[MLPSettings | UNetSettings | PluginNetworkSettings, BeforeValidator(_network_kind)]
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()


class TrackingSettings(Settings):
    """MLflow, a mirror of the records for browsing."""

    enabled: bool = True
    uri: str | None = Field(None, description="a tracking server; null for sqlite under results_dir/mlflow")
    live_after: Annotated[float, Field(ge=0), BeforeValidator(_number)] = Field(
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
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31), BeforeValidator(_whole_number)]], Field(min_length=1)] = [0, 1]
    device: Literal["cpu", "cuda"] = Field("cpu", description="what models are trained and evaluated on; part of every result")
    processes: Count = Field(
        1,
        description="processes of one training, each with its share of every batch, on its own GPU if the device is cuda; part "
        "of every trained model, as sums are rounded in another order and each draws dropout masks of its own",
    )
    datasets: Annotated[list[Name], Field(min_length=1)]
    methods: Annotated[
        list[Annotated[MethodSettings, BeforeValidator(_by_name, json_schema_input_type=str | MethodSettings)]],
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
            if differs := names.not_the_papers(dataset, source.source, source.parameters):
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
        shape = names.sample_shape(source.source, source.parameters)
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


def parse(values: Mapping[str, Any]) -> Config:
    """Check a config read from YAML.

    Raises:
        ConfigError: one line for each thing wrong, with where it stands.
    """
    try:
        return Config.model_validate(dict(values))
    except RecursionError:  # as Snakemake hands it over
        raise ConfigError("the config holds itself: an alias (*) stands inside of what its anchor (&) names") from None
    except ValidationError as error:
        raise ConfigError("the config has errors:\n" + "\n".join(_explain(e) for e in error.errors())) from None


def _explain(error: Any) -> str:
    # Positions of unions carry the names of the models tried; they mean nothing to the reader.
    where = ".".join(str(p) for p in error["loc"] if not (isinstance(p, str) and ("Settings" in p or "[" in p)))
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "unknown key"
    elif error["type"] == "missing":
        message = "this key is missing"
    return f"  {where or 'config'}: {message}"


def load(*files: str) -> Config:
    """Read YAML files, later ones laid over earlier ones (mappings merge, everything else is replaced)."""
    from fmbench.yamlfile import read

    merged: dict[str, Any] = {}
    for file in files:
        try:
            _lay_over(merged, read(file))
        except RecursionError:
            raise ConfigError(f"{file} holds itself: an alias (*) stands inside of what its anchor (&) names") from None
    return parse(merged)


def _lay_over(base: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _lay_over(base[key], value)
        else:
            base[key] = _apart(value)


def _apart(value: Any) -> Any:
    """A copy in which what a file has under two names, by an alias, is two things: a later file may change one of them."""
    if isinstance(value, dict):
        return {key: _apart(inner) for key, inner in value.items()}
    return [_apart(inner) for inner in value] if isinstance(value, list) else value


def canonical(values: Any) -> str:
    """JSON with sorted keys and no spaces: the same text for the same settings, whatever order they were written in."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def settings_hash(values: Any) -> str:
    """The first 16 hex digits of the sha256 of :func:`canonical`."""
    return hashlib.sha256(canonical(values).encode()).hexdigest()[:16]


def method_values(method: Method) -> dict[str, Any]:
    """A method as plain values, parts with their parameters."""
    return dataclasses.asdict(method)


def method_from_values(values: Mapping[str, Any]) -> Method:
    """The inverse of :func:`method_values`."""
    parts: dict[str, Any] = {k: Part(**values[k]) for k in ("path", "prediction", "weighting", "time")}
    return Method(name=values["name"], t_min=values["t_min"], t_max=values["t_max"], oracle=values["oracle"], **parts)
