"""A method in a config: a known name, or path, prediction, weighting, time distribution and coupling written out."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from fmbench.config import names
from fmbench.config.base import GrownSettings, Name, Named, OpenSettings, Settings, known_name
from fmbench.config.messages import described
from fmbench.config.methods import METHODS, MORE_PARTS, ORACLES, PARTS, TEACHER, Method, Part
from fmbench.config.numbers import Count, Number, Positive, number, whole_number
from fmbench.config.plugins import is_dotted, resolve
from fmbench.config.training_settings import TrainingOverrides
from fmbench.errors import ConfigError


class PathSettings(OpenSettings):
    """The probability path and its parameters."""

    name: Annotated[str, known_name("path", names.PATHS)]


class PredictionSettings(OpenSettings):
    """What the network predicts, and its parameters."""

    name: Annotated[str, known_name("prediction", names.PREDICTIONS)]


class WeightingSettings(Settings):
    """The weight of the loss over time."""

    name: Annotated[str, known_name("weighting", names.WEIGHTINGS)]


class TimeSettings(OpenSettings):
    """The distribution of training times and its parameters."""

    name: Annotated[str, known_name("time distribution", names.TIME_DISTRIBUTIONS)]


class CouplingSettings(OpenSettings):
    """Which noise goes with which data of a batch, and the coupling's parameters."""

    name: Annotated[str, known_name("coupling", names.COUPLINGS)]


class TargetSettings(Settings):
    """What the loss compares the network with."""

    name: Literal["conditional", "marginal"]


class JumpSettings(OpenSettings):
    """What a network learns to jump by, and its parameters."""

    name: Annotated[str, known_name("kind of jumps", names.JUMP_KINDS)]


class TeacherSettings(Settings):
    """The method of this config whose samples are trained on, with the noise they were made of (reflow; Liu et al. 2022)."""

    name: Name
    pairs: Annotated[int, Field(ge=2, le=10_000_000), BeforeValidator(whole_number)] = Field(
        TEACHER["pairs"], description="number of pairs of noise and sample; training passes over them again and again"
    )
    batch: Count = Field(TEACHER["batch"], description="samples that are solved at once")
    rtol: Positive = Field(TEACHER["rtol"], description="relative tolerance of the adaptive solver that makes them")
    atol: Positive = Field(TEACHER["atol"], description="absolute tolerance of that solver")


class OracleSettings(GrownSettings):
    """A method without a network: the closed-form field of the training set."""

    later = ("condition_bandwidth",)

    points: Count = Field(
        2000, description="number of points, drawn at random from the training set; time grows with it, memory does not"
    )
    bandwidth: Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(number)] | None = Field(
        None,
        description="standard deviation of the Gaussian around each point, in model units; 0 for the points themselves. null "
        "takes, for images, that of a uniform variable within one level, and for points, the value with the largest "
        "leave-one-out likelihood",
    )
    condition_bandwidth: Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(number)] | None = Field(
        None,
        description="standard deviation, in model units, of the Gaussian kernel around a low-resolution image: training images "
        "count the more, the nearer theirs is. null takes that of a uniform variable within one level. Labels have no kernel",
    )


class StartSettings(Settings):
    """Where the paths start: at the condition, which must be an image, with noise (fmbench/flow/starts.py)."""

    name: Literal["condition"]
    std: Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(number)] = Field(
        0.1, description="standard deviation of the noise, in model units"
    )


class MethodSettings(GrownSettings):
    """A method: the name of a known one, or path, prediction, weighting, time distribution and coupling written out.

    With ``oracle`` there is only a path and no network.
    """

    later = tuple(MORE_PARTS)

    name: Name
    use: str | None = Field(
        None,
        description="start from a known method, or from a plug-in 'package.module:MY_METHOD', a fmbench.config.methods.Method",
    )
    path: Named[PathSettings] | None = None
    prediction: Named[PredictionSettings] | None = None
    weighting: Named[WeightingSettings] | None = None
    time: Named[TimeSettings] | None = None
    t_min: Number | None = None
    t_max: Number | None = None
    oracle: OracleSettings | None = None
    source: Named[StartSettings] | None = Field(
        None, description="where paths start: null for noise, {name: condition, std: 0.1} for the low-resolution image"
    )
    coupling: Named[CouplingSettings] | None = Field(
        None,
        description="which noise goes with which data of a batch: independent (also null), minibatch_ot for the assignment of "
        "the smallest squared distance, sinkhorn for draws from an entropic plan. This is not the OT path, which is path: ot",
    )
    target: Named[TargetSettings] | None = Field(
        None,
        description="what the loss compares the network with: conditional (also null) for the target of each pair, marginal for "
        "its mean given x_t, in closed form from the whole training split; for data sets without a condition",
    )
    jumps: Named[JumpSettings] | None = Field(
        None,
        description="what the network learns beside the velocity: none (also null), or mean_velocity between two times, for "
        "samples by one jump or a few (MeanFlow)",
    )
    teacher: Named[TeacherSettings] | None = Field(
        None, description="train on pairs of noise and samples of this method of the config (reflow), not on the training data"
    )
    training: TrainingOverrides = TrainingOverrides()

    @property
    def is_oracle(self) -> bool:
        """Whether nothing is trained, as far as that is known without importing a plug-in."""
        return self.oracle is not None or (self.use or self.name) in ORACLES

    @property
    def jumps_too(self) -> bool:
        """Whether the network learns to jump, as far as that is known without importing a plug-in."""
        if self.jumps is not None:
            return self.jumps.name != MORE_PARTS["jumps"]
        known = METHODS.get(self.use or self.name)
        return known is not None and known.jumps is not None

    @property
    def taught_by(self) -> str | None:
        """The method's teacher, as far as that is known without importing a plug-in."""
        if self.teacher is not None:
            return self.teacher.name
        base = METHODS.get(self.use or self.name)
        return base.teacher.name if base is not None and base.teacher is not None else None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.use is not None and not is_dotted(self.use) and self.use not in METHODS:
            raise ValueError(
                f"use: unknown method {described(self.use)}; known: {', '.join(METHODS)}; or 'package.module:MY_METHOD'"
            )
        if taken := names.NOT_METHODS.get(self.name.casefold()):
            raise ValueError(f"a method cannot be called {self.name.casefold()}, the name of {taken}; choose another name")
        known = {name.casefold(): name for name in METHODS}.get(self.name.casefold(), self.name)
        if known != self.name:
            raise ValueError(
                f"{self.name} differs from the known method {known} in upper and lower case alone; choose another name"
            )
        self._check_known_method_unchanged()
        self._check_oracle_has_no_training()
        self._check_enough_is_given()
        return self

    def _check_known_method_unchanged(self) -> None:
        parts = ("use", *PARTS, "t_min", "t_max", "oracle", *MORE_PARTS)
        changed = [k for k in parts if getattr(self, k) is not None]
        if self.name in METHODS and changed:
            raise ValueError(
                f"{self.name} is a known method, which tables and figures show by that name, so its {', '.join(changed)} cannot "
                f"be changed. Give the variant another name: {{name: my_{self.name}, use: {self.name}, ...}}"
            )

    def _check_oracle_has_no_training(self) -> None:
        if self.is_oracle:
            unused = [k for k in (*PARTS, *MORE_PARTS) if k != "path" and getattr(self, k) is not None]
            unused += sorted(self.training.model_dump())
            if unused:
                raise ValueError(
                    f"{self.name} is an oracle, which is not trained, so {', '.join(unused)} would change nothing; remove it"
                )

    def _check_enough_is_given(self) -> None:
        incomplete = self.path is None or (self.prediction is None and self.oracle is None)
        if self.name not in METHODS and self.use is None and incomplete:
            raise ValueError(
                f"unknown method {self.name!r}; known: {', '.join(METHODS)}. A new method needs at least "
                "path and prediction (weighting and time are uniform unless given), or path and oracle: {}, or "
                "use: package.module:MY_METHOD"
            )

    def resolve(self) -> Method:
        """The method with every ingredient filled in.

        Raises:
            ConfigError: ``use`` names a plug-in that cannot be imported or is not a Method.
        """
        given: dict[str, Any] = {}
        for name in (*PARTS, *MORE_PARTS):
            settings = getattr(self, name)
            if settings is not None:
                values = settings.model_dump()
                given[name] = Part(values.pop("name"), values)
        given |= {name: None for name, without in MORE_PARTS.items() if given.get(name) == Part(without)}
        given |= {name: getattr(self, name) for name in ("t_min", "t_max") if getattr(self, name) is not None}
        if self.oracle is not None:
            given["oracle"] = self.oracle.model_dump()
            given.setdefault("prediction", Part("velocity"))
        base = METHODS.get(self.name) if self.use is None else _method(self.use)
        if base is None:
            return Method(name=self.name, **given)
        return dataclasses.replace(base, name=self.name, **given)


def _method(name: str) -> Method:
    """A known method, or one of a plug-in."""
    try:
        method = resolve(METHODS, "method", name)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if not isinstance(method, Method):
        raise ConfigError(f"{name} is a {type(method).__name__}, not a fmbench.config.methods.Method")
    return method


def method_values(method: Method) -> dict[str, Any]:
    """A method as plain values, parts with their parameters; without parts that most methods do not have, nor it."""
    return {key: value for key, value in dataclasses.asdict(method).items() if value is not None or key not in MORE_PARTS}


def method_from_values(values: Mapping[str, Any]) -> Method:
    """The inverse of :func:`method_values`."""
    parts: dict[str, Any] = {k: Part(**values[k]) for k in (*PARTS, *MORE_PARTS) if values.get(k) is not None}
    parts.setdefault("path", None)
    return Method(name=values["name"], t_min=values["t_min"], t_max=values["t_max"], oracle=values["oracle"], **parts)
