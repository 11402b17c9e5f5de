"""The page that lists every key of a config, ``config/README.md``, made from the JSON schema."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

HEAD = """# Configuration

<!-- `make schema` writes this page from the models in fmbench/config. -->

A config is one YAML file, `config.yaml`. It has the default benchmark, with comments. `config/config.yaml` is the same file, in
the place where tools for Snakemake workflows look for it. A preset in `configs/` is merged into it:
`snakemake --cores all --configfile configs/smoke.yaml`. `fmbench validate` checks a config before anything runs. It names every
unknown key and every wrong value.

A key that is **required** has no default. An exponent needs a dot and a sign: 1.0e-3, not 1e-3. The pages
[methods](../docs/methods.md), [metrics](../docs/metrics.md), [data](../docs/data.md) and
[extending](../docs/extending.md) say what the names mean.
"""

MEANINGS = {
    "adam_epsilon": "epsilon of Adam",
    "atol": "absolute tolerance of the adaptive solver",
    "attention_resolutions": "heights of the feature maps that have attention",
    "batch": "samples at a time, which limits the memory",
    "batch_size": "training samples in one step",
    "betas": "betas of Adam",
    "channels": "channels of the first level",
    "channels_multiple": "factor of the channels at each level; the number of levels is the number of factors",
    "checkpoint_every": "iterations between two checkpoints",
    "data": "name of a source, or a source with parameters",
    "datasets": "the data sets to run, each a name of settings",
    "depth": "hidden layers of the MLP; blocks of each level of the U-Net",
    "draws": "numbers K of dequantisation draws",
    "dropout": "probability of dropout",
    "ema_decay": "decay of the averaged weights",
    "enabled": "whether anything goes to MLflow",
    "evaluation": "settings of the stages that work on a trained model",
    "grid": "the time grid",
    "head_channels": "channels of one attention head",
    "iterations": "steps of the optimiser",
    "kind": "which network: mlp, unet, transformer, or the dotted name of a plug-in",
    "learning_rate": "the largest learning rate of the schedule",
    "log_every": "iterations between two points of the loss curve",
    "max_frequency": "top frequency of the time embedding, in radians per unit of t",
    "max_nfe": "the most evaluations of one solve; a sample that needs more counts as failed",
    "n": "number of samples",
    "name": "a known name; for a method also a new one; for most parts also the dotted name of a plug-in",
    "network": "the network, the same for every method",
    "nfe": "numbers of function evaluations",
    "oracle": "makes the method an oracle, which has no network: the closed-form field of the training set",
    "parameters": "parameters by name",
    "path": "the probability path",
    "precision": "as in the training settings of the data set",
    "accumulation": "as in the training settings of the data set",
    "prediction": "what the network predicts",
    "probe": "distribution of Hutchinson's probes",
    "probes": "Hutchinson probes averaged for each sample",
    "reference_nfe": "evaluations of the fine reference",
    "resample_blocks": "residual blocks that change the resolution, as in ADM; otherwise plain resampling",
    "rtol": "relative tolerance of the adaptive solver",
    "schedule": "schedule of the learning rate",
    "seeds": "each seed trains every method again, with its own weights, batches and samples",
    "settings": "what belongs to a data set, by its name",
    "source": "name of the source of the data",
    "extractor": "name of the extractor",
    "subsets": "number of subsets",
    "t_max": "training times end here; null for the usual end",
    "t_min": "training times start here; null for the usual start",
    "time": "the distribution of training times",
    "time_dimension": "numbers in the sinusoidal embedding of t",
    "time_embedding": "t as one number, or as sines and cosines",
    "training": "optimiser, schedule and length of the training",
    "warmup_iterations": "iterations of the linear warm-up",
    "weighting": "the weight of the loss over time",
    "width": "units of each hidden layer of the MLP; channels of the classifier's first layer",
}
"""The meaning of keys whose model has no description of its own."""


def key_page(schema: Mapping[str, Any]) -> str:
    """Return the page in Markdown: a table for each group of keys, in the order in which a config holds them.

    Args:
        schema: the JSON schema of the config.
    """
    groups = schema["$defs"]
    parts = [
        HEAD,
        _section("The whole config", schema, groups),
        *(_section(_title(name), groups[name], groups) for name in _order(schema)),
    ]
    return "\n".join(parts)


def _order(schema: Mapping[str, Any]) -> list[str]:
    """The names of the groups below the config, each after the first group that holds it."""
    found: list[str] = []
    waiting = list(_references(schema["properties"]))
    while waiting:
        name = waiting.pop(0)
        if name not in found:
            found.append(name)
            waiting = [*_references(schema["$defs"][name]), *waiting]
    return found


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if "$ref" in value:
            yield value["$ref"].rpartition("/")[2]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _section(name: str, group: Mapping[str, Any], groups: Mapping[str, Any]) -> str:
    lines = [f"## {name}", ""]
    if "description" in group:
        lines += [_plain(group["description"]), ""]
    lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
    required = group.get("required", [])
    for key, found in group.get("properties", {}).items():
        default = "**required**" if key in required else _default(found)
        lines.append(f"| `{key}` | {_kind(found)} | {default} | {_meaning(key, found, groups)} |")
    if group.get("additionalProperties") is True:
        lines.append("| any other | parameters by name | | |")
    return "\n".join([*lines, ""])


def _default(found: Mapping[str, Any]) -> str:
    if "default" not in found:
        return ""
    value = found["default"]
    if "$ref" in found or (isinstance(value, (list, dict)) and len(json.dumps(value)) > 60):
        return "those of the group" if "$ref" in found else f"{len(value)} entries"
    return f"`{json.dumps(value)}`"


def _kind(found: Mapping[str, Any]) -> str:
    """What a value may be, in words."""
    if "$ref" in found:
        name = _title(found["$ref"].rpartition("/")[2])
        return f"[{name}](#{name.lower()})"
    if "anyOf" in found:
        return " or ".join(_kind(one) for one in found["anyOf"])
    if "const" in found:
        return f"`{found['const']}`"
    if "enum" in found:
        return " or ".join(f"`{one}`" for one in found["enum"])
    kind = found.get("type")
    if kind == "array":
        return f"list of {_kind(found.get('items', {}))}"
    if kind == "object":
        inner = list(found.get("patternProperties", {}).values())
        return f"by name: {_kind(inner[0])}" if inner else "parameters by name"
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true` or `false`", "null": "`null`"}
    return words.get(str(kind), "any") + _range(found)


def _range(found: Mapping[str, Any]) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    limits = [f"{word} {found[key]:g}" for key, word in words.items() if key in found and abs(found[key]) < 1e6]
    return f", {', '.join(limits)}" if limits else ""


def _title(name: str) -> str:
    return name.removesuffix("Settings")


def _meaning(key: str, found: Mapping[str, Any], groups: Mapping[str, Any]) -> str:
    """The description of a key, or of the group that it holds, or :data:`MEANINGS`."""
    group = groups[found["$ref"].rpartition("/")[2]] if "$ref" in found else {}
    text = found.get("description") or group.get("description") or MEANINGS[key]
    return _plain(text).replace("|", "\\|").replace("<", "&lt;")


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")
