"""Config files in YAML, with errors where YAML would silently take the last of two equal keys or an old notation of a number."""

import json
import re
from typing import Any

import yaml

from fmbench.errors import ConfigError


class _Refused(yaml.YAMLError):
    """Valid YAML that does not mean what its author thinks."""


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in lines:
                    raise _Refused(
                        f"the key {key.value!r} is there twice, in line {lines[key.value]} and in line {line}, and YAML would "
                        "ignore the first; keep one of them, or join them"
                    )
                lines[key.value] = line
        return node


def _number(loader: _Loader, node: yaml.ScalarNode) -> Any:
    value = (loader.construct_yaml_int if node.tag.endswith(":int") else loader.construct_yaml_float)(node)
    if ":" in node.value or (isinstance(value, int) and re.match(r"[+-]?0[0-9_]", node.value)):
        raise _Refused(
            f"{node.value} in line {node.start_mark.line + 1} is the number {value} to YAML, which reads a colon as base "
            f"60 and a leading 0 as base 8; write {value} if it is a number, and '{node.value}' in quotes if it is text"
        )
    return value


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _number)


def _parsed(text: str) -> Any:
    """The value of a text that is JSON or YAML, as Snakemake reads it. Not all of JSON is YAML: it may have tabs."""
    try:
        return json.loads(text, object_pairs_hook=_each_once)
    except ValueError:
        return yaml.load(text, _Loader)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key is there twice")  # the YAML reader, which comes next, says where
    return values


def read(file: str) -> dict[str, Any]:
    """The mapping that a YAML file holds; an empty file holds an empty one.

    Raises:
        ConfigError: the file is missing, a folder or not valid YAML; or it does not hold a mapping, has a key twice, or a number
            that YAML reads as another one.
    """
    try:
        with open(file, encoding="utf-8") as stream:
            values = _parsed(stream.read())
    except FileNotFoundError:
        raise ConfigError(f"there is no config file {file}") from None
    except IsADirectoryError:
        raise ConfigError(f"{file} is a folder, not a config file; name a file in it") from None
    except _Refused as error:
        raise ConfigError(f"{file}: {error}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date, or bytes that are not UTF-8
        raise ConfigError(f"{file} is not valid YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{file} must hold a mapping, not a {type(values).__name__}")
    return values
