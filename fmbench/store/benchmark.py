"""What a results folder says of itself: ``benchmark.json``, from which somebody else can render, compare and merge it.

It holds the whole config with its defaults (less where results and MLflow stand), the config's hash, the code, commits,
versions and devices of the rows, and the hashes of the prepared data. Nothing in it depends on time or place.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fmbench.config import specs
from fmbench.config.config import Config
from fmbench.config.hashing import settings_hash
from fmbench.config.names import FIGURES
from fmbench.config.plugins import is_dotted
from fmbench.config.reading import parse
from fmbench.errors import ConfigError, DataError
from fmbench.store.files import read_json
from fmbench.store.records import made_of

FILE = "benchmark.json"
DRAWS = "dequantisation.parquet"
"""The rows of Table 4."""
FORMAT = 1
KEYS = {"format", "config", "hash", "code", "commits", "versions", "devices", "threads", "rows", "data", "merged", "notes"}
LATER = {"gathered"}
"""Keys that came later: older descriptions do not have them."""


def describe(
    config: dict[str, Any],
    rows: list[dict[str, Any]],
    manifests: dict[str, dict[str, Any]],
    merged: Iterable[str] = (),
    notes: Iterable[str] = (),
    gathered: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The content of ``benchmark.json``.

    Args:
        config: as :func:`fmbench.config.specs.describe` gives it.
        rows: all records.
        manifests: of each data set's preparation.
        merged: hashes of the sets this one was merged from; ``notes``: what was allowed to differ between them.
        gathered: what the files that other jobs gather are of, where they are this config's (:func:`stale_files`).
    """
    later = {} if gathered is None else {"gathered": dict(gathered)}
    return later | {
        "format": FORMAT,
        "config": config,
        "hash": settings_hash(config),
        "code": codes(parse(_without_nulls(config)), rows),
        "commits": sorted({row["commit"] for row in rows}),
        "versions": [json.loads(text) for text in sorted({row["versions"] for row in rows}) if text],
        "devices": sorted({row["device"] for row in rows}),
        "threads": sorted({row["threads"] for row in rows if row["threads"] is not None}),
        "rows": len(rows),
        "data": {name: splits(manifest) for name, manifest in sorted(manifests.items())},
        "merged": list(merged),
        "notes": list(notes),
    }


def splits(manifest: dict[str, Any]) -> dict[str, str]:
    """The hashes of a data set's splits and of their labels."""
    found: dict[str, str] = {}
    for split, entry in sorted(manifest["splits"].items()):
        found |= {f"{split}.{key}": value for key, value in sorted(entry.items()) if key.endswith("sha256")}
    return found


def codes(config: Config, rows: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """Code hashes by what must have the same: a stage, apart for oracles, and for methods or networks of one's own."""
    found: dict[str, set[str]] = {}
    groups: dict[tuple[str, str, str], str] = {}
    known = {m.name for m in config.methods}
    for row in rows:
        owner = (row["stage"], row["dataset"], row["method"])
        if owner not in groups:
            name = row["stage"]
            if row["method"] in known and row["dataset"] in config.datasets:
                spec = specs.train(config, row["dataset"], row["method"], 0)
                if name == "train":
                    name = specs.code_stage(spec)
                own = specs.plugins(specs.code_specs(row["stage"], config, row["dataset"], row["method"], 0))
                name = " ".join([name, *sorted(set(own))])
            groups[owner] = name
        found.setdefault(groups[owner], set()).add(row["code_hash"])
    return {name: sorted(hashes) for name, hashes in sorted(found.items())}


def read_benchmark(results: Path) -> dict[str, Any]:
    """Read and check a results folder's ``benchmark.json``.

    Raises:
        DataError: it is missing, damaged, or of another version.
    """
    path = results / FILE
    if not path.exists():
        raise DataError(
            f"{path} is missing, so nothing says which config these results belong to; it is written with the records: run "
            "snakemake once more in the place they were made (nothing is trained again)"
        )
    found = read_json(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT or set(found) - LATER != KEYS:
        version = found.get("format") if isinstance(found, dict) else None
        raise DataError(f"{path} is not a description of this version of fmbench (format {version!r}, here {FORMAT})")
    if not isinstance(found["config"], dict):
        raise DataError(f"{path} has a config that is none; get the results again")
    if settings_hash(found["config"]) != found["hash"]:
        raise DataError(f"{path} was changed by hand: its config has hash {settings_hash(found['config'])}, not {found['hash']}")
    return found


def stale_files(results: Path) -> tuple[str, ...]:
    """Files of the folder that another config left there, by their names: rows that say they are of other settings, what was
    made from them, and Table 4 where this config has nothing to dequantise.

    Rows may be another config's after the main job alone has run anew, which makes the records and not, say, the rows along
    training. What does not say what it belongs to is taken as it is.
    """
    try:
        spec, gathered = specs.table4(config_of(results)), read_benchmark(results).get("gathered", {})
    except DataError:
        return ()
    without_draws = not (spec["datasets"] and spec["methods"])
    rows = [
        name
        for name, of in gathered.items()
        if made_of(results / name) not in (of, None) and not (name == DRAWS and without_draws)
    ]
    tables = ["claims"] if rows else []  # which were tested on them, but not on draws that the config does not have
    rows += [DRAWS] if without_draws else []
    tables += ["table4"] if DRAWS in rows else []
    figures = [name for name, needed in FIGURES.items() if set(needed) & set(rows)]
    return (
        *rows,
        *(f"{name}.{kind}" for name in tables for kind in ("csv", "md", "tex")),
        *(f"{name}.{kind}" for name in figures for kind in ("png", "svg", "pdf", "parquet")),
    )


def config_of(results: Path) -> Config:
    """The config that a results folder was made with; paths of results and MLflow are the defaults."""
    return parse_config(read_benchmark(results)["config"], results / FILE)


def _without_nulls(values: dict[str, Any]) -> dict[str, Any]:
    """The config without the nulls that older versions wrote for every setting a method does not override.

    What is written now has no null there but for ``clip_norm``, which says that there is no clipping.
    """

    def meant(method: Any) -> Any:
        training = method.get("training") if isinstance(method, dict) else None
        if not isinstance(training, dict) or all(v is not None for k, v in training.items() if k != "clip_norm"):
            return method
        return method | {"training": {k: v for k, v in training.items() if v is not None}}

    methods = values.get("methods")
    return values | {"methods": [meant(m) for m in methods]} if isinstance(methods, list) else values


def parse_config(values: dict[str, Any], where: Path) -> Config:
    """The config of a description. Nothing that it names is imported, here or by what works from it.

    Methods are written out where a description is made, so none has to be looked up in somebody's module, and one that would be
    is refused: the module could be anybody's who sent the results. All other dotted names are compared, never resolved.

    Raises:
        DataError: this version of fmbench does not know some of its settings, or a method is not written out.
    """
    try:
        config = parse(_without_nulls(values))
    except ConfigError as error:
        raise DataError(f"{where} has a config that this version of fmbench does not take; {error}") from None
    for method in config.methods:
        if method.use is not None and is_dotted(method.use):
            raise DataError(
                f"{where} was not written by `fmbench collect`: the method {method.name} is not written out but refers to "
                f"{method.use!r}, which is not imported. Get the results again, or run snakemake where they were made"
            )
    return config
