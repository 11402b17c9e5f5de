"""Table 3: the settings that every trained method used, beside the paper's; from ``settings.parquet`` alone."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fmbench.config.methods import MORE_PARTS, PARTS
from fmbench.report.layout import NONE, comment, heading, latex_table, markdown_table, notes, paper, tex, write_all
from fmbench.report.style import label
from fmbench.store.documents import parse_json
from fmbench.store.limits import RECORDS
from fmbench.store.parquet import read_table
from fmbench.store.tables import SETTINGS

Used = dict[str, Any]
"""The settings of one training, by key."""
COLUMNS = ["dataset", "setting", "ours", "paper", "by_method"]


def _batch(used: Used) -> Any:
    """Samples in one optimiser step, over all pieces of the batch and all processes."""
    return used.get("training.batch_size")


def _epochs(used: Used) -> Any:
    n = used.get("data.train")
    return _batch(used) * used["training.iterations"] / n if n and _batch(used) else None


def _gpus(used: Used) -> Any:
    device = used.get("device")
    return None if device is None else used.get("processes", 1) if str(device).startswith("cuda") else 0


PAPERS: dict[str, str | Callable[[Used], Any]] = {
    "channels": "network.channels",
    "depth": "network.depth",
    "channels_multiple": "network.channels_multiple",
    "heads": "network.heads",
    "heads_channels": "network.head_channels",
    "attention_resolution": "network.attention_resolutions",
    "dropout": "network.dropout",
    "effective_batch_size": _batch,
    "gpus": _gpus,
    "epochs": _epochs,
    "iterations": "training.iterations",
    "learning_rate": "training.learning_rate",
    "learning_rate_scheduler": "training.schedule",
    "warmup_steps": "training.warmup_iterations",
    "precision": "training.precision",
}
"""The rows of the paper's table, each with the key or the function that gives our value. Other settings follow by key."""
_SHOWN_ABOVE = {key for key in PAPERS.values() if isinstance(key, str)} | {"training.batch_size"}
_NO_SETTINGS = ("dataset", "data", "seed", "stage", "spec_hash", "code_hash", "reason", "step")


def table3(settings: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each data set and setting: what its trained methods used, and the paper's for the same data set.

    Where methods differ, ``ours`` lists each value with its methods, and ``by_method`` holds them as JSON. Oracles have no
    training, so they have no settings here.
    """
    printed = paper("table3").set_index("setting")
    rows = []
    for dataset in settings.dataset.unique():
        used = _used(settings[settings.dataset == dataset])
        if not used:
            continue
        others = sorted({key for seeds in used.values() for values in seeds for key in values} - _SHOWN_ABOVE)
        others = [k for k in others if k not in _NO_SETTINGS and not k.startswith("method.")]
        entries: dict[str, dict[str, list[Any]]] = {}
        for name, key in PAPERS.items():
            entries[name] = {m: [key(v) if callable(key) else v.get(key) for v in seeds] for m, seeds in used.items()}
        for key in others:
            entries[key] = {m: [values.get(key) for values in seeds] for m, seeds in used.items()}
        for part in (*PARTS, *MORE_PARTS):
            found = {m: [_part(values, part) for values in seeds] for m, seeds in used.items()}
            if part in PARTS or any(value != MORE_PARTS[part] for values in found.values() for value in values):
                entries[part] = found
        for name, by_method in entries.items():
            values = {m: " or ".join(dict.fromkeys(map(show, found))) for m, found in by_method.items()}
            theirs = printed[dataset].to_dict().get(name) if dataset in printed.columns else None
            rows.append(
                {
                    "dataset": dataset,
                    "setting": name,
                    "ours": _together(values, str),
                    "paper": NONE if theirs is None or pd.isna(theirs) else str(theirs),
                    "by_method": json.dumps(values) if len(set(values.values())) > 1 else "",
                }
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def _used(settings: pd.DataFrame) -> dict[str, list[Used]]:
    """The settings of each trained method, one entry per seed; seeds differ only in merged results of several machines."""
    found: dict[str, dict[int, Used]] = {}
    for method, seed, key, value in zip(settings.method, settings.seed, settings.key, settings.value, strict=True):
        found.setdefault(method, {}).setdefault(seed, {})[key] = parse_json(value, f"the setting {key} of {method}")
    trained = {m: [values for values in seeds.values() if "training.iterations" in values] for m, seeds in found.items()}
    return {method: seeds for method, seeds in trained.items() if seeds}


def _part(used: Used, part: str) -> str:
    """The name of one part of a method, such as its path, with its parameters."""
    start = f"method.{part}.parameters."
    parameters = ", ".join(f"{k.removeprefix(start)} {show(v)}" for k, v in used.items() if k.startswith(start))
    return str(used.get(f"method.{part}.name", MORE_PARTS.get(part, NONE))) + (f" ({parameters})" if parameters else "")


def show(value: Any) -> str:
    """Return a value in print; lists have no brackets, as in the paper."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ",".join(map(show, value)) or "none"
    return str(value)


def _together(by_method: Mapping[str, str], name: Callable[[str], str]) -> str:
    """The one value, or each value with the methods that have it."""
    distinct = list(dict.fromkeys(by_method.values()))
    if len(distinct) == 1:
        return distinct[0]
    return "; ".join(f"{v}: {', '.join(name(m) for m in by_method if by_method[m] == v)}" for v in distinct)


def _cells(part: pd.DataFrame) -> list[list[str]]:
    """The cells of each row: setting, our value with the methods' names in print, the paper's value."""
    rows = []
    for setting, ours, by_method, theirs in zip(part.setting, part.ours, part.by_method, part.paper, strict=True):
        name = setting if "." in setting else setting.replace("_", " ")
        rows.append([name, _together(json.loads(by_method), label) if by_method else ours, theirs])
    return rows


def markdown(table: pd.DataFrame) -> str:
    """Return a section for each data set: the paper's rows first, then every other setting that was used."""
    lines = ["# Table 3: settings", ""]
    if table.empty:
        lines += ["No method was trained.", ""]
    for dataset in table.dataset.unique():
        part = table[table.dataset == dataset]
        lines += [heading(2, dataset), "", *markdown_table(["Setting", "Used", "Paper"], _cells(part))]
        said = [
            "Used: the configuration stored with each trained model. Where seeds differ, every value is listed.",
            f"`{NONE}` under Used: this network has no such setting, or the models do not record it.",
            f"`{NONE}` under Paper: the paper does not print it.",
        ]
        if (part.paper == NONE).all():
            said[-1] = f"The paper has no data set named {dataset}."
        lines += notes(said)
    return "\n".join(lines)


def latex(table: pd.DataFrame) -> str:
    """Return a booktabs table for each data set, with a rule below the paper's rows."""
    lines = []
    for dataset in table.dataset.unique():
        rows: list[list[str] | None] = [[tex(cell) for cell in row] for row in _cells(table[table.dataset == dataset])]
        rows.insert(len(PAPERS), None)
        lines += [comment(dataset), *latex_table("lll", [r"Setting & Used & Paper \\"], rows)]
    return "\n".join(lines)


def write_table3(settings: Path, out: Path) -> pd.DataFrame:
    """Write ``out`` (CSV) and beside it ``.md`` and ``.tex``; return the table."""
    table = table3(read_table(settings, SETTINGS, RECORDS).to_pandas())
    write_all(out, table, markdown(table), latex(table))
    return table
