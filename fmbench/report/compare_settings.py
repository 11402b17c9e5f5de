"""What differs between the settings, code and machines of two results folders."""

import json
from pathlib import Path
from typing import Any

from fmbench.report.frames import records_frame
from fmbench.store.agreement import setting_differences
from fmbench.store.benchmark import FILE, read_benchmark


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
