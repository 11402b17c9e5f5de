"""What is the same in every table and figure: names, order, one colour per method."""

COLUMN = 3.4
"""Inches: the width of a column in print."""

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
_COLOURS = {"ddpm": 0, "score_matching": 1, "scoreflow": 2, "fm_diffusion": 4, "fm_ot": 3, "oracle_ot": 7, "oracle_vp": 5}
_MARKERS = "osD^vPX*<>"


def label(method: str) -> str:
    """A method's name in print; a user's own method keeps its name."""
    return LABELS.get(method, method)


def colours(methods: list[str]) -> dict[str, tuple[float, float, float]]:
    """A colour-blind-safe colour for each method, the same in every figure whatever else is shown."""
    import seaborn as sns

    palette = sns.color_palette("colorblind", 10)
    own = [m for m in methods if m not in _COLOURS]
    free = [6, 8, 9, 5, 7]
    return {m: palette[_COLOURS[m] if m in _COLOURS else free[own.index(m) % len(free)]] for m in methods}


def markers(methods: list[str]) -> dict[str, str]:
    """A marker for each method, so that colour is never alone."""
    return {m: _MARKERS[i % len(_MARKERS)] for i, m in enumerate(methods)}
