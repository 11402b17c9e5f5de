"""Reading a config: files laid over each other, checked as a whole, one line for each error."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from fmbench.config.config import Config
from fmbench.config.yamlfile import read
from fmbench.errors import ConfigError


def parse(values: Mapping[str, Any]) -> Config:
    """Check a config read from YAML.

    Raises:
        ConfigError: one line for each thing wrong, with where it stands.
    """
    try:
        return Config.model_validate(dict(values))
    except RecursionError:  # as Snakemake hands it over
        raise ConfigError("the config holds itself: an alias (*) stands inside of what its anchor (&) names") from None
    except ValidationError as error:
        raise ConfigError("the config has errors:\n" + "\n".join(_explain(e) for e in error.errors())) from None


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
"""Keys of older configs, with the section that they stood in, and what they are called now."""


def _explain(error: Any) -> str:
    # Positions of unions carry the names of the models tried; they mean nothing to the reader.
    where = ".".join(str(p) for p in error["loc"] if not (isinstance(p, str) and ("Settings" in p or "[" in p)))
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        renamed = RENAMED.get(".".join(where.split(".")[-2:]))
        message = f"this key is called {renamed} now" if renamed else "unknown key"
    elif error["type"] == "missing":
        message = "this key is missing"
    return f"  {where or 'config'}: {message}"


def load(*files: str) -> Config:
    """Read YAML files, later ones laid over earlier ones (mappings merge, everything else is replaced)."""
    merged: dict[str, Any] = {}
    for file in files:
        try:
            _lay_over(merged, read(file))
        except RecursionError:
            raise ConfigError(f"{file} holds itself: an alias (*) stands inside of what its anchor (&) names") from None
    return parse(merged)


def _lay_over(base: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _lay_over(base[key], value)
        else:
            base[key] = _apart(value)


def _apart(value: Any) -> Any:
    """A copy in which what a file has under two names, by an alias, is two things: a later file may change one of them."""
    if isinstance(value, dict):
        return {key: _apart(inner) for key, inner in value.items()}
    return [_apart(inner) for inner in value] if isinstance(value, list) else value
