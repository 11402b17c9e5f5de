"""``benchmark.json``: the description of a results folder, from which another person can render, compare and merge it.

It holds the whole config with its defaults (without the places of the results and of MLflow), the config's hash, the code,
commits, versions and devices of the rows, and the hashes of the prepared data. Its content does not depend on when or where it
was written.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fmbench.config import execution, specs
from fmbench.config.config import Config
from fmbench.config.hashing import settings_hash
from fmbench.config.plugins import is_dotted, plugins_in
from fmbench.config.reading import parse
from fmbench.errors import ConfigError, DataError
from fmbench.store.documents import read_document
from fmbench.store.shapes import Benchmark

FILE = "benchmark.json"
FORMAT = 1
KEYS = {"format", "config", "hash", "code", "commits", "versions", "devices", "threads", "rows", "data"}
KEYS |= {"gathered", "merged", "notes"}


def describe(
    config: dict[str, Any],
    rows: list[dict[str, Any]],
    manifests: dict[str, dict[str, Any]],
    merged: Iterable[str] = (),
    notes: Iterable[str] = (),
    gathered: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """The content of ``benchmark.json``.

    Args:
        config: the config as :func:`fmbench.config.written_out.written_out` gives it.
        rows: all records.
        manifests: the manifest of each prepared data set.
        merged: the hashes of the sets that this one was merged from.
        notes: the differences that a merge was allowed to let pass, and the models that no set has.
        gathered: for each file that another job gathers, the source hash it has if this config made it
            (:func:`fmbench.store.stale.stale_files`).
    """
    return {
        "format": FORMAT,
        "config": config,
        "hash": settings_hash(config),
        "code": codes(parse(config), rows),
        "commits": sorted({row["commit"] for row in rows}),
        "versions": [json.loads(text) for text in sorted({row["versions"] for row in rows}) if text],
        "devices": sorted({row["device"] for row in rows}),
        "threads": sorted({row["threads"] for row in rows if row["threads"] is not None}),
        "rows": len(rows),
        "data": {name: split_hashes(manifest) for name, manifest in sorted(manifests.items())},
        "gathered": dict(gathered),
        "merged": list(merged),
        "notes": list(notes),
    }


def split_hashes(manifest: dict[str, Any]) -> dict[str, str]:
    """The hashes of a data set's splits and of their labels, such as ``{"train.sha256": ...}``."""
    found: dict[str, str] = {}
    for split, entry in sorted(manifest["splits"].items()):
        found |= {f"{split}.{key}": value for key, value in sorted(entry.items()) if key.endswith("sha256")}
    return found


def codes(config: Config, rows: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """The code hashes of the rows, by the code that runs.

    A key is a stage, such as ``sweep``; the trainings of oracles have a key of their own. Plug-ins in the path, method or network
    add their dotted names, such as ``sweep mymodule:Path``. All rows under one key should have the same hash.
    """
    found: dict[str, set[str]] = {}
    names: dict[tuple[str, str, str], str] = {}
    for row in rows:
        owner = (row["stage"], row["dataset"], row["method"])
        if owner not in names:
            names[owner] = _code_name(config, *owner)
        found.setdefault(names[owner], set()).add(row["code_hash"])
    return {name: sorted(hashes) for name, hashes in sorted(found.items())}


def _code_name(config: Config, stage: str, dataset: str, method: str) -> str:
    """The stage whose code runs, and the plug-ins it uses."""
    if dataset not in config.datasets or method not in {m.name for m in config.methods}:
        return stage
    name = execution.code_stage(specs.train(config, dataset, method, 0)) if stage == "train" else stage
    plugins = plugins_in(execution.code_specs(stage, config, dataset, method, 0))
    return " ".join([name, *sorted(set(plugins))])


def read_benchmark(results: Path) -> dict[str, Any]:
    """Read and check a results folder's ``benchmark.json``.

    Raises:
        DataError: the file is missing or damaged, or another version of fmbench wrote it.
    """
    path = results / FILE
    missing = (
        ", so nothing says which config these results belong to. It is written together with the records: "
        "run snakemake once more where the results were made (nothing is trained again)"
    )
    found = read_document(path, Benchmark, "run snakemake where the results were made, or get them again", missing)
    if found["format"] != FORMAT or set(found) != KEYS:
        raise DataError(f"{path} is not a description of this version of fmbench (format {found['format']}, here {FORMAT})")
    if settings_hash(found["config"]) != found["hash"]:
        raise DataError(f"{path} was changed by hand: its config has hash {settings_hash(found['config'])}, not {found['hash']}")
    return found


def config_of(results: Path) -> Config:
    """The config that a results folder was made with; the places of the results and of MLflow are the defaults."""
    return parse_config(read_benchmark(results)["config"], results / FILE)


def parse_config(values: dict[str, Any], where: Path) -> Config:
    """The config in a description. fmbench never imports what a description names.

    A description has every method written out, so no method has to be looked up in a module. fmbench refuses a
    method that it would have to look up, because the sender of the results would choose the module. All other dotted names are
    compared and never resolved.

    Args:
        where: the file of the description, for messages.

    Raises:
        DataError: this version of fmbench does not know some of the settings, or a method is not written out.
    """
    try:
        config = parse(values)
    except ConfigError as error:
        raise DataError(f"{where} has a config that this version of fmbench does not take; {error}") from None
    for method in config.methods:
        if method.use is not None and is_dotted(method.use):
            raise DataError(
                f"{where} was not written by `fmbench collect`: the method {method.name} is not written out but refers to "
                f"{method.use!r}, which is not imported. Get the results again, or run snakemake where they were made"
            )
    return config
