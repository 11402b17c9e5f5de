"""Two result sets side by side: every metric of every data set and method, and whether they differ by more than seeds do."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fmbench.config.names import STEP_COSTS
from fmbench.report.table1 import records_frame
from fmbench.store.benchmark import DRAWS, FILE, config_of, read_benchmark, stale_files
from fmbench.store.records import read_rows
from fmbench.store.share import draws_files, setting_differences

LEVEL = 0.05
NO_SPREAD = "no spread"
COLUMNS = [
    "dataset",
    "method",
    "stage",
    "metric",
    "solver",
    "budget",
    "step",
    "draws",
    "unit",
    "features",
    "n",
    "seeds_a",
    "mean_a",
    "std_a",
    "seeds_b",
    "mean_b",
    "std_b",
    "difference",
    "t",
    "degrees",
    "critical",
    "exceeds",
]
LEFT_OUT = ("train_seconds", "parameters", "iterations", "images_seen")
"""Metrics that are costs or settings and no outcome."""
IDENTITY = ["dataset", "method", "stage", "metric", "solver", "budget", "step", "draws", "unit", "features", "n"]


def cells(records: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation (n - 1) and number of seeds of everything measured on models, a row for each thing.

    A thing is a metric by one solver, at one budget of NFE where the solver's steps are fixed, at one iteration along training,
    and over one number of draws. What diverged or was skipped does not count as a seed.
    """
    mine = records[(records.method != "") & (records.status == "ok") & ~records.metric.isin(LEFT_OUT)].copy()
    fixed = mine.solver.str.partition("/")[0].isin(list(STEP_COSTS))
    mine["budget"] = mine.nfe.where(fixed)
    # Elsewhere these are settings, which may differ: how long was trained, say.
    mine["step"] = mine.step.where(mine.stage == "learning_curve")
    mine["draws"] = mine.draws.where(mine.stage == "dequantisation")
    # The hash of weights in a classifier's name differs from machine to machine; the list of differences shows it.
    mine["features"] = mine.features.str.partition("(")[0]
    groups = mine.groupby(IDENTITY, sort=False, dropna=False).value
    return groups.agg(["mean", "std", "count"]).reset_index()


def compare(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """The cells of both sets with their difference, B minus A.

    ``exceeds`` is by Welch's t test at the two-sided level 0.05: *yes* if |difference| > critical sqrt(s_a^2/n_a + s_b^2/n_b)
    with the Welch-Satterthwaite degrees of freedom, *no* if not. With few seeds the critical value is large (12.7 at one
    degree of freedom), so *no* says little. Where a side has one seed there is no spread to compare with and the answer is
    *no spread*, whatever the difference; *only in A* and *only in B* where the other has no number at all. Spreads that are
    both zero (the same number for every seed) are exceeded by any difference. Seeds are not paired, and of many cells
    about one in twenty exceeds by chance.
    """
    both = cells(a).merge(cells(b), on=IDENTITY, how="outer", suffixes=("_a", "_b"), sort=False)
    rows = []
    for cell in both.to_dict("records"):
        n_a, n_b = (0 if pd.isna(cell[f"count_{s}"]) else int(cell[f"count_{s}"]) for s in ("a", "b"))
        row: dict[str, Any] = {c: cell[c] for c in IDENTITY}
        row |= {"seeds_a": n_a, "mean_a": cell["mean_a"], "std_a": cell["std_a"]}
        row |= {"seeds_b": n_b, "mean_b": cell["mean_b"], "std_b": cell["std_b"]}
        difference = cell["mean_b"] - cell["mean_a"]
        rows.append(row | {"difference": difference} | welch(difference, cell["std_a"], n_a, cell["std_b"], n_b))
    table = pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(("n", "step", "draws"), "Int64"))
    found = pd.concat([a, b])
    order = {column: {v: i for i, v in enumerate(found[column].unique())} for column in ("dataset", "method", "stage")}
    key = ["dataset", "method", "stage", "metric", "solver", "budget", "step", "draws", "n"]
    ranked = {"kind": "stable", "key": lambda c: c.map(order[str(c.name)]) if c.name in order else c}
    return table.sort_values(key, ignore_index=True, **ranked)  # type: ignore[call-overload]


def welch(difference: float, std_a: float, n_a: int, std_b: float, n_b: int) -> dict[str, Any]:
    """Welch's test of a difference of means; see :func:`compare`. ``critical`` is the quantile that |t| is held to."""
    from scipy.stats import t as student

    nothing: dict[str, Any] = {"t": None, "degrees": None, "critical": None}
    if n_a == 0 or n_b == 0:
        return nothing | {"exceeds": "only in B" if n_a == 0 else "only in A"}
    if n_a == 1 or n_b == 1:
        return nothing | {"exceeds": NO_SPREAD}
    left, right = std_a**2 / n_a, std_b**2 / n_b
    if left + right == 0:
        return nothing | {"exceeds": "yes" if difference != 0 else "no"}
    degrees = (left + right) ** 2 / (left**2 / (n_a - 1) + right**2 / (n_b - 1))
    statistic = difference / (left + right) ** 0.5
    critical = float(student.ppf(1 - LEVEL / 2, degrees))
    exceeds = "yes" if abs(statistic) > critical else "no"
    return {"t": statistic, "degrees": degrees, "critical": critical, "exceeds": exceeds}


def settings(a: Path, b: Path) -> list[str]:
    """What the two sets' descriptions have different, a line each."""
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
                lines.append(f"{key} of {name}: {_say(one[key][name])} in A, {_say(other[key][name])} in B")
    extractors = [_extractors(folder) for folder in (a, b)]
    for dataset in sorted(set(extractors[0]) & set(extractors[1])):
        if extractors[0][dataset] != extractors[1][dataset]:
            lines.append(
                f"features on {dataset}: {', '.join(extractors[0][dataset])} in A, {', '.join(extractors[1][dataset])} in B"
            )
    for key in ("commits", "versions", "devices", "threads"):
        if one[key] != other[key]:
            lines.append(f"{key}: {_say(one[key])} in A, {_say(other[key])} in B")
    return lines


def _extractors(folder: Path) -> dict[str, list[str]]:
    records = records_frame(folder / "records.parquet")
    return {str(d): sorted(part.features.unique()) for d, part in records[records.features != ""].groupby("dataset")}


def _say(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def markdown(table: pd.DataFrame, different: Sequence[str], names: tuple[str, str]) -> str:
    """For reading: what differs in the settings on top, then a table for each data set."""
    counts = table.exceeds.value_counts()
    lines = [f"# {names[0]} (A) against {names[1]} (B)", ""]
    lines += ["Settings, code and machines are the same."] if not different else ["What is not the same:", ""]
    lines += [f"* {line}" for line in different]
    tested = counts.get("yes", 0) + counts.get("no", 0)
    lines += ["", f"{counts.get('yes', 0)} of {tested} differences exceed the seeds' spread (Welch's t test, level {LEVEL:g}; "]
    lines[-1] += f"about {LEVEL * tested:.0f} would by chance)."
    others = [f"{counts[reason]} {reason}" for reason in (NO_SPREAD, "only in A", "only in B") if counts.get(reason, 0)]
    lines[-1] += f" Not tested: {', '.join(others)}." if others else ""
    for dataset, part in table.groupby("dataset", sort=False):
        lines += ["", f"## {dataset}", "", "| Method | Metric | A | B | B - A | Exceeds the seeds' spread |", "|" + "---|" * 6]
        for row in part.to_dict("records"):
            at = "" if pd.isna(row["budget"]) else f", {row['solver']} at NFE {row['budget']:g}"
            at += "" if pd.isna(row["step"]) else f", iteration {row['step']}"
            at += "" if pd.isna(row["draws"]) else f", K = {row['draws']}"
            line = [row["method"], f"{row['metric']}{at} ({row['unit']})"]
            line += [_number(row["mean_a"], row["std_a"]), _number(row["mean_b"], row["std_b"])]
            line += ["-" if pd.isna(row["difference"]) else f"{row['difference']:+.4g}", row["exceeds"]]
            lines.append("| " + " | ".join(map(str, line)) + " |")
    return "\n".join([*lines, ""])


def _number(mean: float, std: float) -> str:
    if pd.isna(mean):
        return "-"
    return f"{mean:.4g}" if pd.isna(std) else f"{mean:.4g} ± {std:.2g}"


def compare_sets(a: Path, b: Path) -> tuple[pd.DataFrame, list[str]]:
    """The table and the list of what differs, of two results folders.

    Raises:
        DataError: a folder has no records.
    """
    return compare(*map(_everything, (a, b))), settings(a, b)


def _everything(results: Path) -> pd.DataFrame:
    """The records, the learning curves, few-step samples and NLL against K, as far as they are there and of this config."""
    others = stale_files(results)
    files = [results / f"{name}.parquet" for name in ("learning_curve", "few_step") if f"{name}.parquet" not in others]
    files += draws_files(results, config_of(results)) if (results / FILE).exists() else [results / DRAWS]
    return read_rows([results / "records.parquet", *(file for file in files if file.exists())]).to_pandas()
