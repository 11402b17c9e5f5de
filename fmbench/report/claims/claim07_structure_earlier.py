"""Claim 7: the OT path shows structure earlier (Fig. 4 and 6).

The remaining way from noise to data at t is the energy distance between the states at t and the final states, divided by its
value at t = 0. Both sets of states are first brought to the same overall mean and spread, because a path may shrink or stretch
its noise, and this is not structure. The distance of each state to its own final state is not a useful measure: a flow moves a
noise point to nearby data, so in few dimensions the noise point already predicts its final state.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special
from scipy.spatial.distance import cdist

from fmbench.metrics.jackknife import group_of_each, jackknife_stderr
from fmbench.report.claims.claim import PATH_ALONE, Claim, Drafts, Evidence, Finding, Sources
from fmbench.report.claims.comparison import not_compared, numbers
from fmbench.report.claims.rows import TRAINED, Contest, Lost, contests, in_prose, lost_seeds, no_contest, say_lost, select
from fmbench.report.claims.student import mean_test
from fmbench.report.claims.verdicts import ALPHA, INCONCLUSIVE, LEVEL, NOT_TESTED

EARLIER = 0.05
"""The smallest visible difference in t: half the spacing of ten frames in a row. For states with a coarser spacing the margin is
half of that spacing, which is about the error of the interpolation between them."""
GROUPS = 10
"""The number of groups of samples that are left out in turn for the interval; nine degrees of freedom widen it by a seventh."""
WAY_SAMPLES = 2000
"""The number of samples used, from the first on. The number of distances between them is its square."""


def structure_earlier(sources: Sources) -> Drafts:
    """Compares the time at which FM-OT has covered half of the way from noise to data with that of each diffusion method.

    Where two or more seeds have states, the test is over seeds. Otherwise the interval is over samples, and decides nothing.
    """
    states = sources["trajectory"]
    lines: Drafts = []
    records = sources.get("records", states.iloc[:0].assign(status="", metric=""))
    for dataset in dict.fromkeys([*states.dataset.unique(), *records.dataset.unique()]):
        here, rows = select(states, dataset=dataset), select(records, dataset=dataset)
        # A lost training has records but no states.
        found = contests(pd.concat([here[["method"]], rows[["method"]]]))
        if TRAINED not in found:
            lines.append(no_contest(7, dataset))
        for contest in found:
            ours = contest.ours
            columns = {"claim": 7, "dataset": dataset, "about": contest.about, "part": "half of the way from noise to data"}
            lost = lost_seeds(rows, (ours, *contest.others), "final_loss")
            if ours in lost and ours not in set(here.method.unique()):
                why = f"There is no trajectory: {say_lost({ours: lost[ours]})}"
                lines.append(Finding(verdict=INCONCLUSIVE, why=why, **columns))
            else:
                lines += _half_way(contest, here, lost, columns)
    return lines


@dataclass(frozen=True)
class HalfWay:
    """The times at which a method has covered half of the way, by seed: of all samples, then without each group."""

    times: dict[int, NDArray]
    spacing: float


def _half_way(contest: Contest, here: pd.DataFrame, lost: Mapping[str, Lost], columns: dict[str, Any]) -> Drafts:
    """The lines of one comparison, one for each other method, from the states of a data set."""
    columns |= {"statistic": "difference in t to the other method", "unit": "t"}
    found = {m: half for m in (contest.ours, *contest.others) if (half := _times(select(here, method=m))).times}
    if contest.ours not in found or len(found) < 2:
        why = f"The test needs states of both paths at three or more times, with the same {2 * GROUPS} or more samples at each"
        return [Finding(verdict=NOT_TESTED, why=why, **columns)]
    margin = max(EARLIER, max(half.spacing for half in found.values()) / 2)
    ours = found[contest.ours]
    lines: Drafts = []
    for other in contest.others:
        if other in found and set(ours.times) & set(found[other].times):
            lines.append(_earlier((contest.ours, other), ours.times, found[other].times, margin, columns))
        else:
            lines.append(not_compared(other, lost, columns))
    return lines


def _times(states: pd.DataFrame) -> HalfWay:
    ways = {
        int(seed): way for seed in sorted(states.seed.unique()) if (way := way_covered(select(states, seed=seed))) is not None
    }
    spacing = max((float(np.diff(times).max()) for times, _ in ways.values()), default=0.0)
    return HalfWay({seed: half_time(times, covered) for seed, (times, covered) in ways.items()}, spacing)


def _earlier(
    methods: tuple[str, str], ours: Mapping[int, NDArray], other: Mapping[int, NDArray], margin: float, columns: Mapping[str, Any]
) -> Finding | Evidence:
    """The line on one pair of methods, from the times of their seeds."""
    columns = {**columns, "against": methods[1]}
    seeds = sorted(set(ours) & set(other))
    at = [f"{in_prose(m)} at t = {np.mean([v[s][0] for s in seeds]):.2f}" for m, v in zip(methods, (ours, other), strict=True)]
    notes = (f"Half of the way is covered by {' and by '.join(at)}", f"The required margin is {margin:.2g}")
    test = mean_test([float(ours[s][0] - other[s][0]) for s in seeds], -margin, other_side=0.0, shown=f"{-margin:.2g}")
    if test.seeds > 1:
        return Evidence({**columns, **numbers(test)}, (test,), notes)
    low, high = interval_over_samples(ours[seeds[0]] - other[seeds[0]])
    where = f"is below {test.limit}" if high < -margin else "is above 0" if low > 0 else f"does not exclude {test.limit} to 0"
    why = f"The interval over samples {where}, but only one seed has states, and the interval does not cover other seeds"
    columns |= numbers(test) | {"low": low, "high": high, "interval": "samples", "coverage": LEVEL}
    return Finding(verdict=INCONCLUSIVE, why=". ".join([why, *notes]), **columns)


def interval_over_samples(values: NDArray) -> tuple[float, float]:
    """Student's interval from the value of all samples, followed by the values without each group."""
    whole, left_out = float(values[0]), values[1:]
    half = float(-special.stdtrit(len(left_out) - 1, ALPHA)) * jackknife_stderr(left_out)
    return whole - half, whole + half


def way_covered(rows: pd.DataFrame) -> tuple[NDArray, NDArray] | None:
    """Times (T,), and the share of the way from noise to data covered at each, (1 + groups, T).

    The first row is of all samples, the others are without each group. None where the states do not allow it.
    """
    times = np.sort(rows.t.unique())
    by_time = [rows[rows.t == t].sort_values("index").head(WAY_SAMPLES) for t in times]
    if len(times) < 3 or len({tuple(part["index"]) for part in by_time}) != 1 or len(by_time[0]) < 2 * GROUPS:
        return None
    values = np.stack([np.stack(part["values"].to_list()) for part in by_time]).astype(np.float64)  # (T, n, D)
    values -= values.mean((1, 2), keepdims=True)
    values /= values.std((1, 2), keepdims=True).clip(min=1e-12)
    end = values[-1]
    within_end = mean_distances(end, end)
    ways = np.stack([2 * mean_distances(x, end) - mean_distances(x, x) - within_end for x in values], 1)
    if not (ways[:, 0] > 0).all():
        return None
    return times, 1 - ways / ways[:, :1]


def mean_distances(x: NDArray, y: NDArray) -> NDArray:
    """The mean distance between different samples, i of x and j of y with i not j: of all, then without each group.

    The result has shape (1 + groups,). i and j start from different noise, so leaving out i = j makes the energy distance
    unbiased, even for x and y of the same flow.
    """
    n = len(x)
    group = group_of_each(n, GROUPS)
    starts = np.searchsorted(group, np.arange(GROUPS))
    distances = cdist(x, y)
    np.fill_diagonal(distances, 0.0)
    blocks = np.add.reduceat(np.add.reduceat(distances, starts, 0), starts, 1)
    sizes = np.bincount(group)
    total = blocks.sum()
    left = total - blocks.sum(0) - blocks.sum(1) + np.diag(blocks)
    kept = n - sizes
    return np.concatenate([[total / (n * (n - 1))], left / (kept * (kept - 1))])


def half_time(times: NDArray, covered: NDArray) -> NDArray:
    """The first time at which ``covered`` (..., times) reaches one half, by linear interpolation; NaN if it never does."""
    covered = np.atleast_2d(covered)
    reached = covered >= 0.5
    first = reached.argmax(-1)
    rows = np.arange(len(covered))
    earlier = np.maximum(first - 1, 0)
    low, high = covered[rows, earlier], covered[rows, first]
    step = np.divide(0.5 - low, high - low, out=np.zeros(len(rows)), where=high != low)
    found = times[earlier] + np.clip(step, 0, 1) * (times[first] - times[earlier])
    found = np.where(first == 0, times[0], found)
    return np.where(reached.any(-1), found, np.nan)


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
    "is over seeds. If only one seed has states, the line shows an interval over samples (a jackknife over groups), and is "
    "inconclusive. The result depends on how the paths define t: the same path with another time parameter gives another "
    "result." + PATH_ALONE,
    needs=("trajectory",),
    evaluate=structure_earlier,
)
