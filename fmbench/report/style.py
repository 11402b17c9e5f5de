"""Names in print, colours, markers and sizes: the same in every table and figure."""

import re
import textwrap
from typing import Any
from zlib import crc32

COLUMN = 3.4
"""Width of one printed column, in inches."""
WIDTH = 2 * COLUMN
"""Width of a figure across two columns, in inches."""
SMALL = 6
"""Smallest type size in a figure, in points."""

LABELS = {
    "ddpm": "DDPM",
    "score_matching": "Score matching",
    "scoreflow": "ScoreFlow",
    "fm_diffusion": "FM, diffusion path",
    "fm_ot": "FM, OT path",
    "regression": "Regression",
    "oracle_ot": "Oracle, OT path",
    "oracle_vp": "Oracle, diffusion path",
    "edm": "EDM",
    "v_cosine": "v, cosine path",
    "sd3": "SD3",
    "x_velocity": "x, velocity loss",
    "mean_flow": "MeanFlow",
    "rectified_flow_2": "Rectified flow 2",
    "ot_cfm": "OT-CFM, minibatch OT",
    "data": "Data",
}
PICTURES = {"reference": "Reference", "bicubic": "Bicubic", "low_resolution": "Low resolution", "sr3": "SR3"}
"""The names in print of images that no method of the config makes."""
SOLVERS = {
    "euler": "Euler",
    "midpoint": "midpoint",
    "heun": "Heun",
    "ralston": "Ralston",
    "heun3": "Heun 3",
    "rk4": "RK4",
    "rk4_38": "RK4, 3/8",
    "ddim": "DDIM",
    "ddim2": "DDIM, order 2",
    "edm_heun": "EDM Heun",
    "dpm_2s": "DPM-Solver 2S",
    "dpm_3s": "DPM-Solver 3S",
    "ab2": "AB2",
    "ab3": "AB3",
    "ab4": "AB4",
    "deis2": "DEIS 2",
    "deis3": "DEIS 3",
    "ipndm": "iPNDM",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_3m": "DPM++ 3M",
    "unipc2": "UniPC 2",
    "unipc3": "UniPC 3",
    "euler_maruyama": "Euler-Maruyama",
    "churn": "EDM churn",
    "churn_ddim": "EDM churn, DDIM",
    "mean_flow": "MeanFlow jumps",
    "dopri5": "dopri5",
}
DISTANCES = {"frechet": "Frechet distance", "energy_distance": "energy distance"}
"""The primary distances between samples and data, and their names in print."""
INCEPTION = "pytorch-fid InceptionV3("
"""How the name of the only extractor begins whose Frechet distance may be called FID."""

Marker = str | tuple[int, int, int]
"""A marker of matplotlib: its letter, or the number of points of a star with 1 and an angle in degrees."""

_LOOKS: dict[str, tuple[int, Marker]] = {
    "ddpm": (0, "o"),
    "score_matching": (1, "s"),
    "scoreflow": (2, "D"),
    "fm_diffusion": (4, "^"),
    "fm_ot": (3, "v"),
    "regression": (6, "<"),
    "oracle_ot": (7, "P"),
    "oracle_vp": (5, "X"),
    "edm": (10, "H"),
    "v_cosine": (11, (4, 1, 0)),
    "sd3": (12, (6, 1, 0)),
    "x_velocity": (14, (3, 1, 0)),
    "mean_flow": (17, (4, 1, 45)),
    "rectified_flow_2": (15, (5, 1, 36)),
    "ot_cfm": (13, (8, 1, 0)),
}
"""Colour and marker of each known method. The colours 10 to 19 are darker forms of 0 to 9."""
_FREE = (8, 9)
_FREE_MARKERS = "*>hdp8"
_DARKER = 0.55
"""By how much the red, green and blue of a colour are multiplied in its darker form."""

SETTINGS: dict[str, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.1,
    "lines.markersize": 3,
    "grid.linewidth": 0.4,
    "grid.alpha": 0.5,
    "savefig.dpi": 300,
    "svg.hashsalt": "fmbench",
    "pdf.fonttype": 42,  # printers refuse the default's Type 3
}
"""Matplotlib's settings for every figure, over seaborn's style ``ticks``."""


def label(method: str) -> str:
    """Return a method's name in print; a plug-in method keeps its name."""
    return (LABELS | PICTURES).get(method, method)


def wrap(text: str, width: int = 14) -> str:
    """Return a method's name broken into lines of at most ``width`` characters, at commas first."""
    if len(text) <= width:
        return text
    return "\n".join(line for part in re.split(r"(?<=,) ", text) for line in textwrap.wrap(part, width))


def wrap_name(name: str, width: int = 14) -> str:
    """Return a data set's name broken into lines of about ``width`` characters, after underscores."""
    return "_\n".join(line.replace(" ", "_") for line in textwrap.wrap(name.replace("_", " "), width))


def solver_label(solver: str) -> str:
    """Return a solver's name in print, with its grid where that is not uniform (``rk4/karras``)."""
    name, slash, grid = solver.partition("/")
    return SOLVERS.get(name, name) + slash + grid


def is_inception(features: object) -> bool:
    """Whether ``features`` names the extractor of FID."""
    return str(features).startswith(INCEPTION)


def distance_label(metric: str, features: str) -> str:
    """Return a primary distance's name in print; a Frechet distance is called FID only with Inception's features."""
    if metric == "frechet" and is_inception(features):
        return "FID"
    return DISTANCES.get(metric, metric)


def colours(methods: list[str]) -> dict[str, tuple[float, float, float]]:
    """Return a colour-blind-safe colour for each method, the same in every figure.

    The colour of a plug-in method depends on the hash of its name. If two names collide, the later one in the alphabet takes
    the next free colour, so figures of the same methods agree. From the fourth plug-in method on, colours repeat, while
    markers still differ.
    """
    import seaborn as sns

    palette = [tuple(colour) for colour in sns.color_palette("colorblind", 10)]
    palette += [(_DARKER * r, _DARKER * g, _DARKER * b) for r, g, b in palette]
    plugins = _places([m for m in methods if m not in _LOOKS], len(_FREE))
    return {m: palette[_LOOKS[m][0] if m in _LOOKS else _FREE[plugins[m] % len(_FREE)]] for m in methods}


def markers(methods: list[str]) -> dict[str, Marker]:
    """Return a marker for each method, the same in every figure. Methods therefore never differ by colour alone."""
    plugins = _places([m for m in methods if m not in _LOOKS], len(_FREE_MARKERS))
    return {m: _LOOKS[m][1] if m in _LOOKS else _FREE_MARKERS[plugins[m] % len(_FREE_MARKERS)] for m in methods}


def _places(names: list[str], n: int) -> dict[str, int]:
    """A place in 0 .. n - 1 for each name by its hash, or the next free place while there is one."""
    taken: dict[str, int] = {}
    for name in sorted(set(names)):
        place = crc32(name.encode()) % n
        while len(taken) < n and place in taken.values():
            place = (place + 1) % n
        taken[name] = place
    return taken
