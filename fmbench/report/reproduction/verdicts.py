"""The verdict on every number of a run: it agrees with the reference, is off, or cannot be compared."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmbench.report.compare import IDENTITY, measurements
from fmbench.report.reproduction import statistics
from fmbench.report.reproduction.settings import Settings

AGREES, OFF, NOT_COMPARED = "agrees", "off", "not compared"
LEVEL = 0.025
"""The probability that any number of an equal run is off, and that of a significant joint test: together at most 0.05."""
ROUNDING = 1e-7
"""Values that differ by less than this share of their mean are equal to the rounding of float32."""
TOLERANCE = 1e-4
"""How far a number that no seed changes may be from the reference, as a share of it, because another processor rounds."""
STEP = 6.0
"""The evaluations of one step of dopri5."""
LOGARITHMIC = ("mse", "reference_mse", "nll_probe_std", "nll_probe_variance")
"""Positive metrics whose values at several seeds differ by a factor. They are compared on a logarithmic scale."""
WIDEST = 2.0
"""The run's own spread counts up to this many times the reference's.

The larger of the two keeps numbers with heavy tails from false alarms. Without a limit, a fault at one seed would widen its own
interval. Only numbers on a logarithmic scale have none: one sample can make most of a mean of squares.
"""
COLUMNS = [*IDENTITY, "scale", "reference_mean", "reference_spread", "reference_seeds", "run_mean", "run_seeds"]
COLUMNS += ["same_values", "low", "high", "z", "p", "verdict", "why"]


@dataclass(frozen=True)
class Side:
    """The numbers of one result set: a row for each number, a column for each seed.

    Attributes:
        values: the value; NaN if a row has none or there is no row.
        there: whether there is a row.
        failed: why the first row without a value has none; an empty text if all have one.
        extractor: the name of the feature extractor.
    """

    seeds: list[int]
    values: NDArray
    there: NDArray
    failed: list[str]
    extractor: list[str]


def compare_runs(reference: pd.DataFrame, run: pd.DataFrame, settings: Settings) -> tuple[pd.DataFrame, float]:
    """Return a row for each number of the run, with its verdict, and the p-value of all numbers together.

    Numbers that the run should have and lacks follow: those of the reference whose job is in the run, with the same settings.

    Args:
        reference, run: records.
    """
    sets = {name: measurements(records) for name, records in (("run", run), ("reference", reference))}
    rows = pd.concat(sets, names=["set", None]).reset_index("set")
    rows["number"] = rows.groupby(IDENTITY, sort=False, dropna=False).ngroup()
    numbers = rows.drop_duplicates("number").sort_values("number").reset_index(drop=True)[IDENTITY]
    ref, new = (_side(rows[rows.set == name], len(numbers)) for name in ("reference", "run"))
    jobs = list(zip(numbers.dataset, numbers.method, numbers.stage, strict=True))
    in_run = [bool(row.any()) for row in new.there]
    ran = {job for job, there in zip(jobs, in_run, strict=True) if there}
    reasons = [_incomparable(numbers.unit[i], ref, new, i) or settings.reason(*job) for i, job in enumerate(jobs)]
    kept = np.array([there or (jobs[i] in ran and not reasons[i]) for i, there in enumerate(in_run)], bool)
    table, scaled = _judged(numbers, ref, new, reasons)
    tested = kept & table.z.notna().to_numpy()
    joint = statistics.joint_p(*(values[tested] for values in scaled)) if tested.any() else float("nan")
    return table[kept].reset_index(drop=True), joint


def _side(rows: pd.DataFrame, count: int) -> Side:
    """The values of one set by number and seed."""
    seeds, column = np.unique(rows.seed.to_numpy(), return_inverse=True)
    number, ok = rows.number.to_numpy(), (rows.status == "ok").to_numpy()
    values, there = np.full((count, len(seeds)), np.nan), np.zeros((count, len(seeds)), bool)
    values[number[ok], column[ok]] = rows.value.to_numpy()[ok]
    there[number, column] = True
    failed, extractor = [""] * count, [""] * count
    for i, reason, features in zip(number[::-1], np.where(ok, "", rows.reason)[::-1], rows.extractor[::-1], strict=True):
        failed[i], extractor[i] = reason or failed[i], features
    return Side([int(seed) for seed in seeds], values, there, failed, extractor)


def _incomparable(unit: str, ref: Side, new: Side, i: int) -> str:
    """Why a number cannot be compared, apart from settings; empty if it can."""
    if unit == "s":
        return "a time depends on the machine"
    if not ref.there[i].any():
        return "the reference has no such number"
    if new.there[i].any() and ref.extractor[i] != new.extractor[i]:
        return f"the feature extractor differs: {ref.extractor[i]} in the reference, {new.extractor[i]} here"
    return ""


def _judged(numbers: pd.DataFrame, ref: Side, new: Side, reasons: list[str]) -> tuple[pd.DataFrame, list[NDArray]]:
    """The table of all numbers, and the values of both sides on the scales that they are compared on."""
    logarithmic = _logarithmic(numbers, ref, new)
    x, y = (_scaled(side.values, logarithmic) for side in (ref, new))
    (n, centre, spread), (m, mean, own) = statistics.moments(x), statistics.moments(y)
    size = np.where(logarithmic, 1.0, np.abs(centre))
    resolution = _resolution(numbers)
    constant = (n > 1) & (spread <= ROUNDING * size) & (resolution == 0)
    shared = _same_values(x, y, size, ref, new)
    identical = (shared == m) & (m > 0)
    rulings = [_ruling(ref, new, i, reason) for i, reason in enumerate(reasons)]
    free = np.array([not verdict for verdict, _ in rulings], bool)
    testable = free & (n > 1) & ~constant
    expected = np.maximum(spread, resolution / 2)
    widest = np.where(logarithmic, np.inf, WIDEST * expected)
    error = statistics.standard_error(np.fmax(expected, np.minimum(own, widest)), n, m)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(testable, (mean - centre) / error, np.nan)
    p = np.where(testable & identical, 1.0, statistics.p_values(z, n))
    significant, level = statistics.holm(p, LEVEL)
    half = np.where(constant, TOLERANCE * size, statistics.quantile(level, n) * error)
    off = significant | (free & constant & ~identical & (np.abs(mean - centre) > half))
    alone = free & (n == 1) & ~identical
    for i in np.flatnonzero(free):
        rulings[i] = _words(bool(off[i]), bool(alone[i]), bool(identical[i]), bool(constant[i]))
    half = np.where(free & (n > 1), half, np.nan)
    columns: dict[str, Any] = {
        "scale": np.where(logarithmic, "logarithmic", "linear"),
        "reference_mean": _unscaled(centre, logarithmic),
        "reference_spread": spread,
        "reference_seeds": n,
        "run_mean": _unscaled(mean, logarithmic),
        "run_seeds": m,
        "same_values": shared,
        "low": _unscaled(centre - half, logarithmic),
        "high": _unscaled(centre + half, logarithmic),
        "z": z,
        "p": p,
        "verdict": [verdict for verdict, _ in rulings],
        "why": [why for _, why in rulings],
    }
    return numbers.assign(**columns)[COLUMNS], [x, y]


def _scaled(values: NDArray, logarithmic: NDArray) -> NDArray:
    return np.where(logarithmic[:, None], np.log(np.where(logarithmic[:, None], values, 1.0)), values)


def _unscaled(values: NDArray, logarithmic: NDArray) -> NDArray:
    with np.errstate(over="ignore"):
        return np.where(logarithmic, np.exp(np.where(logarithmic, values, 0.0)), values)


def _logarithmic(numbers: pd.DataFrame, ref: Side, new: Side) -> NDArray:
    """Which numbers are compared on a logarithmic scale: those of :data:`LOGARITHMIC` whose values are all positive."""
    positive = ~((ref.values <= 0).any(axis=1) | (new.values <= 0).any(axis=1))
    return numbers.metric.isin(LOGARITHMIC).to_numpy() & positive


def _resolution(numbers: pd.DataFrame) -> NDArray:
    """The distance of neighbouring values of a number that is a count, and 0 for others.

    Counts of evaluations are multiples of a step, and a mean over n samples has multiples of a step over n; a share of n samples
    has multiples of 1/n. Several seeds may have equal counts by chance. Their spread is then taken as half of this distance.
    """
    n = numbers.n.astype("float64").clip(lower=1).fillna(1.0).to_numpy()
    counts = np.where(
        numbers.metric == "nfe", STEP / n, np.where(numbers.metric == "nfe_std_over_samples", STEP / np.sqrt(n), STEP)
    )
    return np.where(numbers.unit == "evaluations", counts, np.where(numbers.unit == "fraction", 1 / n, 0.0))


def _same_values(x: NDArray, y: NDArray, size: NDArray, ref: Side, new: Side) -> NDArray:
    """At how many seeds of the run the reference has the same value, up to rounding."""
    shared = [(ref.seeds.index(seed), j) for j, seed in enumerate(new.seeds) if seed in ref.seeds]
    found = np.zeros(len(x), int)
    for i, j in shared:
        found += np.abs(x[:, i] - y[:, j]) <= ROUNDING * size
    return found


def _ruling(ref: Side, new: Side, i: int, reason: str) -> tuple[str, str]:
    """The verdict on a number that does not need its values, with the reason; empty texts if there is none."""
    n, m = (int(np.isfinite(side.values[i]).sum()) for side in (ref, new))
    if reason:
        return NOT_COMPARED, reason
    if not new.there[i].any():
        return OFF, "the run has no such number"
    if n == 0 and m == 0:
        return AGREES, f"no value in both: {new.failed[i]}"
    if n == 0:
        return OFF, f"the run has a value, the reference has none: {ref.failed[i]}"
    if new.failed[i] and (m == 0 or not ref.failed[i]):
        return OFF, f"no value at {new.there[i].sum() - m} of {new.there[i].sum()} seeds: {new.failed[i]}"
    return "", ""


def _words(off: bool, alone: bool, identical: bool, constant: bool) -> tuple[str, str]:
    """The verdict on a number by its values, with the reason."""
    if identical:
        return AGREES, "the same values at the same seeds"
    if alone:
        return NOT_COMPARED, "the reference has one seed, and so no spread"
    if constant:
        return (OFF if off else AGREES), f"{'not ' if off else ''}within {TOLERANCE:g} of a value that no seed changes"
    return (OFF if off else AGREES), f"{'outside' if off else 'within'} the interval of the reference's seeds"
