"""The names that configs and figures have, without heavy imports, so that checking a config takes milliseconds.

The registries of other modules hold the objects behind the names; tests keep both equal. Names of data sources are in
:mod:`fmbench.config.datasets`.
"""

OF_THE_PAPER = ("ddpm", "score_matching", "scoreflow", "fm_diffusion", "fm_ot", "regression", "oracle_ot", "oracle_vp")
"""The methods of the paper's tables, and the oracles of its two paths. Some of its figures show a choice of them."""
NOT_METHODS = {
    "data": "the real data in figures",
    "reference": "the test images in Table 2",
    "bicubic": "the interpolated low-resolution images in Table 2",
    "low_resolution": "the low-resolution images in figures",
}
"""Names that no method may have, and what they stand for."""
PATHS = ("ot", "vp", "ve", "cosine_vp")
PREDICTIONS = ("epsilon", "x", "velocity", "score", "v", "edm")
WEIGHTINGS = ("uniform", "x", "epsilon", "velocity", "sigma_squared", "likelihood")
TIME_DISTRIBUTIONS = ("uniform", "log_snr", "logit_normal", "log_normal")
JUMP_KINDS = ("none", "mean_velocity")
COUPLINGS = ("independent", "minibatch_ot", "sinkhorn")
OPTIMAL_GRID = "optimal"
"""The grid that is fitted to each model, on noise that is not measured."""
OPTIMAL_STEPS = 64
"""The number of intervals whose ends an optimal grid may choose, and so its largest number of steps."""
NETWORKS = ("mlp", "unet", "transformer")
FIXED_SOLVERS = {"euler": 1, "midpoint": 2, "heun": 2, "ralston": 2, "heun3": 3, "rk4": 4, "rk4_38": 4}
"""Runge-Kutta solvers, and how many evaluations of the field one step of each costs."""
MULTISTEP_SOLVERS = {
    **dict.fromkeys(("ab2", "ab3", "ab4", "deis2", "deis3", "ipndm"), False),
    **dict.fromkeys(("dpmpp_2m", "dpmpp_3m", "unipc2", "unipc3"), True),
}
"""Multistep solvers, and whether the order of each falls to 1 in the last steps unless a config says otherwise."""
SINGLE_STEP_SOLVERS = {"ddim": 1, "ddim2": 2, "edm_heun": 2, "dpm_2s": 2, "dpm_3s": 3}
"""Exponential integrators without a history, and how many evaluations one step of each costs."""
STEP_COSTS = {**FIXED_SOLVERS, **SINGLE_STEP_SOLVERS, **dict.fromkeys(MULTISTEP_SOLVERS, 1)}
"""Evaluations of one step, for every solver that a sweep can run by name."""
ANY_NFE = ("dpm_2s", "dpm_3s")
"""Solvers that mix steps of several orders, and so spend any number of evaluations exactly."""
STOCHASTIC_SOLVERS = {"euler_maruyama": 1, "churn": 2, "churn_ddim": 1}
"""Stochastic samplers, and how many evaluations one step of each costs. A sweep has none: they have no end point of their own."""
JUMPS = "mean_flow"
"""The sampler of methods that learn a mean velocity, as the records name it: a jump along it each evaluation."""
SAMPLER_OPTIONS = ("churn", "noise", "level_min", "level_max", "diffusion")
"""All options of stochastic samplers, in the order in which the records name them."""
STOCHASTIC_OPTIONS = {
    "euler_maruyama": ("noise", "diffusion"),
    **dict.fromkeys(("churn", "churn_ddim"), ("churn", "noise", "level_min", "level_max")),
}
"""The options of each stochastic sampler."""
ADAPTIVE_SOLVERS = ("dopri5", "bosh3", "tsit5", "dopri8", "adaptive_heun")
"""Adaptive solvers; with one step size for a batch, ``_shared`` follows their name in the records."""
EXTRACTORS: dict[str, tuple[str, ...]] = {
    "classifier": (),
    "inception": ("weights",),
    "efficientnet_lite0": ("size",),
    "efficientnet_lite2": ("size",),
    "dinov2": ("weights",),
    "clip_mmd": ("weights",),
}
"""Feature extractors of images, and the options of each."""
FIGURES: dict[str, tuple[str, ...]] = {
    "claims": ("records.parquet",),
    "fig02": ("theory/fields.parquet",),
    "fig03": ("theory/trajectories.parquet",),
    "fig04": ("previews.parquet", "records.parquet"),
    "fig04_densities": ("trajectory.parquet", "previews.parquet", "records.parquet"),
    "fig04_few_step": ("few_step_previews.parquet", "previews.parquet", "records.parquet"),
    "fig05": ("learning_curve.parquet",),
    "fig06": ("trajectory.parquet", "previews.parquet", "records.parquet"),
    "fig07": ("records.parquet",),
    "fig07_quality": ("few_step.parquet",),
    "fig08": ("theory/fields.parquet",),
    "fig09": ("trajectory.parquet", "previews.parquet", "records.parquet"),
    "fig10": ("learning_curve.parquet",),
    "fig11": ("previews.parquet", "records.parquet"),
    "fig14": ("previews.parquet", "records.parquet"),
    "fig15": ("previews.parquet", "records.parquet"),
    "fig16": ("few_step_previews.parquet", "previews.parquet", "records.parquet"),
    "work_precision": ("records.parquet",),
    "solver_budget": ("records.parquet", "few_step.parquet"),
    "nfe_distribution": ("nfe.parquet", "records.parquet"),
    "cost": ("learning_curve.parquet", "records.parquet", "models.parquet"),
    "densities": ("theory/densities.parquet",),
    "noise_levels": ("theory/noise_levels.parquet",),
    "equivalence": ("theory/equivalence.parquet",),
    "samplers": ("theory/samplers.parquet",),
    "grid3x3": ("records.parquet", "models.parquet"),
    "pareto": ("records.parquet", "models.parquet", "few_step.parquet", "learning_curve.parquet"),
}
"""Figures, and the files below the results folder from which each is drawn."""


def step_cost(solver: str) -> int:
    """Evaluations of one step of a built-in solver; 1 for one of the user's own, whose cost is checked when it is imported."""
    return (STEP_COSTS | STOCHASTIC_SOLVERS).get(solver, 1)
