"""The names a config may use, kept free of heavy imports so that a config is checked in milliseconds.

The registries on the floors above hold the things behind the names; a test keeps both equal.
"""

from collections.abc import Mapping
from typing import Any

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
POINT_SETS = ("checkerboard", "eight_gaussians", "two_moons", "spirals", "pinwheel", "rings")
"""Data sources of points in the plane."""
DATASETS = (
    *POINT_SETS,
    "digits",
    "fashion_mnist",
    "cifar10",
    "imagenet_downsampled",
    "imagenet",
    "folder",
    "array",
    "hf_parquet",
)
"""Data sources."""
MAYBE_UNLABELLED = ("folder", "array", "hf_parquet")
"""Those whose samples may have no labels: it is known once they are prepared."""
DECODED = ("imagenet", "folder", "hf_parquet")
"""Those that decode image files, which is worth several processes."""
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


PAPERS = {
    "cifar10": ("cifar10", 32),
    "imagenet32": ("imagenet", 32),
    "imagenet64": ("imagenet", 64),
    "imagenet128": ("imagenet", 128),
}
"""The paper's data sets by the names that tables know them by: how the names of their sources begin, and height and width."""


def not_the_papers(dataset: str, source: str, parameters: Mapping[str, Any]) -> str:
    """What keeps a data set from being the paper's of that name; empty where nothing is known to, or for any other name."""
    if dataset not in PAPERS:
        return ""
    start, side = PAPERS[dataset]
    if "." not in source and source not in MAYBE_UNLABELLED and not source.startswith(start):
        return f"not {source}"
    shape = sample_shape(source, parameters)
    return "" if shape in (None, (3, side, side)) else f"3 x {side} x {side}, not {' x '.join(map(str, shape or ()))}"


def sample_shape(source: str, parameters: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Shape of one sample, where source and parameters tell it before anything is prepared; else None."""
    if source in POINT_SETS:
        return (2,)
    if source == "digits":
        return (1, 8, 8)
    channels, side = {
        "fashion_mnist": (1, parameters.get("pad", 28)),
        "cifar10": (3, 32),
        "imagenet_downsampled": (3, parameters.get("size", 32)),
        "imagenet": (3, parameters.get("size", 64)),
        "folder": (parameters.get("channels", 3), parameters.get("size")),
        "hf_parquet": (parameters.get("channels", 3), parameters.get("size")),
    }.get(source, (0, None))
    known = isinstance(channels, int) and isinstance(side, int)  # what is neither, the source will say
    return (channels, side, side) if known and channels > 0 and side > 0 else None


def split_sizes(source: str, parameters: Mapping[str, Any]) -> tuple[int, int] | None:
    """Samples of training and test split, where source and parameters tell them before anything is prepared; else None."""
    if source in POINT_SETS:
        sizes = parameters.get("train", 200_000), parameters.get("test", 4_000)
    elif source == "digits":
        test = parameters.get("test", 360)
        sizes = (1797 - test if isinstance(test, int) else None), test
    else:
        sizes = {
            "fashion_mnist": (60_000, 10_000),
            "cifar10": (50_000, 10_000),
            "imagenet_downsampled": (1_281_167, 50_000),
            "imagenet": (1_281_167, 50_000),
        }.get(source, (None, None))
    train, test = sizes
    known = isinstance(train, int) and isinstance(test, int)  # what is neither, the source will say
    return (train, test) if known and train > 0 and test > 0 else None
