"""What each stage measures on every model."""

import itertools
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from fmbench.config import names
from fmbench.config.base import GrownSettings, Settings
from fmbench.config.cells import Cell, cells
from fmbench.config.feature_settings import FeatureSettings
from fmbench.config.messages import shortened
from fmbench.config.numbers import Count, Natural, Positive, Several, Width, number, twice
from fmbench.config.solver_settings import AdaptiveSolver, Samplers, SamplerSettings, Solver, Solvers, SolverSettings
from fmbench.config.super_resolution_settings import SuperResolutionSettings


class SampleSettings(Settings):
    """Samples by the adaptive solver."""

    n: Several = 1000
    batch: Count = 1000
    rtol: Positive = 1e-5
    atol: Positive = 1e-5
    shared_batch: Count = Field(256, description="batch size of the second solve, in which a batch shares one step size")
    max_nfe: Count = 5000


class LikelihoodSettings(Settings):
    """NLL of the test split."""

    n: Several | None = Field(None, description="the first n test samples; null for all")
    batch: Count = 1000
    rtol: Positive = 1e-5
    atol: Positive = 1e-5
    exact_up_to: Natural = Field(16, description="exact divergence up to this many dimensions, Hutchinson's estimate above")
    probes: Count = 1
    probe: Literal["rademacher", "gaussian"] = "rademacher"
    mode: Literal["reverse", "forward"] = Field(
        "reverse", description="how probes are applied; forward mode needs less memory and more time"
    )


def _check_divisible(solver: str, nfe: int, remedy: str) -> None:
    """Raise a ValueError unless a whole number of steps costs exactly ``nfe`` evaluations."""
    cost = names.step_cost(solver)
    if nfe % cost and solver not in names.ANY_NFE:
        raise ValueError(f"{solver} costs {cost} evaluations a step and cannot spend exactly {nfe}; {remedy}")


class FixedStepSettings(GrownSettings):
    """Fixed-step solvers at several NFE."""

    nfe: Annotated[list[Width], Field(min_length=1, max_length=1000)] = [4, 8, 12, 20, 40, 60, 100]
    solvers: Sequence[SolverSettings]

    @model_validator(mode="after")
    def _nfe_in_whole_steps(self) -> Self:
        for cell in self.cells():
            own = f"or give this solver its own list: solvers: [{{name: {cell.solver}, nfe: [...]}}]"
            if cell.grid == names.OPTIMAL_GRID and cell.nfe // names.step_cost(cell.solver) > names.OPTIMAL_STEPS:
                raise ValueError(
                    f"{cell.label} at {cell.nfe} evaluations: an optimal grid has at most {names.OPTIMAL_STEPS} steps; "
                    f"{own.removeprefix('or ')}"
                )
            _check_divisible(cell.solver, cell.nfe, f"give multiples of {names.step_cost(cell.solver)}, {own}")
        return self

    def cells(self) -> list[Cell]:
        """The cells to measure, by the same function as in the stages."""
        return cells(self.solvers, self.nfe)


class SweepSettings(FixedStepSettings):
    """The error of fixed-step solvers against a fine reference."""

    later = ("adaptive",)

    solvers: Solvers = [SolverSettings(name=name) for name in ("euler", "midpoint", "heun", "rk4")]
    n: Count = 256
    batch: Count = 256
    reference_solver: Solver = Field(
        "midpoint",
        description="midpoint never evaluates the end of a diffusion path, where noise prediction makes a field stiff; rk4 does",
    )
    reference_nfe: Width = 1000
    reference_check_n: Count = Field(16, description="number of samples on which dopri5 at 1e-7 checks the reference itself")
    adaptive: Annotated[list[AdaptiveSolver], Field(max_length=100)] = Field(
        [],
        description="adaptive solvers whose NFE and error are measured too: names, or {name: bosh3, rtol: 1.0e-4, atol: 1.0e-4}",
    )

    @model_validator(mode="after")
    def _reference_in_whole_steps(self) -> Self:
        remedy = f"make reference_nfe a multiple of {names.STEP_COSTS[self.reference_solver]}, or choose another reference_solver"
        _check_divisible(self.reference_solver, self.reference_nfe, remedy)
        return self


class LearningCurveSettings(Settings):
    """NFE and sample quality during training: at each snapshot of the averaged weights (Fig. 5 and 10 of Lipman et al. 2023)."""

    n: Several = Field(256, description="samples of each snapshot, by the adaptive solver; distances depend on this number")
    batch: Count = 1000
    rtol: Positive = 1e-5
    atol: Positive = 1e-5
    max_nfe: Count = 5000


class FewStepSettings(FixedStepSettings):
    """Samples made with few evaluations (Fig. 4 right, 7 right, 16 and 17 of Lipman et al. 2023)."""

    later = ("jumps",)

    n: Several = Field(256, description="samples of each cell; distances depend on this number")
    batch: Count = 1000
    nfe: Annotated[list[Width], Field(min_length=1, max_length=1000)] = [4, 8, 12, 20, 40, 100]
    solvers: Samplers = [SamplerSettings(name=name) for name in ("euler", "midpoint", "rk4")]
    jumps: Annotated[list[Width], Field(max_length=100)] = Field(
        [1, 2, 4],
        description="numbers of jumps by the mean velocity, for methods that learn one (mean_flow); each is one evaluation",
    )
    shown: Natural | None = Field(
        None, description="number of samples of each cell kept for figures, the first ones; null for 16 images, or all n points"
    )


class TrajectorySettings(Settings):
    """States on the way from noise to data (Fig. 4 left, 6 and 9 of Lipman et al. 2023), by the adaptive solver."""

    n: Count | None = Field(None, description="null for 32 images, or for 4000 points, which are enough for a density")
    batch: Count = 4000
    times: Annotated[list[Annotated[float, Field(ge=0, le=1), BeforeValidator(number)]], Field(min_length=1, max_length=1000)] = (
        Field(
            [0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0],
            description="0 is noise, 1 is data; a time after the end of a path is moved to that end",
        )
    )
    rtol: Positive = 1e-5
    atol: Positive = 1e-5
    max_nfe: Count = 5000

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if any(later <= sooner for sooner, later in itertools.pairwise(self.times)):
            raise ValueError(f"times must increase, not {shortened(str(self.times), 100)}")
        return self


class DequantisationSettings(Settings):
    """NLL of images against the number K of dequantisation draws, by both estimators: Table 4."""

    n: Several = Field(64, description="the first n test images")
    draws: Annotated[list[Width], Field(min_length=1, max_length=1000)] = [1, 5, 20]
    probes: Several = Field(
        4, description="Hutchinson probes averaged for each draw, in one solve; the paper's estimator takes the first of them"
    )
    probe: Literal["rademacher", "gaussian"] = "rademacher"
    mode: Literal["reverse", "forward"] = Field("reverse", description="how probes are applied, as in likelihood")
    exact_up_to: Natural = Field(0, description="exact divergence up to this many dimensions, instead of averaged probes")
    batch: Count = 1000
    rtol: Positive = 1e-5
    atol: Positive = 1e-5

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        repeated = twice(self.draws)
        if repeated:
            raise ValueError(f"draws: {', '.join(map(str, repeated))} is listed more than once")
        return self


class EvaluationSettings(GrownSettings):
    """The settings of every stage that works on a model."""

    later = ("guidance", "super_resolution")

    guidance: Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(number)] = Field(
        1.0,
        description="scale of classifier-free guidance by the label, of all samples but not of likelihoods; 1 for none, 0 for "
        "samples without the label. Other scales than 1 take two evaluations of the network, and both count",
    )
    sample: SampleSettings = SampleSettings()
    likelihood: LikelihoodSettings = LikelihoodSettings()
    sweep: SweepSettings = SweepSettings()
    dequantisation: DequantisationSettings = DequantisationSettings()
    learning_curve: LearningCurveSettings = LearningCurveSettings()
    few_step: FewStepSettings = FewStepSettings()
    trajectory: TrajectorySettings = TrajectorySettings()
    features: FeatureSettings = FeatureSettings()
    super_resolution: SuperResolutionSettings = SuperResolutionSettings()
