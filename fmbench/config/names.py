"""The names that configs, figures and gathered files have, without heavy imports, so that checking a config takes milliseconds.

The registries of other modules hold the objects behind the names; tests keep both equal. Names of data sources are in
:mod:`fmbench.config.datasets`.
"""

METHODS = ("ddpm", "score_matching", "scoreflow", "fm_diffusion", "fm_ot", "oracle_ot", "oracle_vp")
PATHS = ("ot", "vp", "ve", "cosine_vp")
PREDICTIONS = ("epsilon", "x", "velocity", "score", "v")
WEIGHTINGS = ("uniform", "epsilon", "velocity", "sigma_squared", "likelihood")
TIME_DISTRIBUTIONS = ("uniform", "log_snr", "logit_normal")
GRIDS = ("uniform", "karras", "log_snr", "cosine")
NETWORKS = ("mlp", "unet")
FIXED_SOLVERS = {"euler": 1, "midpoint": 2, "heun": 2, "ralston": 2, "heun3": 3, "rk4": 4, "rk4_38": 4}
"""Runge-Kutta solvers, and how many evaluations of the field one step of each costs."""
STEP_COSTS = {**FIXED_SOLVERS, "ddim": 1}
"""Evaluations of one step, for every solver that a sweep can run."""
EXTRACTORS: dict[str, tuple[str, ...]] = {"classifier": (), "inception": ("weights",), "efficientnet_lite0": ("size",)}
"""Feature extractors of images, and the options of each."""
FIGURES: dict[str, tuple[str, ...]] = {
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
    "fig16": ("few_step_previews.parquet", "previews.parquet", "records.parquet"),
    "work_precision": ("records.parquet",),
    "nfe_distribution": ("nfe.parquet", "records.parquet"),
    "cost": ("learning_curve.parquet", "records.parquet"),
    "densities": ("theory/densities.parquet",),
    "noise_levels": ("theory/noise_levels.parquet",),
    "equivalence": ("theory/equivalence.parquet",),
    "samplers": ("theory/samplers.parquet",),
}
"""Figures, and the files below the results folder from which each is drawn."""
GATHERED = {
    "nfe": ("sample", "nfe.parquet"),
    "learning_curve": ("learning_curve", "rows.parquet"),
    "few_step": ("few_step", "rows.parquet"),
    "few_step_previews": ("few_step", "previews.parquet"),
    "trajectory": ("trajectory", "trajectory.parquet"),
    "half_way": ("trajectory", "rows.parquet"),
}
"""Gathered files of the results folder (without .parquet): the stage and the name of the file of each model that they gather."""
FIRST_SEED = ("few_step_previews", "trajectory")
"""Gathered files that hold pictures, of the first seed only."""
