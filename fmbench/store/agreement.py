"""What result sets must agree on before they are merged: settings, data, code and feature extractors."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmbench.config.methods import MORE_PARTS, PARTS
from fmbench.config.written_out import written_out
from fmbench.store.benchmark import FILE, codes, parse_config
from fmbench.store.flatten import flatten
from fmbench.store.result_set import ResultSet

KINDS = {
    "code": "hashes of a stage's code",
    "device": "what models were trained and evaluated on",
    "extractor": "extractors behind distances between distributions, which then do not measure the same thing",
    "rows": "numbers that both sets have, with different values; the first set's are kept",
}
"""The kinds of differences that ``fmbench merge --allow`` can let pass."""
LOCATIONS = ("path", "download")
"""Parameters of a data set that say where its files are. The hashes of the data compare what is in the files."""
NOT_SET = "(not set)"


@dataclass(frozen=True)
class Difference:
    """One thing that two sets do not agree on.

    Attributes:
        kind: the kind of :data:`KINDS` that lets it pass; empty if none does.
        text: the difference in words.
    """

    kind: str
    text: str


def differences(a: ResultSet, b: ResultSet) -> list[Difference]:
    """Everything that two sets must agree on and do not; :mod:`fmbench.store.merge_tables` compares their rows."""
    return [*_settings(a, b), *_data(a, b), *_code(a, b), *_extractors(a, b)]


def comparable_settings(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that two sets must agree on: those of each data set, of each method, and the common ones.

    The seeds, the choice of data sets and methods, and the places of data files may differ.

    Args:
        config: the config in a description.
    """
    parsed = parse_config(config, Path(FILE))
    values = written_out(parsed)
    found = {k: v for k, v in values.items() if k not in ("seeds", "datasets", "methods", "settings")}
    for name in parsed.datasets:
        settings = values["settings"][name]
        parameters = {k: v for k, v in settings["data"]["parameters"].items() if k not in LOCATIONS}
        found[f"settings.{name}"] = settings | {"data": settings["data"] | {"parameters": parameters}}
    for method, written in zip(parsed.methods, values["methods"], strict=True):
        resolved = method.resolve()
        parts = {p: getattr(resolved, p) for p in (*PARTS, *MORE_PARTS)}
        found[f"methods.{method.name}"] = {
            **{p: {"name": part.name} | part.parameters for p, part in parts.items() if part is not None},
            "t_min": resolved.t_min,
            "t_max": resolved.t_max,
            "oracle": resolved.oracle,
            "training": written["training"],
        }
    return found


def setting_differences(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ between two configs, by dotted names, each with both values.

    Only what both configs have is compared: common settings, common data sets, common methods. A value is :data:`NOT_SET` if
    one config lacks the setting.
    """
    found = {}
    one, other = comparable_settings(a), comparable_settings(b)
    for key in sorted(set(one) & set(other)):
        left, right = (flatten({key: values[key]}) for values in (one, other))
        for name in sorted(set(left) | set(right)):
            pair = left.get(name, NOT_SET), right.get(name, NOT_SET)
            if pair[0] != pair[1]:
                found[name] = pair
    return found


def _settings(a: ResultSet, b: ResultSet) -> Iterator[Difference]:
    def say(value: Any) -> str:
        return value if value == NOT_SET else json.dumps(value)

    for key, (left, right) in setting_differences(a.description["config"], b.description["config"]).items():
        yield Difference("device" if key == "device" else "", f"{key}: {say(left)} in {a.name}, {say(right)} in {b.name}")


def _data(a: ResultSet, b: ResultSet) -> Iterator[Difference]:
    for dataset in sorted(set(a.description["data"]) & set(b.description["data"])):
        left, right = a.description["data"][dataset], b.description["data"][dataset]
        for split in sorted(set(left) | set(right)):
            if left.get(split) != right.get(split):
                text = f"data of {dataset}, {split}: {left.get(split)} in {a.name}, {right.get(split)} in {b.name}"
                yield Difference("", text)


def _code(a: ResultSet, b: ResultSet) -> Iterator[Difference]:
    left, right = codes(a.config, a.origins), codes(b.config, b.origins)
    for stage in sorted(set(left) & set(right)):
        if left[stage] != right[stage]:
            text = f"code of {stage}: {', '.join(left[stage])} in {a.name}, {', '.join(right[stage])} in {b.name}"
            yield Difference("code", text)


def _extractors(a: ResultSet, b: ResultSet) -> Iterator[Difference]:
    left, right = _extractors_by_dataset(a), _extractors_by_dataset(b)
    for dataset in sorted(set(left) & set(right)):
        if left[dataset] != right[dataset]:
            one, other = (", ".join(sorted(extractors[dataset])) for extractors in (left, right))
            yield Difference("extractor", f"features on {dataset}: {one} in {a.name}, {other} in {b.name}")


def _extractors_by_dataset(found: ResultSet) -> dict[str, set[str]]:
    extractors: dict[str, set[str]] = {}
    for row in found.origins:
        if row["features"]:
            extractors.setdefault(row["dataset"], set()).add(row["features"])
    return extractors
