"""Reads a config: merges the files, checks the whole, and reports every error in a separate line."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from fmbench.config.config import Config
from fmbench.config.yamlfile import read
from fmbench.errors import ConfigError


def load(*files: str) -> Config:
    """The config of YAML files. Mappings of later files are merged into earlier ones; every other value replaces the earlier one.

    Raises:
        ConfigError: a file cannot be read, or :func:`parse` finds an error.
    """
    merged: dict[str, Any] = {}
    for file in files:
        try:
            _merge(merged, read(file))
        except RecursionError:
            raise ConfigError(f"{file} contains itself: an alias (*) is inside the value that its anchor (&) names") from None
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
    try:
        return Config.model_validate(dict(values))
    except RecursionError:  # Snakemake passes such values on
        raise ConfigError("the config contains itself: an alias (*) is inside the value that its anchor (&) names") from None
    except ValidationError as error:
        raise ConfigError("the config has errors:\n" + "\n".join(_error_line(e) for e in error.errors())) from None


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


def _error_line(error: Any) -> str:
    """The place and the text of one error. Unknown, old and missing keys get their text here, other errors where they arise."""
    # The place of an error within a union contains the names of the classes tried, which mean nothing to the reader.
    where = ".".join(str(p) for p in error["loc"] if not (isinstance(p, str) and ("Settings" in p or "[" in p)))
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        renamed = RENAMED.get(".".join(where.split(".")[-2:]))
        message = f"this key is called {renamed} now" if renamed else "unknown key"
    elif error["type"] == "missing":
        message = "this key is missing"
    return f"  {where or 'config'}: {message}"
