"""Claim 7: the OT path shows structure earlier (Fig. 4 and 6).

The number is the half-way time of each model, which :mod:`fmbench.metrics.half_way` defines.
"""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from scipy import special

from fmbench.metrics.half_way import GROUPS
from fmbench.report.claims.claim import PATH_ALONE, Claim, Drafts, Evidence, Finding, Sources
from fmbench.report.claims.comparison import not_compared, numbers
from fmbench.report.claims.rows import (
    TRAINED,
    Contest,
    Lost,
    any_diverged,
    by_dataset,
    by_seed,
    contests,
    good,
    in_prose,
    lost_seeds,
    no_contest,
    pairs,
    say_lost,
)
from fmbench.report.claims.student import mean_test
from fmbench.report.claims.verdicts import ALPHA, INCONCLUSIVE, LEVEL, NOT_TESTED

EARLIER = 0.05
"""The smallest visible difference in t: half the spacing of ten frames in a row. For states with a coarser spacing the margin is
half of that spacing, which is about the error of the interpolation between them."""


def structure_earlier(sources: Sources) -> Drafts:
    """Compares the time at which FM-OT has covered half of the way from noise to data with that of each diffusion method."""
    lines: Drafts = []
    for dataset, here in by_dataset(sources["half_way"]):
        found = contests(here)
        if TRAINED not in found:
            lines.append(no_contest(7, dataset))
        for contest in found:
            columns = {"claim": 7, "dataset": dataset, "about": contest.about, "part": "half of the way from noise to data"}
            lines += _half_way(contest, here, columns | {"statistic": "difference in t to the other method", "unit": "t"})
    return lines


def _half_way(contest: Contest, here: pd.DataFrame, columns: dict[str, Any]) -> Drafts:
    """The lines of one comparison, one for each other method, from the rows of a data set."""
    methods = (contest.ours, *contest.others)
    lost = lost_seeds(here, methods, "half_way")
    times = {method: by_seed(here, method, "half_way") for method in methods}
    if times[contest.ours].empty:
        why = f"There is no half-way time: {say_lost({contest.ours: lost[contest.ours]})}"
        return [Finding(verdict=INCONCLUSIVE if any_diverged(lost) else NOT_TESTED, why=why, **columns)]
    spacings = [here.value[good(here, method, "half_way_spacing")].max() for method in methods]
    margin = max(EARLIER, pd.Series(spacings).max() / 2)
    lines: Drafts = []
    for other in contest.others:
        compared = pairs(times[contest.ours], times[other])
        if compared.empty:
            lines.append(not_compared(other, lost, columns))
        else:
            gone = {m: lost[m] for m in (contest.ours, other) if m in lost}
            errors = [by_seed(here, m, "half_way_stderr") for m in (contest.ours, other)]
            lines.append(_earlier(contest.ours, other, compared, pairs(*errors), margin, gone, columns))
    return lines


def _earlier(
    ours: str,
    other: str,
    times: pd.DataFrame,
    errors: pd.DataFrame,
    margin: float,
    gone: Mapping[str, Lost],
    columns: Mapping[str, Any],
) -> Finding | Evidence:
    """The line on one pair of methods, from their half-way times by seed and the standard errors of these."""
    columns = {**columns, "against": other}
    said = [f"{in_prose(m)} at t = {times[side].mean():.2f}" for m, side in ((ours, "ours"), (other, "other"))]
    notes = [f"Half of the way is covered by {' and by '.join(said)}", f"The required margin is {margin:.2g}"]
    notes += [f"Lost seeds are left out: {say_lost(gone)}"] if gone else []
    test = mean_test(times.ours - times.other, -margin, other_side=0.0, shown=f"{-margin:.2g}")
    if test.seeds > 1:
        return Evidence({**columns, **numbers(test)}, (test,), tuple(notes), can_hold=ours not in gone)
    columns |= numbers(test)
    where = ""
    if len(errors) == 1:
        half = float(-special.stdtrit(GROUPS - 1, ALPHA)) * math.hypot(errors.ours.iloc[0], errors.other.iloc[0])
        low, high = test.mean - half, test.mean + half
        side = f"is below {test.limit}" if high < -margin else "is above 0" if low > 0 else f"does not exclude {test.limit} to 0"
        where = f". The interval over samples {side}, but it does not cover other seeds"
        columns |= {"low": low, "high": high, "interval": "samples", "coverage": LEVEL}
    why = ". ".join([f"One seed gives no interval over seeds{where}", *notes])
    return Finding(verdict=INCONCLUSIVE, why=why, **columns)


CLAIM = Claim(
    number=7,
    title="The OT path shows structure earlier",
    statement="On the way from noise to data, the OT path shows the structure of the data early. Diffusion paths stay noise "
    "until near the end.",
    where="Fig. 4 and 6",
    how="The test finds the time t at which the samples have covered half of the way from noise to data. The remaining way "
    "at t is the energy distance between the states at t and the final states, divided by its value at t = 0. Both sets of "
    "states are first brought to the same overall mean and spread. States of images are clamped to the range of the data, "
    "as in the figures. A line holds if FM-OT is earlier than the other method by significantly more than "
    f"{EARLIER:g}, or than half the spacing of the states if that is larger. It fails if FM-OT is significantly later. The test "
    "is over seeds. With one seed, the line shows an interval over samples (a jackknife over groups), and is "
    "inconclusive. The result depends on how the paths define t: the same path with another time parameter gives another "
    "result." + PATH_ALONE,
    needs=("half_way",),
    evaluate=structure_earlier,
)
