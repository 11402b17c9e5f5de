"""What is the same in every table and figure: names, order, one colour per method."""

LABELS = {
    "ddpm": "DDPM",
    "score_matching": "Score matching",
    "scoreflow": "ScoreFlow",
    "fm_diffusion": "FM, diffusion path",
    "fm_ot": "FM, OT path",
    "data": "Data",
}
_COLOURS = {"ddpm": 0, "score_matching": 1, "scoreflow": 2, "fm_diffusion": 4, "fm_ot": 3}
_MARKERS = "osD^vPX*<>"


def label(method: str) -> str:
    """A method's name in print; a user's own method keeps its name."""
    return LABELS.get(method, method)


def colours(methods: list[str]) -> dict[str, tuple[float, float, float]]:
    """A colour-blind-safe colour for each method, the same in every figure whatever else is shown."""
    import seaborn as sns

    palette = sns.color_palette("colorblind", 10)
    own = [m for m in methods if m not in _COLOURS]
    return {m: palette[_COLOURS.get(m, 5 + (own.index(m) if m in own else 0)) % 10] for m in methods}


def markers(methods: list[str]) -> dict[str, str]:
    """A marker for each method, so that colour is never alone."""
    return {m: _MARKERS[i % len(_MARKERS)] for i, m in enumerate(methods)}
