"""A method in a config: a known name, or path, prediction, weighting and time distribution written out."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from fmbench.config import names
from fmbench.config.base import Name, Parameters, Settings, by_name, known
from fmbench.config.methods import METHODS, ORACLES, Method, Part
from fmbench.config.numbers import Count, Number, number
from fmbench.config.plugins import is_dotted, resolve
from fmbench.config.training_settings import TrainingOverrides
from fmbench.errors import ConfigError


class PathPart(Settings):
    """The probability path: a name and the parameters that path takes."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    name: Annotated[str, known("path", names.PATHS)]
    __pydantic_extra__: Parameters


class PredictionPart(Settings):
    """What the network predicts."""

    name: Annotated[str, known("prediction", names.PREDICTIONS)]


class WeightingPart(Settings):
    """The weight of the loss over time."""

    name: Annotated[str, known("weighting", names.WEIGHTINGS)]


class TimePart(Settings):
    """The distribution of training times and its parameters."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    name: Annotated[str, known("time distribution", names.TIME_DISTRIBUTIONS)]
    __pydantic_extra__: Parameters


class OracleSettings(Settings):
    """A method without a network: the closed-form field of the training set."""

    points: Count = Field(2000, description="so many points of the training set, at random; time goes with it, memory does not")
    bandwidth: Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(number)] | None = Field(
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
        None, description="start from a known method, or from 'package.module:MY_METHOD', a fmbench.config.methods.Method"
    )
    path: Annotated[PathPart, BeforeValidator(by_name, json_schema_input_type=str | PathPart)] | None = None
    prediction: Annotated[PredictionPart, BeforeValidator(by_name, json_schema_input_type=str | PredictionPart)] | None = None
    weighting: Annotated[WeightingPart, BeforeValidator(by_name, json_schema_input_type=str | WeightingPart)] | None = None
    time: Annotated[TimePart, BeforeValidator(by_name, json_schema_input_type=str | TimePart)] | None = None
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
                raise ConfigError(f"{self.use} is a {type(base).__name__}, not a fmbench.config.methods.Method")
        if base is None:
            return Method(name=self.name, **given)
        return dataclasses.replace(base, name=self.name, **given)


def method_values(method: Method) -> dict[str, Any]:
    """A method as plain values, parts with their parameters."""
    return dataclasses.asdict(method)


def method_from_values(values: Mapping[str, Any]) -> Method:
    """The inverse of :func:`method_values`."""
    parts: dict[str, Any] = {k: Part(**values[k]) for k in ("path", "prediction", "weighting", "time")}
    return Method(name=values["name"], t_min=values["t_min"], t_max=values["t_max"], oracle=values["oracle"], **parts)
