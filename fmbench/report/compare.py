"""Two result sets compared: every metric of every data set and method, and whether it differs by more than seeds do."""

import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from fmbench.config.solver_labels import is_fixed_step
from fmbench.config.stages import GATHERED
from fmbench.report.frames import records_frame
from fmbench.report.layout import NONE, block, heading, markdown_table
from fmbench.store.agreement import setting_differences
from fmbench.store.benchmark import FILE, config_of, read_benchmark
from fmbench.store.merge_tables import TIME_UNITS
from fmbench.store.records import read_rows
from fmbench.store.result_set import table4_files
from fmbench.store.stale import TABLE4_ROWS, stale_files

LEVEL = 0.05
"""Two-sided level of the test."""
NO_SPREAD = "no spread"
"""The answer where a set has one seed."""
IDENTITY = ["dataset", "method", "stage", "metric", "solver", "budget", "step", "draws", "unit", "features", "n"]
"""The columns that name one measurement, which both sets may have."""
COLUMNS = [
    *IDENTITY,
    *(f"{what}_{side}" for side in ("a", "b") for what in ("seeds", "mean", "std")),
    *("difference", "t", "degrees", "critical", "exceeds"),
]
LEFT_OUT = ("train_seconds", "began", "ended", "parameters", "iterations", "images_seen")
"""Metrics that are costs or settings, not outcomes. The standard errors of outcomes are left out, too."""


def measurements(records: pd.DataFrame) -> pd.DataFrame:
    """Return the rows about models, with :data:`IDENTITY` such that the rows of one measurement differ in their seed alone.

    A measurement is one metric by one solver, at one NFE for a fixed-step solver, at one iteration in a learning curve, and for
    one K of NLL against K. The column ``extractor`` keeps the whole name of the feature extractor.
    """
    left_out = records.metric.isin(LEFT_OUT) | records.metric.str.contains("_stderr")
    mine = records[(records.method != "") & ~left_out].copy()
    fixed = mine.solver.map(is_fixed_step).astype(bool)
    mine["budget"] = mine.nfe.where(fixed)
    # In other stages these are settings, such as the length of the training, and may differ.
    mine["step"] = mine.step.where(mine.stage == "learning_curve")
    mine["draws"] = mine.draws.where(mine.stage == "dequantisation")
    # A classifier's name holds the hash of its weights, which differs between machines; the list of differences shows it.
    mine["extractor"] = mine.features
    mine["features"] = mine.features.str.partition("(")[0]
    return mine


def cells(records: pd.DataFrame) -> pd.DataFrame:
    """Return mean, standard deviation (n - 1) and number of seeds of every one of :func:`measurements`, one row each.

    Rows that diverged or were skipped do not count as a seed. Measured times are left out, since no run repeats them.
    """
    mine = measurements(records)
    groups = mine[(mine.status == "ok") & ~mine.unit.isin(TIME_UNITS)].groupby(IDENTITY, sort=False, dropna=False).value
    return groups.agg(["mean", "std", "count"]).reset_index()


def compare(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Return the measurements of both sets with their difference, B minus A.

    ``exceeds`` is the result of Welch's t test at the two-sided level 0.05: *yes* if
    |difference| > critical sqrt(s_a^2/n_a + s_b^2/n_b) with the Welch-Satterthwaite degrees of freedom, else *no*. With few
    seeds the critical value is large (12.7 at one degree of freedom), so *no* says little. The answer is *no spread* if a set
    has one seed, and *only in A* or *only in B* if the other set lacks the measurement. If both spreads are zero, any
    difference exceeds them. Seeds are not paired. About one in twenty measurements exceeds by chance.
    """
    both = cells(a).merge(cells(b), on=IDENTITY, how="outer", suffixes=("_a", "_b"), sort=False)
    counts = {f"seeds_{s}": both[f"count_{s}"].fillna(0).astype("int64") for s in ("a", "b")}
    table = both.assign(**counts, difference=both.mean_b - both.mean_a)
    tests = welch(*(table[c].to_numpy() for c in ("difference", "std_a", "seeds_a", "std_b", "seeds_b")))
    table = table.assign(**tests)[COLUMNS].astype(dict.fromkeys(("n", "step", "draws"), "Int64"))
    found = pd.concat([a, b])
    order = {column: {v: i for i, v in enumerate(found[column].unique())} for column in ("dataset", "method", "stage")}
    key = ["dataset", "method", "stage", "metric", "solver", "budget", "step", "draws", "n"]
    ranked = {"kind": "stable", "key": lambda c: c.map(order[str(c.name)]) if c.name in order else c}
    return table.sort_values(key, ignore_index=True, **ranked)  # type: ignore[call-overload]


def welch(difference: ArrayLike, std_a: ArrayLike, n_a: ArrayLike, std_b: ArrayLike, n_b: ArrayLike) -> dict[str, NDArray]:
    """Return Welch's test of differences of means, as in :func:`compare`.

    Args:
        difference, std_a, n_a, std_b, n_b: arrays of one shape, or numbers.

    Returns:
        ``t``, ``degrees`` and ``critical``, the value that ``t`` must exceed, NaN where there is no test; and ``exceeds``.
    """
    from scipy.stats import t as student

    difference, std_a, n_a, std_b, n_b = (np.asarray(x, np.float64) for x in (difference, std_a, n_a, std_b, n_b))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        left, right = std_a**2 / n_a, std_b**2 / n_b
        degrees = (left + right) ** 2 / (left**2 / (n_a - 1) + right**2 / (n_b - 1))
        statistic = difference / np.sqrt(left + right)
    equal = left + right == 0
    none = (n_a < 2) | (n_b < 2) | equal
    numbers = {"t": statistic, "degrees": degrees, "critical": student.ppf(1 - LEVEL / 2, np.where(none, np.nan, degrees))}
    exceeds = np.where(equal, difference != 0, np.abs(statistic) > numbers["critical"])
    reasons = [(n_a == 0, "only in B"), (n_b == 0, "only in A"), ((n_a == 1) | (n_b == 1), NO_SPREAD), (exceeds, "yes")]
    answers = np.select([where for where, _ in reasons], [answer for _, answer in reasons], "no")
    return {name: np.where(none, np.nan, values) for name, values in numbers.items()} | {"exceeds": answers}


def markdown(table: pd.DataFrame, different: Sequence[str], names: tuple[str, str]) -> str:
    """Return the comparison as Markdown: the differences of settings, then a table for each data set."""
    counts = table.exceeds.value_counts()
    lines = [heading(1, f"{names[0]} (A) against {names[1]} (B)"), ""]
    same = ["Settings, code and machines are the same."]
    lines += ["A and B differ in:", "", *(f"* {block(line)}" for line in different)] if different else same
    exceeding = int(counts.get("yes", 0))
    tested = exceeding + int(counts.get("no", 0))
    summary = f"{exceeding} of {tested} differences exceed the spread over seeds (Welch's t test, level {LEVEL:g}). "
    summary += f"About {LEVEL * tested:.0f} would by chance."
    others = [f"{counts[reason]} {reason}" for reason in (NO_SPREAD, "only in A", "only in B") if counts.get(reason, 0)]
    lines += ["", summary + (f" Not tested: {', '.join(others)}." if others else "")]
    header = ["Method", "Metric", "A", "B", "B - A", "Exceeds the spread over seeds"]
    for dataset, part in table.groupby("dataset", sort=False):
        lines += ["", heading(2, str(dataset)), "", *markdown_table(header, map(_line, part.to_dict("records")))]
    return "\n".join([*lines, ""])


def _line(row: dict[Hashable, Any]) -> list[str]:
    """The cells of one measurement."""
    at = "" if pd.isna(row["budget"]) else f", {row['solver']} at NFE {row['budget']:g}"
    at += "" if pd.isna(row["step"]) else f", iteration {row['step']}"
    at += "" if pd.isna(row["draws"]) else f", K = {row['draws']}"
    difference = NONE if pd.isna(row["difference"]) else f"{row['difference']:+.4g}"
    a, b = (_number(row[f"mean_{s}"], row[f"std_{s}"]) for s in ("a", "b"))
    return [row["method"], f"{row['metric']}{at} ({row['unit']})", a, b, difference, row["exceeds"]]


def _number(mean: float, std: float) -> str:
    if pd.isna(mean):
        return NONE
    return f"{mean:.4g}" if pd.isna(std) else f"{mean:.4g} ± {std:.2g}"


def compare_sets(a: Path, b: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return the table and the list of different settings of two results folders.

    Raises:
        DataError: a folder has no records.
    """
    return compare(*map(all_records, (a, b))), differences(a, b)


def all_records(results: Path) -> pd.DataFrame:
    """Return the records, learning curves, few-step rows, half-way times and rows of Table 4 of the present config."""
    others = stale_files(results)
    names = [f"{name}.parquet" for name, (_, file) in GATHERED.items() if file == "rows.parquet"]
    files = [results / name for name in names if name not in others]
    files += table4_files(results, config_of(results)) if (results / FILE).exists() else [results / TABLE4_ROWS]
    return read_rows([results / "records.parquet", *(file for file in files if file.exists())]).to_pandas()


def differences(a: Path, b: Path) -> list[str]:
    """Return one line for each difference between the descriptions (``benchmark.json``) of two results folders."""
    absent = [name for name, folder in (("A", a), ("B", b)) if not (folder / FILE).exists()]
    if absent:
        return [f"settings are not compared: no {FILE} in {' and '.join(absent)}"]
    one, other = read_benchmark(a), read_benchmark(b)
    lines = []
    for key in ("datasets", "seeds"):
        if one["config"][key] != other["config"][key]:
            lines.append(f"{key}: {one['config'][key]} in A, {other['config'][key]} in B")
    names = [[m["name"] for m in d["config"]["methods"]] for d in (one, other)]
    if names[0] != names[1]:
        lines.append(f"methods: {names[0]} in A, {names[1]} in B")
    for name, (left, right) in setting_differences(one["config"], other["config"]).items():
        lines.append(f"{name}: {left} in A, {right} in B")
    for key in ("data", "code"):
        for name in sorted(set(one[key]) & set(other[key])):
            if one[key][name] != other[key][name]:
                lines.append(f"{key} of {name}: {_json(one[key][name])} in A, {_json(other[key][name])} in B")
    extractors = [_extractors(folder) for folder in (a, b)]
    for dataset in sorted(set(extractors[0]) & set(extractors[1])):
        left, right = (", ".join(found[dataset]) for found in extractors)
        if left != right:
            lines.append(f"features on {dataset}: {left} in A, {right} in B")
    for key in ("commits", "versions", "devices", "threads"):
        if one[key] != other[key]:
            lines.append(f"{key}: {_json(one[key])} in A, {_json(other[key])} in B")
    return lines


def _extractors(folder: Path) -> dict[str, list[str]]:
    """The feature extractors of each data set."""
    records = records_frame(folder / "records.parquet")
    return {str(d): sorted(part.features.unique()) for d, part in records[records.features != ""].groupby("dataset")}


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
