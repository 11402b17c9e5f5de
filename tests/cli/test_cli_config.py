"""`fmbench validate` and `fmbench schema`."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from command_line import CONFIG, check_failed
from user_code import command

import fmbench
from fmbench.config.config import Config

ROOT = Path(fmbench.__file__).parent.parent


def test_validate_prints_methods_data_sets_and_seeds(configfile):
    said = command("validate", "--configfile", configfile)
    assert (said.code, said.out) == (0, "ok: fm_ot, mine on board, digits, seeds 0, 5\n")


def test_a_later_config_file_overrides_an_earlier_one(configfile, tmp_path):
    (tmp_path / "more.yaml").write_text("seeds: [7]\nmethods: [ddpm]\n")
    said = command("validate", "--configfile", configfile, "--configfile", tmp_path / "more.yaml")
    assert said.out == "ok: ddpm on board, digits, seeds 7\n"


@pytest.mark.parametrize("preset", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_preset_is_valid(preset, tmp_path, monkeypatch):
    """If a preset needs weights that are not on this machine, the error is about these weights alone."""
    files = ["--configfile", ROOT / "config.yaml", "--configfile", preset]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    said = command("validate", *files)
    if said.code:
        assert "inception" in preset.read_text() and re.search("the Inception weights .* are missing; download", said.err)
        monkeypatch.setattr("fmbench.workflow.preflight.problem", lambda *_: "")
        monkeypatch.setattr("fmbench.stages.check.problem", lambda *_: "")
        said = command("validate", *files)
    assert said.code == 0, said.err


@pytest.mark.parametrize("name", ["validate", "spec"])
def test_a_missing_config_file_is_an_error(name, tmp_path):
    more = ["check"] if name == "spec" else []
    said = command(name, *more, "--configfile", tmp_path / "nope.yaml")
    check_failed(said, 2, f"there is no config file {tmp_path / 'nope.yaml'}")


@pytest.mark.parametrize(
    ("data", "fragments"),
    [
        ({"source": "checkerboard", "parameters": {"tset": 100}}, ["unexpected keyword argument 'tset'; it takes train, test"]),
        ({"source": "checkerboard", "parameters": {"test": -3}}, ["test: must be at least 2, not -3"]),
        ({"source": "folder", "parameters": {"size": 8}}, ["missing a required argument: 'path'; it takes path, size"]),
        ("nosuch.mod:F", ["data set 'nosuch.mod:F' cannot be imported"]),
        ({"source": "user_code:two_points", "parameters": {"m": 3}}, ["unexpected keyword argument 'm'; it takes n, support"]),
    ],
)
def test_validate_checks_a_data_set_without_reading_it(tmp_path, monkeypatch, configfile, data, fragments):
    monkeypatch.chdir(tmp_path)
    values = json.loads(json.dumps(CONFIG | {"datasets": ["board"]}))
    values["settings"]["board"]["data"] = data
    configfile.write_text(yaml.safe_dump(values))
    check_failed(command("validate", "--configfile", configfile), 2, "settings.board.data: ", *fragments)
    assert not (tmp_path / "results" / "checked.json").exists()


def test_a_folder_in_place_of_a_config_file_is_an_error(tmp_path):
    check_failed(command("validate", "--configfile", tmp_path), 2, f"{tmp_path} is a folder, not a config file")


def test_every_error_of_a_config_is_named(configfile):
    configfile.write_text(yaml.safe_dump(CONFIG | {"seedz": [1], "seeds": ["1e0"]}))
    said = command("validate", "--configfile", configfile)
    check_failed(said, 2, "the config has errors:", "seedz: unknown key", "seeds.0: the number '1e0' is written as a string")


def test_the_schema_comes_from_the_config_and_refuses_what_the_config_refuses(configfile):
    schema = json.loads(command("schema").out)
    assert schema.pop("$schema") == "https://json-schema.org/draft/2020-12/schema"
    assert schema == json.loads(json.dumps(Config.model_json_schema()))
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    assert not list(validator.iter_errors(yaml.safe_load((ROOT / "config.yaml").read_text())))
    far = {"name": "far", "path": "ve", "oracle": {"bandwidth": -1.0}}
    wrong = ({"seedz": [1]}, {"seeds": []}, {"seeds": ["1"]}, {"seeds": [-1]}, {"results_dir": ""}, {"methods": [far]})
    for change in (*wrong, {"tracking": {"live_after": -1.0}}):
        assert list(validator.iter_errors(CONFIG | change)), change
    far["oracle"] = {"bandwidth": 0.5, "points": 10}
    assert not list(validator.iter_errors(CONFIG | {"methods": [far]}))
