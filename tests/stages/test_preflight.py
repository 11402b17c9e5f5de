"""The check when the Snakefile is read."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from snakemake.exceptions import WorkflowError
from tiny_benchmark import VALUES, settings_with
from user_code import command

from fmbench.config import specs
from fmbench.config.config import Config
from fmbench.config.hashing import canonical
from fmbench.config.reading import parse
from fmbench.errors import ConfigError
from fmbench.stages import check
from fmbench.store.files import read_json
from fmbench.workflow.configure import configure
from fmbench.workflow.preflight import REFUSED, _main, preflight

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def elsewhere(tmp_path) -> Config:
    return parse(VALUES | {"results_dir": str(tmp_path / "results"), "datasets": ["board"]})


def test_the_same_settings_and_code_are_checked_once(elsewhere, capsys, monkeypatch):
    passed = Path(elsewhere.results_dir) / "checked.json"
    preflight(elsewhere)
    assert "5 methods on 1 data set can be built" in capsys.readouterr().err
    before = passed.stat().st_mtime_ns
    preflight(elsewhere)
    assert passed.stat().st_mtime_ns == before
    longer = VALUES | {"results_dir": elsewhere.results_dir, "datasets": ["board"], "methods": ["fm_ot", "scoreflow"]}
    preflight(parse(longer))
    assert read_json(passed)["methods"] == ["fm_ot", "scoreflow"]
    before = passed.stat().st_mtime_ns
    monkeypatch.setattr("fmbench.workflow.preflight.stage_hash", lambda stage, plugins: f"edited {stage}")
    preflight(parse(longer))
    assert passed.stat().st_mtime_ns > before and read_json(passed)["key"].endswith("-edited check")


@pytest.mark.parametrize("below", ["", "below"])
def test_a_results_folder_that_cannot_be_made_is_an_error(elsewhere, below):
    Path(elsewhere.results_dir).write_text("a file")
    config = parse(elsewhere.model_dump() | {"results_dir": str(Path(elsewhere.results_dir) / below)})
    with pytest.raises(
        ConfigError, match=r"results_dir: .* cannot be a folder, because .* is a file; choose another results_dir"
    ):
        preflight(config)


def test_the_check_works_without_write_permission(elsewhere, monkeypatch, capsys):
    """As for a plan, or for the config of another user."""

    def refuse(path: Path, values: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(check, "write_document", refuse)
    preflight(elsewhere)
    said = capsys.readouterr().err
    assert (
        f"warning: {elsewhere.results_dir} cannot be written (" in said
        and "a run needs write permission, or another results_dir" in said
    )
    with pytest.raises(ConfigError, match=r"methods\.odd"):
        preflight(parse(elsewhere.model_dump() | {"methods": [IMPOSSIBLE]}))
    monkeypatch.setattr(check, "read", lambda folder: refuse(folder / "manifest.json", None))
    unread = VALUES | {"results_dir": elsewhere.results_dir, "datasets": ["tall"]}
    with pytest.raises(PermissionError):  # no reason to go on unchecked
        preflight(parse(unread))


@pytest.fixture
def environment(monkeypatch) -> pytest.MonkeyPatch:
    """The environment of the jobs, restored afterwards."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return monkeypatch


def test_jobs_learn_of_mlflow_from_the_environment(elsewhere, environment):
    values = elsewhere.model_dump() | {"tracking": {"uri": "http://server", "live_after": 7.5, "models": True}}
    configure(values, Path("sources"))
    assert (os.environ["FMBENCH_TRACKING_URI"], os.environ["FMBENCH_TRACKING_LIVE_AFTER"]) == ("http://server", "7.5")
    assert (os.environ["FMBENCH_TRACKING_MODELS"], os.environ["FMBENCH_TRACKING_SYSTEM_METRICS_AFTER"]) == ("true", "600.0")
    assert os.environ["PYTHONPATH"].split(os.pathsep)[:2] == [str(ROOT), str(Path("sources").absolute())]
    configure(values | {"tracking": {"enabled": False}}, Path("sources"))
    assert os.environ["FMBENCH_TRACKING_URI"] == "off"


def test_a_full_disk_stops_the_check_with_the_remedy(elsewhere, monkeypatch, capsys):
    def full(path: Path, values: Any) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(check, "write_document", full)
    monkeypatch.setattr("sys.stdin", io.StringIO(elsewhere.model_dump_json()))
    with pytest.raises(SystemExit) as end:
        _main()
    assert end.value.code == REFUSED
    said = capsys.readouterr().out
    assert re.search(r"No space left on device: .*checked\.json.*Remove the cause .* and start again", said)


IMPOSSIBLE = {"name": "odd", "path": "ot", "prediction": "velocity", "weighting": "likelihood"}


def test_snakemake_gets_the_error_of_a_check_that_ran_in_another_process(elsewhere, environment):
    with pytest.raises(WorkflowError, match=r"^this config cannot work:\n  methods\.odd: the loss weight is not finite"):
        configure(elsewhere.model_dump() | {"methods": [IMPOSSIBLE]}, ROOT)
    environment.setattr("fmbench.workflow.preflight.sys.executable", "false")  # a process that fails and says nothing
    with pytest.raises(WorkflowError, match=r"ended with exit code 1; its error is above"):
        configure(elsewhere.model_dump(), ROOT)


def test_reading_and_checking_a_config_imports_no_torch_into_snakemakes_process(elsewhere):
    code = (
        "import json, pathlib, sys; from fmbench.workflow.configure import configure\n"
        "config = configure(json.load(sys.stdin), pathlib.Path(sys.argv[1]))\n"
        "print((pathlib.Path(config.results_dir) / 'checked.json').exists(), 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(ROOT)]
    done = subprocess.run(command, input=elsewhere.model_dump_json(), capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[-2] == "True False"


@pytest.mark.parametrize("path", ["no_such_module:P", "no_such_package.module:P"])
def test_a_plug_in_that_cannot_be_imported_is_a_config_error(elsewhere, path):
    methods = [{"name": "odd", "path": path, "prediction": "velocity"}]
    config = parse(VALUES | {"results_dir": elsewhere.results_dir, "datasets": ["board"], "methods": methods})
    with pytest.raises(ConfigError, match=rf"methods\.odd: path '{path}' cannot be imported"):
        preflight(config)
    assert not (Path(config.results_dir) / "checked.json").exists()


def test_data_of_unknown_shape_are_checked_after_their_preparation(tmp_path):
    """The shape of a plug-in's data is known after the stage ``prepare``."""
    settings = settings_with("tall", network={"kind": "unet", "channels_multiple": [1, 2, 2]})  # 6 x 4 is not divisible by 4
    config = parse(VALUES | {"results_dir": str(tmp_path), "datasets": ["tall"], "settings": settings})
    preflight(config)
    command("prepare", "--spec", canonical(specs.prepare(config, "tall")), "--out", tmp_path / "data" / "tall")
    with pytest.raises(ConfigError, match=r"settings\.tall\.network: 3 levels"):
        preflight(config)
