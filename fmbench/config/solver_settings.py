"""The solvers that a config names: fixed-step, stochastic and adaptive ones, with their settings."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from fmbench.config import names
from fmbench.config.base import GrownSettings, Name, Named, Settings
from fmbench.config.cells import options
from fmbench.config.messages import described
from fmbench.config.numbers import NonNegative, Positive, Width
from fmbench.config.plugins import is_dotted


def known_solver(value: Any) -> Any:
    """The name of a built-in solver, checked.

    Raises:
        ValueError: it is none, or a stochastic sampler.
    """
    if isinstance(value, str) and value in names.STOCHASTIC_SOLVERS:
        raise ValueError(
            f"{value} is a stochastic sampler: fresh noise decides where its samples end, so they have no error against a "
            "reference solution. List it in few_step.solvers, which measures the quality of samples"
        )
    if isinstance(value, str) and value not in names.STEP_COSTS:
        own = "; for a solver of your own give {name: mine, use: 'package.module:SOLVER'}"
        raise ValueError(f"unknown solver {described(value)}; known: {', '.join(names.STEP_COSTS)}{own}")
    return value


Solver = Annotated[str, BeforeValidator(known_solver)]


class SolverSettings(GrownSettings):
    """A fixed-step solver with its time grid and, optionally, its own list of NFE."""

    later: ClassVar[tuple[str, ...]] = ("use", "lower_order_final")

    use: str | None = Field(None, description="the dotted name 'package.module:SOLVER' of a solver of your own")
    name: Name = Field(description="a built-in solver, or with `use` a new name")
    grid: Literal["uniform", "karras", "log_snr", "cosine", "shift", "quadratic", "beta", "optimal"] = "uniform"
    nfe: Annotated[list[Width], Field(min_length=1, max_length=1000)] | None = Field(None, description="null for the common list")
    lower_order_final: bool | None = Field(
        None, description="whether the order of a multistep solver falls to 1 in the last steps; null for the solver's own choice"
    )

    @field_validator("use")
    @classmethod
    def _use_is_dotted(cls, use: str | None) -> str | None:
        if use is not None and not is_dotted(use):
            raise ValueError(f"must be a dotted name 'package.module:SOLVER', not {described(use)}")
        return use

    @field_validator("name", mode="before")
    @classmethod
    def _name_is_known_or_new(cls, name: Any, info: ValidationInfo) -> Any:
        if "use" not in info.data:  # it has an error of its own
            return name
        if info.data["use"] is None:
            return cls._known(name)
        if name in (*names.STEP_COSTS, *names.STOCHASTIC_SOLVERS, *names.ADAPTIVE_SOLVERS, names.JUMPS):
            raise ValueError(f"{name} is the name of a built-in solver; give your own another one")
        return name

    @classmethod
    def _known(cls, name: Any) -> Any:
        return known_solver(name)

    @model_validator(mode="after")
    def _has_an_order_to_lower(self) -> Self:
        if self.lower_order_final is not None and self.use is None and self.name not in names.MULTISTEP_SOLVERS:
            raise ValueError(
                f"{self.name} is no multistep solver and has no order to lower; remove lower_order_final. Multistep solvers: "
                + ", ".join(names.MULTISTEP_SOLVERS)
            )
        return self


class SamplerSettings(SolverSettings):
    """A fixed-step solver, or a stochastic sampler with its options."""

    later = (*SolverSettings.later, *names.SAMPLER_OPTIONS)

    churn: NonNegative | None = Field(None, description="S_churn of `churn` and `churn_ddim`: fresh noise, spread over the steps")
    noise: NonNegative | None = Field(
        None, description="null for 1; a factor of g for `euler_maruyama`, S_noise for `churn` and `churn_ddim`"
    )
    level_min: NonNegative | None = Field(None, description="null for 0; S_min: noise is added at levels s / a from here")
    level_max: Positive | None = Field(None, description="null for infinity; S_max: noise is added at levels s / a up to here")
    diffusion: Literal["two_sigma", "reverse_sde"] | None = Field(
        None, description="g^2 of `euler_maruyama`; null for `two_sigma`, 2 s"
    )

    @classmethod
    def _known(cls, name: Any) -> Any:
        return name if isinstance(name, str) and name in names.STOCHASTIC_SOLVERS else known_solver(name)

    @model_validator(mode="after")
    def _has_its_options(self) -> Self:
        own = names.STOCHASTIC_OPTIONS.get(self.name, ())
        for key, _ in options(self):
            if key not in own:
                known = f"its options are {', '.join(own)}" if own else "it is no stochastic sampler"
                raise ValueError(f"{self.name} has no option {key}: {known}; remove it")
        if "churn" in own and self.churn is None:
            raise ValueError(
                f"{self.name} needs the amount of fresh noise; give {{name: {self.name}, churn: 40}}, or another amount"
            )
        if self.level_max is not None and not (self.level_min or 0) < self.level_max:
            raise ValueError(f"level_min must be below level_max, not {self.level_min} and {self.level_max}")
        return self


_Entries = Field(min_length=1, max_length=100, description="names, or {name: midpoint, grid: karras, nfe: [4, 8]}")
Solvers = Annotated[list[Named[SolverSettings]], _Entries]
Samplers = Annotated[list[Named[SamplerSettings]], _Entries]


def known_adaptive(value: Any) -> Any:
    """The name of an adaptive solver, checked.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, str) and value not in names.ADAPTIVE_SOLVERS:
        raise ValueError(f"unknown adaptive solver {described(value)}; known: {', '.join(names.ADAPTIVE_SOLVERS)}")
    return value


class AdaptiveSettings(Settings):
    """An adaptive solver with its tolerance."""

    name: Annotated[str, BeforeValidator(known_adaptive)]
    rtol: Positive = 1e-5
    atol: Positive = 1e-5


AdaptiveSolver = Named[AdaptiveSettings]
