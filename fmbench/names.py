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
DATASETS: dict[str, tuple[int, ...]] = {"checkerboard": (2,), "digits": (1, 8, 8)}
"""Data sources and the shape of one sample, known before anything is prepared."""
FIGURES: dict[str, tuple[str, ...]] = {
    "fig02": ("theory/fields.parquet",),
    "fig03": ("theory/trajectories.parquet",),
    "fig04": ("previews.parquet",),
    "fig07": ("records.parquet",),
    "fig08": ("theory/fields.parquet",),
    "fig11": ("previews.parquet",),
    "densities": ("theory/densities.parquet",),
    "noise_levels": ("theory/noise_levels.parquet",),
    "equivalence": ("theory/equivalence.parquet",),
    "samplers": ("theory/samplers.parquet",),
}
"""Figures and the files below the results folder that each is drawn from."""
