import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from user_code import Said, command

import fmbench
from fmbench.config import specs
from fmbench.config.config import Config
from fmbench.config.names import GATHERED
from fmbench.config.reading import load
from fmbench.stages import prepare

ROOT = Path(fmbench.__file__).parent.parent
CONFIG = {
    "seeds": [0, 5],
    "datasets": ["board", "digits"],
    "methods": ["fm_ot", {"name": "mine", "path": "cosine_vp", "prediction": "v"}],
    "settings": {
        "board": {"data": {"source": "checkerboard", "parameters": {"train": 30, "test": 10}}, "network": {"kind": "mlp"}},
        "digits": {"data": "digits", "network": {"kind": "unet"}},
    },
}
PREPARE = {"stage": "prepare", "dataset": "board", "source": "checkerboard", "parameters": {"train": 30, "test": 10}}


@pytest.fixture
def configfile(tmp_path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return path


def failed(said: Said, code: int, *fragments: str) -> None:
    """The command ended with ``code`` and one error in words, without a traceback."""
    assert said.code == code, said
    assert said.err.startswith("fmbench: error: ")
    assert "Traceback" not in said.err
    for fragment in fragments:
        assert fragment in said.err


# Specs


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("{", ["--spec is not JSON and not a file with JSON", "Print one with `fmbench spec`"]),
        ("", ["--spec is not JSON"]),
        ("@no/such/file", ["--spec is not JSON and not a file with JSON", "no/such/file"]),
        ("[1]", ["--spec must be an object with a stage", "fmbench spec"]),
        ("{}", ["--spec must be an object with a stage"]),
        ('{"dataset": "digits"}', ["--spec must be an object with a stage"]),
    ],
)
@pytest.mark.parametrize("stage", ["prepare", "sample"])
def test_a_spec_that_is_none(tmp_path, stage, text, fragments):
    more = [] if stage == "prepare" else ["--data", tmp_path, "--model", tmp_path]
    failed(command(stage, "--spec", text, "--out", tmp_path / "out", *more), 2, *fragments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command_of", "stage", "options"),
    [
        ("table1", "table4", ["--records", "r"]),
        ("table4", "table1", ["--rows", "r"]),
        ("dequantisation", "likelihood", ["--data", "d", "--model", "m", "--cache", "c"]),
        ("theory", "check", ["--summary", "s"]),
        ("train", "oracles", ["--data", "d", "--checkpoints", "c"]),
    ],
)
def test_a_spec_of_another_stage(tmp_path, command_of, stage, options):
    spec = json.dumps({"stage": stage, "dataset": "d", "method": "m", "methods": [], "seed": 0, "draws": {}, "overrides": {}})
    said = command(command_of, "--spec", spec, "--out", tmp_path / "out", *options)
    failed(said, 2, f"--spec is for the stage '{stage}', not for `fmbench {command_of}`", "Print one with `fmbench spec`")
    assert not (tmp_path / "out").exists()


def test_a_spec_from_a_file(tmp_path):
    (tmp_path / "spec.json").write_text(json.dumps(PREPARE))
    said = command("prepare", "--spec", f"@{tmp_path / 'spec.json'}", "--out", tmp_path / "data", "--progress", "lines")
    assert said.code == 0
    assert f"prepare board: 30 train, 10 test samples of shape [2] -> {tmp_path / 'data'}" in said.err
    assert (tmp_path / "data" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("stage", "arguments", "expected"),
    [
        ("check", [], lambda c: specs.check(c)),
        ("collect", [], lambda c: specs.collect(c)),
        ("table1", [], lambda c: specs.table1(c)),
        ("table4", [], lambda c: specs.table4(c)),
        ("theory", [], lambda c: specs.theory(c)),
        *(("gather", [kind], lambda c, kind=kind: specs.gather(kind, c)) for kind in GATHERED),
        ("prepare", ["board"], lambda c: specs.prepare(c, "board")),
        ("features", ["digits"], lambda c: specs.features(c, "digits")),
        ("train", ["board", "mine", 5], lambda c: specs.train(c, "board", "mine", 5)),
        ("train", ["digits", "fm_ot"], lambda c: specs.train(c, "digits", "fm_ot", 0)),
        *(
            (stage, ["board", "fm_ot", 5], lambda c, stage=stage: specs.evaluate(stage, c, "board", "fm_ot", 5))
            for stage in (
                "sample",
                "likelihood",
                "dequantisation",
                "sweep",
                "sample_quality",
                "learning_curve",
                "few_step",
                "trajectory",
            )
        ),
    ],
)
def test_spec_prints_what_the_job_gets(configfile, stage, arguments, expected):
    said = command("spec", stage, *arguments, "--configfile", configfile)
    assert said.code == 0, said.err
    assert json.loads(said.out) == expected(load(str(configfile)))


def test_a_printed_spec_runs_its_stage(configfile, tmp_path):
    spec = command("spec", "prepare", "board", "--configfile", configfile).out
    assert command("prepare", "--spec", spec, "--out", tmp_path / "data").code == 0
    assert json.loads((tmp_path / "data" / "manifest.json").read_text())["spec"] == PREPARE


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["trian", "board", "fm_ot"], ["unknown stage 'trian'"]),
        (["trian"], ["unknown stage 'trian'"]),
        (["train"], ["stage 'train' needs a data set; this config has board, digits"]),
        (["train", "board"], ["stage 'train' needs a method; this config has fm_ot, mine"]),
        (["train", "mnist", "fm_ot"], ["unknown data set 'mnist'; this config has board, digits"]),
        (["train", "board", "ddpm"], ["unknown method 'ddpm'; this config has fm_ot, mine"]),
        (["prepare", "mnist"], ["unknown data set 'mnist'"]),
        (["dequantisation"], ["stage 'dequantisation' needs a data set; this config has board, digits"]),
        (["dequantisation", "digits"], ["stage 'dequantisation' needs a method; this config has fm_ot, mine"]),
    ],
)
def test_a_spec_of_what_is_not_there(configfile, arguments, fragments):
    failed(command("spec", *arguments, "--configfile", configfile), 2, *fragments)


# Configs


def test_validate_says_what_the_config_holds(configfile):
    said = command("validate", "--configfile", configfile)
    assert (said.code, said.out) == (0, "ok: fm_ot, mine on board, digits, seeds 0, 5\n")


def test_validate_lays_files_over_each_other(configfile, tmp_path):
    (tmp_path / "more.yaml").write_text("seeds: [7]\nmethods: [ddpm]\n")
    said = command("validate", "--configfile", configfile, "--configfile", tmp_path / "more.yaml")
    assert said.out == "ok: ddpm on board, digits, seeds 7\n"


@pytest.mark.parametrize("preset", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_repositorys_own_configs_are_valid(preset, tmp_path, monkeypatch):
    """And where one needs weights that are not here, that alone is said."""
    files = ["--configfile", ROOT / "config.yaml", "--configfile", preset]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    said = command("validate", *files)
    if said.code:
        assert "inception" in preset.read_text() and re.search("the Inception weights .* are missing; download", said.err)
        monkeypatch.setattr("fmbench.workflow.problem", lambda *_: "")
        monkeypatch.setattr("fmbench.stages.check.problem", lambda *_: "")
        said = command("validate", *files)
    assert said.code == 0, said.err


@pytest.mark.parametrize("name", ["validate", "spec"])
def test_a_config_file_that_is_missing(name, tmp_path):
    more = ["check"] if name == "spec" else []
    said = command(name, *more, "--configfile", tmp_path / "nope.yaml")
    failed(said, 2, f"there is no config file {tmp_path / 'nope.yaml'}")


@pytest.mark.parametrize(
    ("data", "fragments"),
    [
        ({"source": "checkerboard", "parameters": {"tset": 100}}, ["unexpected keyword argument 'tset'; it takes train, test"]),
        ({"source": "checkerboard", "parameters": {"test": -3}}, ["test: Input should be greater than or equal to 2, not -3"]),
        ({"source": "folder", "parameters": {"size": 8}}, ["missing a required argument: 'path'; it takes path, size"]),
        ("nosuch.mod:F", ["data set 'nosuch.mod:F' cannot be imported"]),
        ({"source": "user_code:two_points", "parameters": {"m": 3}}, ["unexpected keyword argument 'm'; it takes n, support"]),
    ],
)
def test_validate_looks_at_a_data_set_without_reading_it(tmp_path, monkeypatch, configfile, data, fragments):
    monkeypatch.chdir(tmp_path)
    values = json.loads(json.dumps(CONFIG | {"datasets": ["board"]}))
    values["settings"]["board"]["data"] = data
    configfile.write_text(yaml.safe_dump(values))
    failed(command("validate", "--configfile", configfile), 2, "settings.board.data: ", *fragments)
    assert not (tmp_path / "results" / "checked.json").exists()


def test_a_folder_for_a_config_file(tmp_path):
    failed(command("validate", "--configfile", tmp_path), 2, f"{tmp_path} is a folder, not a config file")


def test_a_config_with_errors(configfile):
    configfile.write_text(yaml.safe_dump(CONFIG | {"seedz": [1], "seeds": ["1e0"]}))
    said = command("validate", "--configfile", configfile)
    failed(said, 2, "the config has errors:", "seedz: unknown key", "seeds.0: the number '1e0' is written as a string")


def test_the_schema_is_the_configs_and_refuses_what_the_config_refuses(configfile):
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


# Options


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (["--progress", "loud"], ["--progress must be auto, bar, lines or none, not 'loud'"]),
        (["--device", "tpu9"], ["the device 'tpu9' cannot be used"]),
        (["--device", "cuda:99"], ["the device 'cuda:99' cannot be used"]),
    ],
)
def test_options_that_cannot_be(tmp_path, options, fragments):
    spec = json.dumps({"stage": "sample", "dataset": "d", "method": "m", "seed": 0, "settings": {}})
    failed(command("sample", "--spec", spec, "--data", tmp_path, "--model", tmp_path, "--out", tmp_path, *options), 2, *fragments)


def test_options_that_the_command_line_refuses(tmp_path):
    for arguments in (["nonsense"], ["prepare"], ["prepare", "--spec", "{}", "--out", tmp_path, "--sped", "x"]):
        said = command(*arguments)
        assert said.code == 2
        assert "Usage" in said.err
    said = command("sample", "--spec", "{}", "--data", "d", "--model", "m", "--out", "o", "--threads", "0")
    assert said.code == 2 and "--threads" in said.err


def test_help_names_every_command_and_the_exit_codes():
    said = command("--help")
    assert said.code == 0
    for name in (
        "prepare",
        "check",
        "features",
        "train",
        "sample",
        "likelihood",
        "dequantisation",
        "sweep",
        "sample-quality",
        "learning-curve",
        "few-step",
        "trajectory",
        "gather",
        "collect",
        "table1",
        "table2",
        "table3",
        "table4",
        "claims",
        "theory",
        "figure",
        "export",
        "unpack",
        "merge",
        "compare",
        "render",
        "mlflow-summary",
        "mlflow-rebuild",
        "spec",
        "validate",
        "schema",
    ):
        assert re.search(rf"\b{name}\b", said.out)
    assert "Exit codes" in said.out


def test_the_log_gets_every_line_with_its_time(tmp_path):
    log = tmp_path / "logs" / "prepare.log"
    for _ in range(2):
        arguments = ["--spec", json.dumps(PREPARE), "--out", tmp_path / "data", "--log", log, "--progress", "none"]
        assert command("prepare", *arguments) == Said(0, "", "")
    lines = log.read_text().splitlines()
    assert len(lines) == 2
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d prepare board: 30 train, 10 test samples", line) for line in lines)


# Errors and exit codes


def raising(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException) -> Said:
    """A command that fails; its log, which Snakemake shows of a failed job, ends as its standard error does."""

    def run(*_: Any) -> None:
        raise error

    monkeypatch.setattr(prepare, "run", run)
    log = tmp_path / "logs" / "log"
    said = command("prepare", "--spec", json.dumps(PREPARE), "--out", tmp_path, "--log", log)
    assert said.err and log.read_text()[20:] == said.err
    return said


@pytest.mark.parametrize(
    ("error", "code"),
    [("ConfigError", 2), ("DataError", 3), ("CheckpointError", 3), ("LockedError", 4), ("DivergedError", 1), ("FmbenchError", 1)],
)
def test_every_error_of_the_package_has_its_exit_code(monkeypatch, tmp_path, error, code):
    from fmbench import errors

    failed(raising(monkeypatch, tmp_path, getattr(errors, error)("what went wrong")), code, "fmbench: error: what went wrong")


def test_a_value_error_is_short_unless_asked(monkeypatch, tmp_path):
    monkeypatch.delenv("FMBENCH_DEBUG", raising=False)
    failed(raising(monkeypatch, tmp_path, ValueError("x must be 1")), 2, "x must be 1 (FMBENCH_DEBUG=1 shows where)")
    monkeypatch.setenv("FMBENCH_DEBUG", "1")
    with pytest.raises(ValueError, match="x must be 1"):
        raising(monkeypatch, tmp_path, ValueError("x must be 1"))
    logged = (tmp_path / "logs" / "log").read_text()
    assert logged.count("Traceback (most recent call last)") == 1 and logged.endswith("\nValueError: x must be 1\n")


@pytest.mark.parametrize("log", [["--log", "-logs/log"], ["--log=-logs/log"]])
def test_what_ends_a_command_before_it_has_a_console_is_in_its_log_too(monkeypatch, tmp_path, log):
    monkeypatch.chdir(tmp_path)
    failed(command("prepare", "--spec", "{", "--out", "out", *log), 2, "--spec is not JSON")
    assert "fmbench: error: --spec is not JSON" in Path("-logs/log").read_text()


def test_a_full_disk_is_told_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.delenv("FMBENCH_DEBUG", raising=False)
    said = raising(monkeypatch, tmp_path, OSError(28, "No space left on device", "results/x"))
    failed(said, 3, "No space left on device", "Finished work is kept; remove the cause (a full disk", "run the command again")


def test_a_real_process_ends_with_the_code(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-m", "fmbench", "prepare", "--spec", "{", "--out", str(tmp_path)]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("fmbench: error: --spec is not JSON")


def test_configs_are_read_without_the_heavy_imports():
    """The Snakefile reads the config, all specs and all code hashes on every start."""
    code = (
        "import sys; from fmbench.config import specs; from fmbench.config.reading import load;"
        "from fmbench.store.codehash import stage_hash;"
        "config = load('config.yaml'); specs.train(config, config.datasets[0], config.methods[0].name, 0); stage_hash('train');"
        "specs.table4(config), specs.theory(config), stage_hash('theory'), stage_hash('table4'), stage_hash('claims');"
        "print(sorted({'torch', 'pandas', 'mlflow', 'matplotlib', 'scipy', 'sklearn', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
