"""Configs that are small files and would be huge values, files that are no config, and texts that no editor would write."""

import os
import time
from pathlib import Path

import pytest
import yaml
from config_values import BASE, changed, config_error

from fmbench.config.limits import DEEPEST, MOST_BYTES, MOST_CHARACTERS, MOST_VALUES, check_size
from fmbench.config.reading import load, parse
from fmbench.config.yamlfile import read
from fmbench.errors import ConfigError


def refused(tmp_path: Path, text: str | bytes) -> str:
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    began = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    assert time.monotonic() - began < 10  # minutes and gigabytes otherwise
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(path))
    return message.removeprefix(str(path)).lstrip()


def laughs(first: str, use: str, levels: int = 9) -> str:
    """Anchors that each use the one before ten times."""
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{k}: &a{k} {use.format(*[f'*a{k - 1}'] * 10)}" for k in range(1, levels + 1)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("first", "use"),
    [
        ("[lol]", "[{}, {}, {}, {}, {}, {}, {}, {}, {}, {}]"),
        ("{x: 1}", "{{a: {}, b: {}, c: {}, d: {}, e: {}, f: {}, g: {}, h: {}, i: {}, j: {}}}"),
        ("{x: 1}", "{{<<: [{}, {}, {}, {}, {}, {}, {}, {}, {}, {}]}}"),
        ("{x: 1}", "{{<<: {}, y: {}, z: [{}, {}, {}, {}, {}, {}, {}, {}]}}"),
    ],
    ids=["lists", "mappings", "merge keys", "both"],
)
def test_aliases_within_aliases_are_counted_and_not_written_out(tmp_path, first, use):
    message = refused(tmp_path, laughs(first, use))
    assert message == f"has more than {MOST_VALUES:,} values, each use of an alias (*) counted; use fewer aliases"


def test_a_long_text_that_is_used_often_counts_each_time(tmp_path):
    message = refused(tmp_path, f"a: &a {'x' * 50_000}\nb: &b [{', '.join(['*a'] * 50)}]\nc: [{', '.join(['*b'] * 50)}]\n")
    assert message.startswith(f"has more than {MOST_CHARACTERS:,} characters of text")


def test_values_that_share_parts_are_refused_where_snakemake_has_read_the_file():
    values: list[object] = ["x"]
    for _ in range(40):
        values = [values, values]
    began = time.monotonic()
    message = config_error(changed(("settings.board.data.parameters", {"x": values})))
    assert message == f"the config has more than {MOST_VALUES:,} values, each use of an alias (*) counted; use fewer aliases"
    assert time.monotonic() - began < 5


def test_the_size_counts_keys_values_and_uses():
    shared = ["a", "b"]  # 3 values
    few = MOST_VALUES // 3 - 1
    check_size([shared] * few)
    with pytest.raises(ValueError, match="values"):
        check_size([shared] * (few + 2))
    check_size({str(k): k for k in range(MOST_VALUES // 2 - 1)})
    with pytest.raises(ValueError, match="values"):
        check_size({str(k): k for k in range(MOST_VALUES // 2 + 1)})
    check_size(["x" * (MOST_CHARACTERS // 2)] * 2)
    with pytest.raises(ValueError, match="characters"):
        check_size(["x" * (MOST_CHARACTERS // 2 + 1)] * 2)


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


def test_deep_values_are_refused_also_if_aliases_make_them_deep():
    check_size(nested(DEEPEST))
    for levels in (DEEPEST + 1, 100_000):
        with pytest.raises(ValueError, match=f"to more than {DEEPEST} levels; nest it less"):
            check_size(nested(levels))
    half = nested(DEEPEST - 1)
    check_size([half, [half]][:1])
    with pytest.raises(ValueError, match="levels"):
        check_size([half, [half]])


@pytest.mark.parametrize(
    "text",
    ["a: " + "[" * 3000 + "]" * 3000, '{"a": ' * 3000 + "1" + "}" * 3000, "[" * 100_000, '{"a":' * 100_000, "- " * 5000 + "x"],
)
def test_brackets_without_end_are_refused(tmp_path, text):
    assert refused(tmp_path, text).endswith("nest it less")


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        (b"seeds: [0]\x00\n", ["not valid YAML: the character 0x0000 at position 10 is not allowed"]),
        ("seeds: [0]\n".encode("utf-16"), ["not text in UTF-8: the byte 0xff in line 1 cannot be read; save the file as UTF-8"]),
        (b"a: 1\nb: caf\xe9\n", ["not text in UTF-8: the byte 0xe9 in line 2"]),
        (b"seeds:\n\t- 0\n", ["not valid YAML: line 2, column 1: found character '\\t' that cannot start any token"]),
        (b"seeds: [0\n", ["not valid YAML: line 2, column 1: expected ',' or ']'", "while parsing a flow sequence"]),
        (b"a: !!python/object/apply:os.system ['touch x']\n", ["could not determine a constructor for the tag", "os.system"]),
        (b"a: &a [*b]\n", ["not valid YAML: line 1, column 8: found undefined alias 'b'"]),
        (b"? [1, 2]\n: 3\n", ["found unhashable key"]),
        (b"seeds: [" + b"9" * 5000 + b"]\n", ["the number in line 1 has 5,000 digits; at most 300 are allowed"]),
        (b"seeds: [0x" + b"f" * 400 + b"]\n", ["the number in line 1 has 402 digits"]),
        (b"seeds: [0]\n" + b"#" * MOST_BYTES, [f"has more than {MOST_BYTES:,} bytes, which is too large for a config"]),
        (b"5\n", ["must hold a mapping (key: value), not 5"]),
        (b"[1, 2]", ["must hold a mapping (key: value), not a list"]),
        (b"a: &a {x: *a}\n", ["contains itself: an alias (*) is inside the value that its anchor (&) names"]),
    ],
)
def test_a_file_that_is_no_config_is_refused_on_one_line(tmp_path, text, fragments):
    message = refused(tmp_path, text)
    for fragment in fragments:
        assert fragment in message


def test_a_pipe_and_a_device_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ConfigError, match=f"{path} is a pipe or a device, not a file; write the config to a file"):
            read(str(path))
    with pytest.raises(ConfigError, match="cannot be read"):
        read("a\x00b")


@pytest.mark.parametrize("text", ["\ufeffseeds: [3]\n", '\ufeff{\n\t"seeds": [3]\n}\n'])
def test_a_byte_order_mark_is_skipped(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    assert read(str(tmp_path / "config.yaml")) == {"seeds": [3]}


@pytest.mark.parametrize(
    ("place", "yaml_text", "message"),
    [
        ("datasets", "[on]", "datasets.0: must be text, not true (YAML reads on, off, yes and no as true and false"),
        ("datasets", "[2024-01-01]", "datasets.0: must be text, not the date 2024-01-01 (put text in quotes)"),
        ("datasets", "[null]", "datasets.0: must be text, not null (put text in quotes)"),
        ("datasets", "[5]", "datasets.0: must be text, not 5 (put text in quotes)"),
        ("settings", "{5: {}}", "settings.5: must be text, not 5 (put text in quotes)"),
        ("settings", "{null: {}}", "settings.None: must be text, not null"),
        ("tracking", "{1: 2}", "tracking.1: a key must be text; put it in quotes"),
        ("seeds", f"[{10**299}]", "seeds.0: must be less than 2147483648, not a number of more than 60 digits"),
        (
            "settings.board.training.iterations",
            str(10**16),
            "iterations: must be at most 1000000000000000, not 10000000000000000",
        ),
        ("settings.board.data.parameters.train", str(10**299), "must be at most 1,000,000,000,000,000 in size, not a number of"),
        ("settings.board.network.depth", "1000000000", "network.depth: must be at most 1000, not 1000000000"),
        ("settings.board.evaluation.sweep.nfe", "[1000000000]", "sweep.nfe.0: must be at most 1000000, not 1000000000"),
        ("settings.board.training.snapshots", "1000000000", "training.snapshots: must be at most 10000, not 1000000000"),
        ("settings.board.evaluation.sweep.nfe", str([4] * 1001), "sweep.nfe: must have at most 1,000 entries"),
        ("device", "gpu", "device: must be 'cpu' or 'cuda', not 'gpu'"),
        ("tracking.enabled", "'on'", "tracking.enabled: must be true or false, not 'on'"),
        ("settings.mySettings", "5", "settings.mySettings: must be a mapping (key: value), not 5"),
        ("settings.board.network", "5", "settings.board.network: must be a mapping (key: value), not 5"),
        ("results_dir", '"a{b}"', "results_dir: must be a path without { and }, which Snakemake takes for wildcards, not 'a{b}'"),
        ("methods.2.name", "a b", "methods.2.name: must be a name: a letter, then letters, digits, _, - and ."),
        ("methods.2.name", "'caf\u00e9'", "methods.2.name: must be a name"),
        ("methods.2.name", "mine.", "methods.2.name: must be a name"),
        ("methods.2.name", "x" * 101, "methods.2.name: must have at most 100 characters, not 101 characters"),
        ("methods.2.path", "x" * 5000, "methods.2.path.name: unknown path 'xxxx"),
    ],
)
def test_an_error_is_in_words_with_its_value(place, yaml_text, message):
    values = changed((place, yaml.load(yaml_text, yaml.SafeLoader)))
    lines = config_error(values).split("\n")[1:]
    assert any(message in line for line in lines), lines
    assert len(lines) == len(set(lines)) and all(len(line) < 1000 for line in lines)


def test_a_thousand_errors_are_not_all_shown():
    message = config_error(changed(("seeds", ["x"] * 1000)))
    assert len(message.split("\n")) == 52 and message.endswith("\n  and 950 more errors")


def test_so_many_models_that_no_run_could_have_them_are_refused_at_once():
    began = time.monotonic()
    assert "are 12,000 models, but a run has at most 10,000" in config_error(changed(("seeds", list(range(2000)))))
    assert "seeds: must have at most 10,000 entries" in config_error(changed(("seeds", list(range(90_000)))))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([("methods.2.name", "Mine"), ("methods.1", {"name": "mine", "path": "ot", "prediction": "v"})], "method mine and Mine"),
        ([("datasets", ["board", "Board"]), ("settings.Board", BASE["settings"]["board"])], "data set board and Board"),
    ],
)
def test_names_that_differ_in_case_alone_are_refused(changes, message):
    found = config_error(changed(*changes))
    assert f"{message} differ in upper and lower case alone, so some disks would keep them in one folder" in found


def test_reserved_names_are_refused():
    known = config_error(changed(("methods.2.name", "FM_OT")))
    assert "FM_OT differs from the known method fm_ot in upper and lower case alone; choose another name" in known
    assert "a method cannot be called data" in config_error(changed(("methods.2.name", "Data")))
    everything = changed(("datasets", ["all"]), ("settings.all", BASE["settings"]["board"]))
    assert "a data set cannot be called all, since claims.csv has verdicts on all" in config_error(everything)
    assert parse(changed(("methods.2.name", "mine-2.b_"))).methods[2].name == "mine-2.b_"
