"""What is the same in every table and figure: names, order, one colour per method, sizes of type and lines."""

import re
import textwrap
from typing import Any
from zlib import crc32

COLUMN = 3.4
"""Inches: the width of a column in print."""
WIDTH = 2 * COLUMN
"""Inches: the width of a figure across two columns."""
SMALL = 6
"""Points: the smallest type in a figure."""

LABELS = {
    "ddpm": "DDPM",
    "score_matching": "Score matching",
    "scoreflow": "ScoreFlow",
    "fm_diffusion": "FM, diffusion path",
    "fm_ot": "FM, OT path",
    "oracle_ot": "Oracle, OT path",
    "oracle_vp": "Oracle, diffusion path",
    "data": "Data",
}
SOLVERS = {
    "euler": "Euler",
    "midpoint": "midpoint",
    "heun": "Heun",
    "ralston": "Ralston",
    "heun3": "Heun 3",
    "rk4": "RK4",
    "rk4_38": "RK4, 3/8",
    "ddim": "DDIM",
    "dopri5": "dopri5",
}
DISTANCES = {"frechet": "Frechet distance", "energy_distance": "energy distance"}
"""The primary distances of samples to the data, and their names in print."""

_COLOURS = {"ddpm": 0, "score_matching": 1, "scoreflow": 2, "fm_diffusion": 4, "fm_ot": 3, "oracle_ot": 7, "oracle_vp": 5}
_FREE = (6, 8, 9)
_MARKERS = "osD^vPX"
_FREE_MARKERS = "*<>hdp8"

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
    """A method's name in print; a user's own method keeps its name."""
    return LABELS.get(method, method)


def wrap(text: str, width: int = 14) -> str:
    """A method's name on lines of at most so many characters, first at its commas."""
    if len(text) <= width:
        return text
    return "\n".join(line for part in re.split(r"(?<=,) ", text) for line in textwrap.wrap(part, width))


def solver_label(solver: str) -> str:
    """A solver's name in print, with its grid where it has another than the uniform one (``rk4/karras``)."""
    name, slash, grid = solver.partition("/")
    return SOLVERS.get(name, name) + slash + grid


def distance_label(metric: str, features: str) -> str:
    """The name of a primary distance; only with Inception's features is a Frechet distance called FID."""
    if metric == "frechet" and features.startswith("pytorch-fid InceptionV3("):
        return "FID"
    return DISTANCES.get(metric, metric)


def colours(methods: list[str]) -> dict[str, tuple[float, float, float]]:
    """A colour-blind-safe colour for each method, the same in every figure whatever else is shown.

    A user's own method has the colour that its name asks for; only where two ask for one the later in the alphabet gives
    way, so that figures of the same methods agree. From the fourth own method on, colours repeat (markers do not).
    """
    import seaborn as sns

    palette = sns.color_palette("colorblind", 10)
    own = _places([m for m in methods if m not in _COLOURS], len(_FREE))
    return {m: palette[_COLOURS[m] if m in _COLOURS else _FREE[own[m] % len(_FREE)]] for m in methods}


def markers(methods: list[str]) -> dict[str, str]:
    """A marker for each method, the same in every figure, so that colour is never alone."""
    known = list(_COLOURS)
    own = _places([m for m in methods if m not in _COLOURS], len(_FREE_MARKERS))
    return {m: _MARKERS[known.index(m)] if m in _COLOURS else _FREE_MARKERS[own[m] % len(_FREE_MARKERS)] for m in methods}


def _places(names: list[str], n: int) -> dict[str, int]:
    """A place for each name, by its hash; the next free one where it is taken, while there are free ones."""
    taken: dict[str, int] = {}
    for name in sorted(set(names)):
        place = crc32(name.encode()) % n
        while len(taken) < n and place in taken.values():
            place = (place + 1) % n
        taken[name] = place
    return taken
