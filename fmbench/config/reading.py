"""Reads a config: merges the files, checks the whole, and reports every error in a separate line."""

import difflib
import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import ValidationError

from fmbench.config.base import Settings
from fmbench.config.config import Config
from fmbench.config.limits import check_size
from fmbench.config.messages import in_words, shortened
from fmbench.config.yamlfile import read
from fmbench.errors import ConfigError


def load(*files: str) -> Config:
    """The config of YAML files. Mappings of later files are merged into earlier ones; every other value replaces the earlier one.

    Raises:
        ConfigError: a file cannot be read, or :func:`parse` finds an error.
    """
    merged: dict[str, Any] = {}
    for file in files:
        _merge(merged, read(file))
    return parse(merged)


def _merge(base: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = _copy(value)


def _copy(value: Any) -> Any:
    """A copy that shares nothing, so that a later file can change one use of an alias without changing the others."""
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


def parse(values: Mapping[str, Any]) -> Config:
    """The config of values read from YAML.

    Raises:
        ConfigError: one line for each error, with its place.
    """
    plain = dict(values)
    try:
        check_size(plain)  # Snakemake reads YAML in its own way
    except ValueError as error:
        raise ConfigError(f"the config {error}") from None
    try:
        return Config.model_validate(plain)
    except ValidationError as error:
        # Where null is not allowed, pydantic says of every wrong value that it is not null either.
        lines = list(dict.fromkeys(_error_line(e) for e in error.errors() if e["type"] != "none_required"))
        more = [f"  and {len(lines) - MOST_LINES} more errors"] if len(lines) > MOST_LINES else []
        raise ConfigError("\n".join(["the config has errors:", *lines[:MOST_LINES], *more])) from None


MOST_LINES = 50
"""The most errors of one config that are shown."""
RENAMED = {
    "evaluation.along": "learning_curve",
    "evaluation.budget": "few_step",
    "evaluation.draws": "dequantisation",
    "evaluation.states": "trajectory",
    "features.also": "more_extractors",
    "features.infinity": "infinity_sizes",
    "features.most": "max_samples",
    "features.nearest": "neighbours",
}
"""Keys of older configs, as ``section.key``, and the new name of each key."""


_TYPES = re.compile(r"(MLP|UNet|PluginNetwork)Settings|(function-before|literal)\[.*\]|\[key\]")
"""How pydantic marks, in the place of an error, the type of a union that it tried, and an error of a key."""


def _error_line(error: Any) -> str:
    """The place and the text of one error. Old and unknown keys get their text here, other errors where they arise."""
    *way, last = error["loc"] or ("config",)
    parts = list(map(str, way if way and _TYPES.fullmatch(str(last)) else [*way, last]))
    parts = [part for k, part in enumerate(parts) if not (_TYPES.fullmatch(part) and parts[k - 1] == "network")]
    text = in_words(error)
    if error["type"] == "extra_forbidden":
        renamed = RENAMED.get(".".join(parts[-2:]))
        text = f"this key is called {renamed} now" if renamed else f"{text}{_meant(parts)}"
    return f"  {shortened('.'.join(parts))}: {text}"


def _meant(parts: list[str]) -> str:
    """A question after an unknown key, if a known key of the same section is spelled almost like it."""
    models: set[type[Settings]] = {Config}
    for part in parts[:-1]:  # names of data sets and places in lists lead to no other model
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        models = {inner for field in fields for inner in _models_in(field.annotation)} or models
    close = difflib.get_close_matches(parts[-1], sorted({key for model in models for key in model.model_fields}), 1, 0.7)
    return f"; did you mean {close[0]}?" if close else ""


def _models_in(annotation: Any) -> set[type[Settings]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return {annotation}
    return {model for inner in get_args(annotation) for model in _models_in(inner)}
