"""Claim 8: the OT conditional field has a constant direction (Fig. 2 and 3)."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from fmbench.report.claims.claim import Claim, Drafts, Sources
from fmbench.report.claims.definitions import exact


def straight_paths(sources: Sources) -> Drafts:
    """Measures how far the OT conditional field turns in time, and how far particles leave a straight line and constant speed."""
    lines: Drafts = []
    if "fields" in sources:
        turns = {str(panel): largest_turn(rows) for panel, rows in sources["fields"].groupby("panel")}
        found = [v for panel, v in turns.items() if panel.startswith("OT path")]
        others = {panel: v for panel, v in turns.items() if not panel.startswith("OT path")}
        lines.append(exact(8, "direction of the field", "largest turn of an arrow", "degrees", found, _contrast(others)))
    if "trajectories" in sources:
        bends, paces = {}, {}
        for path, rows in sources["trajectories"].groupby("path"):
            bends[str(path)], paces[str(path)] = bend_and_pace(rows)
        for part, statistic, unit, values in (
            ("straight lines", "largest distance from the chord", "of the chord's length", bends),
            ("constant speed", "largest deviation from the mean speed", "of the mean speed", paces),
        ):
            others = {f"{path.upper()} path": v for path, v in values.items() if path != "ot"}
            lines.append(exact(8, part, statistic, unit, [v for path, v in values.items() if path == "ot"], _contrast(others)))
    return lines


def _contrast(others: Mapping[str, float]) -> str:
    """The same numbers of other fields, for comparison."""
    return f". For comparison: {', '.join(f'{v:.3g} ({name})' for name, v in others.items())}" if others else ""


def largest_turn(rows: pd.DataFrame) -> float:
    """The largest angle in degrees, over places and times, between an arrow and the first arrow at its place."""
    worst = 0.0
    for _, place in rows.groupby(["x", "y", "figure"]):
        u, v = (place.sort_values("t")[c].to_numpy(float) for c in ("u", "v"))
        turn = np.arctan2(u[0] * v - v[0] * u, u[0] * u + v[0] * v)
        worst = max(worst, float(np.degrees(np.abs(turn)).max()))
    return worst


def bend_and_pace(rows: pd.DataFrame) -> tuple[float, float]:
    """The largest distance of a particle from its chord, over the chord's length, and the largest relative change of speed."""
    bend = pace = 0.0
    for _, particle in rows.groupby("particle"):
        track = particle.sort_values("t")
        xy, t = track[["x", "y"]].to_numpy(float), track.t.to_numpy(float)
        chord = xy[-1] - xy[0]
        length = float(np.hypot(*chord))
        off = xy - xy[0]
        bend = max(bend, float(np.abs(off[:, 0] * chord[1] - off[:, 1] * chord[0]).max()) / length**2)
        speed = np.hypot(*np.diff(xy, axis=0).T) / np.diff(t)
        pace = max(pace, float(np.abs(speed / speed.mean() - 1).max()))
    return bend, pace


CLAIM = Claim(
    number=8,
    title="The OT conditional field has a constant direction",
    statement="The direction of the OT conditional field does not change in time. Its particles move straight at constant speed.",
    where="Fig. 2 and 3",
    how="The claim follows from the definitions, without training. The test measures the largest turn of an arrow between "
    "times, and the largest deviation of a particle from its chord and from its mean speed. The claim is about conditional "
    "fields. A trained field is their average, and its trajectories are not straight for any path.",
    needs=("fields", "trajectories"),
    evaluate=straight_paths,
)
