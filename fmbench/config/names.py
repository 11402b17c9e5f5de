"""The names a config may use, kept free of heavy imports so that a config is checked in milliseconds.

The registries on the floors above hold the things behind the names; a test keeps both equal.
"""

METHODS = ("ddpm", "score_matching", "scoreflow", "fm_diffusion", "fm_ot", "oracle_ot", "oracle_vp")
PATHS = ("ot", "vp", "ve", "cosine_vp")
PREDICTIONS = ("epsilon", "x", "velocity", "score", "v")
WEIGHTINGS = ("uniform", "epsilon", "velocity", "sigma_squared", "likelihood")
TIME_DISTRIBUTIONS = ("uniform", "log_snr", "logit_normal")
GRIDS = ("uniform", "karras", "log_snr", "cosine")
NETWORKS = ("mlp", "unet")
FIXED_SOLVERS = {"euler": 1, "midpoint": 2, "heun": 2, "ralston": 2, "heun3": 3, "rk4": 4, "rk4_38": 4}
"""Runge-Kutta solvers and what one step of each costs in evaluations of the field."""
STEP_COSTS = {**FIXED_SOLVERS, "ddim": 1}
"""Everything a sweep can run."""
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
"""Figures and the files below the results folder that each is drawn from."""
GATHERED = {
    "nfe": ("sample", "nfe.parquet"),
    "learning_curve": ("learning_curve", "rows.parquet"),
    "few_step": ("few_step", "rows.parquet"),
    "few_step_previews": ("few_step", "previews.parquet"),
    "trajectory": ("trajectory", "trajectory.parquet"),
}
"""Files of the results folder (without .parquet) that join one file of every model: its stage and the file's name."""
FIRST_SEED = ("few_step_previews", "trajectory")
"""Those that hold pictures, of the first seed only."""
