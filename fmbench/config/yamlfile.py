"""Config files in YAML, with errors where YAML would silently take the last of two equal keys or an old notation of a number."""

import json
import os
import re
import stat
from collections.abc import Sequence
from typing import Any

import yaml

from fmbench.config.limits import DEEPEST, MOST_BYTES, check_size
from fmbench.config.messages import described, shortened
from fmbench.errors import ConfigError


class _Refused(yaml.YAMLError):
    """Valid YAML that does not mean what its author thinks."""


class _Loader(yaml.SafeLoader):
    def get_single_node(self) -> Any:
        """The file's tree, whose size is checked before merge keys (<<) and aliases are written out."""
        node = super().get_single_node()
        if node is not None:
            try:
                check_size(node, _parts, _text)
            except ValueError as error:
                raise _Refused(str(error)) from None
        return node

    def fetch_flow_collection_start(self, token: Any) -> None:
        self._check_depth(self.flow_level)
        super().fetch_flow_collection_start(token)

    def add_indent(self, column: int) -> bool:
        self._check_depth(len(self.indents))
        return super().add_indent(column)

    def _check_depth(self, levels: int) -> None:
        """Stop at a bracket or an indent that is too deep: the time of the scanner grows with the square of the depth."""
        if levels > 2 * DEEPEST:
            raise _Refused(f"has lists and mappings within each other to more than {DEEPEST} levels; nest it less")

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


def _parts(node: Any) -> Sequence[Any]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else ()


def _text(node: Any) -> int:
    return len(node.value) if isinstance(node, yaml.ScalarNode) else 0


def _number(loader: _Loader, node: yaml.ScalarNode) -> Any:
    line = node.start_mark.line + 1
    if len(node.value) > LONGEST_NUMBER:
        raise _Refused(f"the number in line {line} has {len(node.value):,} digits; at most {LONGEST_NUMBER} are allowed")
    value = (loader.construct_yaml_int if node.tag.endswith(":int") else loader.construct_yaml_float)(node)
    if ":" in node.value or (isinstance(value, int) and re.match(r"[+-]?0[0-9_]", node.value)):
        raise _Refused(
            f"{node.value} in line {line} is the number {value} to YAML, which reads a colon as base "
            f"60 and a leading 0 as base 8; write {value} if it is a number, and '{node.value}' in quotes if it is text"
        )
    return value


LONGEST_NUMBER = 300
"""The most characters of a number in a config file."""
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
        ConfigError: the file is missing, not a regular file, too large or not valid YAML; or it does not hold a mapping, has a
            key twice, or a number that YAML reads as another one.
    """
    try:
        values = _parsed(_contents(file))
    except _Refused as error:
        text = str(error)
        raise ConfigError(f"{file} {text}" if text.startswith(("has ", "contains ")) else f"{file}: {text}") from None
    except RecursionError:
        raise ConfigError(f"{file} has too many levels of lists and mappings within each other; nest it less") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date
        raise ConfigError(f"{file} is not valid YAML: {_problem(error)}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{file} must hold a mapping (key: value), not {described(values)}")
    return values


def _contents(file: str) -> str:
    try:
        kind = os.stat(file).st_mode
        if stat.S_ISDIR(kind):
            raise ConfigError(f"{file} is a folder, not a config file; name a file in it")
        if not stat.S_ISREG(kind):  # opening a pipe would wait for its writer
            raise ConfigError(f"{file} is a pipe or a device, not a file; write the config to a file")
        with open(file, "rb") as stream:
            raw = stream.read(MOST_BYTES + 1)
    except FileNotFoundError:
        remedy = "start fmbench in its folder, name another file by --configfile, or make a project by `fmbench init FOLDER`"
        raise ConfigError(f"there is no config file {file}: {remedy}") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise ConfigError(f"the config file {file} cannot be read: {error}") from None
    if len(raw) > MOST_BYTES:
        raise ConfigError(f"{file} has more than {MOST_BYTES:,} bytes, which is too large for a config; is it another file?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = f"the byte 0x{raw[error.start]:02x} in line {raw[: error.start].count(10) + 1}"
        raise ConfigError(f"{file} is not text in UTF-8: {at} cannot be read; save the file as UTF-8") from None


def _code(character: str | bytes | int) -> int:
    return character if isinstance(character, int) else ord(character)


def _problem(error: Exception) -> str:
    """What is wrong in a YAML file, on one line."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return shortened(where + ", ".join(text for text in (error.problem, error.context) if text))
    if isinstance(error, yaml.reader.ReaderError):
        return f"the character 0x{_code(error.character):04x} at position {error.position} is not allowed in YAML; remove it"
    return shortened(str(error))
