"""Options, help, errors and exit codes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from command_line import PREPARE, check_failed
from user_code import Said, command

import fmbench
from fmbench.cli.main import app
from fmbench.errors import DataError
from fmbench.stages import prepare

ROOT = Path(fmbench.__file__).parent.parent


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (["--progress", "loud"], ["--progress must be auto, bar, lines or none, not 'loud'"]),
        (["--device", "tpu9"], ["the device 'tpu9' cannot be used"]),
        (["--device", "cuda:99"], ["the device 'cuda:99' cannot be used"]),
    ],
)
def test_an_option_with_a_wrong_value_is_refused(tmp_path, options, fragments):
    spec = json.dumps({"stage": "sample", "dataset": "d", "method": "m", "seed": 0, "model": "m", "settings": {}})
    check_failed(
        command("sample", "--spec", spec, "--data", tmp_path, "--model", tmp_path, "--out", tmp_path, *options), 2, *fragments
    )


def test_a_wrong_command_or_option_shows_the_usage(tmp_path):
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
        "solvers",
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
        "doctor",
        "plan",
        "prune",
        "page",
        "init",
        "status",
    ):
        assert re.search(rf"\b{name}\b", said.out)
    assert "Exit codes" in said.out


def test_help_groups_the_commands_and_the_stages_come_last():
    groups = re.findall(r"^.─ (.+?) ─", command("--help").out, re.MULTILINE)
    commands = ["Before and during a run", "Look at results", "Share results", "Administer"]
    assert groups == ["Options", *commands, "Stages, which the workflow calls"]


def test_the_version_is_that_of_the_package():
    assert command("--version") == Said(0, f"fmbench {fmbench.__version__}\n", "")


@pytest.mark.parametrize(("typed", "offered"), [("fmbench vali", ["validate"]), ("fmbench figure fig07_", ["fig07_quality"])])
def test_the_shell_completes_commands_and_figures(monkeypatch, typed, offered):
    for name, value in {"_FMBENCH_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": typed.count(" ")}.items():
        monkeypatch.setenv(name, str(value))
    assert command().out.split() == offered


def test_an_error_ends_with_the_command_to_give_next(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text("seeds: []\n")
    said = command("plan", "--configfile", "my.yaml")
    assert said.code == 2 and said.err.splitlines()[-1] == "next: correct the config, then fmbench validate --configfile my.yaml"
    said = command("claims", "--results", tmp_path)
    assert said.code == 3 and said.err.splitlines()[-1] == "next: fmbench status, which says what of the run is missing"
    assert "next:" not in command("validate", "--configfile", "my.yaml").err
    assert "next:" not in command("export", "--results", tmp_path, "--out", "x.rar").err
    Path("my.yaml").write_text((ROOT / "config.yaml").read_text())
    for wrong in (["spec", "trian"], ["spec", "train", "digits", "nobody"], ["plan", "--gpu", "abacus"]):
        said = command(*wrong, "--configfile", "my.yaml")
        assert said.code == 2 and "; " in said.err and "next:" not in said.err


@pytest.mark.parametrize("name", sorted(typer.main.get_command(app).commands))
def test_every_option_and_argument_of_a_command_is_explained(name):
    found = typer.main.get_command(app).commands[name]
    assert found.help and not [parameter.name for parameter in found.params if not getattr(parameter, "help", None)]


def test_the_terminal_wraps_the_paragraphs_of_help():
    program = typer.main.get_command(app)
    for text in (program.help, *(each.help for each in program.commands.values())):
        assert text and not re.search(r"[^\n]\n[^\n]", text)


def test_the_log_gets_every_line_with_its_time(tmp_path):
    log = tmp_path / "logs" / "prepare.log"
    for _ in range(2):
        arguments = ["--spec", json.dumps(PREPARE), "--out", tmp_path / "data", "--log", log, "--progress", "none"]
        assert command("prepare", *arguments) == Said(0, "", "")
    lines = log.read_text().splitlines()
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    forms = [
        f"{time} prepare board: 30 train, 10 test samples",
        rf"{time} took [\d.]+ s, [\d.]+ s of processor time, at most \d+ MiB$",
    ]
    assert len(lines) == 4 and all(re.match(form, line) for form, line in zip(2 * forms, lines, strict=True))


# Errors and exit codes


def raising(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException) -> Said:
    """Run a command that fails, and check that its log ends with its message: Snakemake shows the log of a failed job."""

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

    check_failed(
        raising(monkeypatch, tmp_path, getattr(errors, error)("what went wrong")), code, "fmbench: error: what went wrong"
    )


def test_a_value_error_is_short_unless_debugging(monkeypatch, tmp_path):
    monkeypatch.delenv("FMBENCH_DEBUG", raising=False)
    check_failed(raising(monkeypatch, tmp_path, ValueError("x must be 1")), 2, "x must be 1 (FMBENCH_DEBUG=1 shows where)")
    monkeypatch.setenv("FMBENCH_DEBUG", "1")
    with pytest.raises(ValueError, match="x must be 1"):
        raising(monkeypatch, tmp_path, ValueError("x must be 1"))
    logged = (tmp_path / "logs" / "log").read_text()
    assert logged.count("Traceback (most recent call last)") == 1 and logged.endswith("\nValueError: x must be 1\n")


@pytest.mark.parametrize("log", [["--log", "-logs/log"], ["--log=-logs/log"]])
def test_an_error_before_the_command_opens_its_log_is_in_the_log_too(monkeypatch, tmp_path, log):
    monkeypatch.chdir(tmp_path)
    check_failed(command("prepare", "--spec", "{", "--out", "out", *log), 2, "--spec is not JSON")
    assert "fmbench: error: --spec is not JSON" in Path("-logs/log").read_text()


def test_a_full_disk_is_reported_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.delenv("FMBENCH_DEBUG", raising=False)
    said = raising(monkeypatch, tmp_path, OSError(28, "No space left on device", "results/x"))
    check_failed(
        said, 3, "No space left on device", "Finished work is kept; remove the cause (a full disk", "run the command again"
    )


def test_a_file_name_in_any_bytes_reaches_the_log_and_keeps_the_exit_code(monkeypatch, tmp_path):
    name = os.fsdecode(b"caf\xe9\x1b[2J.png")
    said = raising(monkeypatch, tmp_path, DataError(f"{name} is not an image"))
    check_failed(said, 3, r"caf\xe9\x1b[2J.png is not an image")


def test_a_real_process_ends_with_the_exit_code(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-m", "fmbench", "prepare", "--spec", "{", "--out", str(tmp_path)]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("fmbench: error: --spec is not JSON")


HEAVY = "{'torch', 'pandas', 'mlflow', 'matplotlib', 'scipy', 'sklearn', 'pyarrow'}"


def python(code: str) -> str:
    """Return what Python prints when it runs ``code`` in the repository."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout


def test_help_is_shown_without_the_heavy_imports():
    code = (
        "import sys; from fmbench.cli.main import app;"
        "shown = app(['--help'], standalone_mode=False);"
        f"print('loaded:', sorted({HEAVY} & set(sys.modules)))"
    )
    assert python(code).splitlines()[-1] == "loaded: []"


def test_configs_are_read_without_the_heavy_imports():
    """The Snakefile reads the config, all specs and all code hashes every time it starts."""
    code = (
        "import sys; from fmbench.config import specs; from fmbench.config.reading import load;"
        "from fmbench.store.codehash import stage_hash;"
        "config = load('config.yaml'); specs.train(config, config.datasets[0], config.methods[0].name, 0); stage_hash('train');"
        "specs.table4(config), specs.theory(config), stage_hash('theory'), stage_hash('table4'), stage_hash('claims');"
        f"print(sorted({HEAVY} & set(sys.modules)))"
    )
    assert python(code) == "[]\n"
