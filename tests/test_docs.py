"""The documents do what they say: every command in them is run, and every piece of Python.

Commands stand in fenced blocks marked ``sh``. One of fmbench is run as it stands in a copy of the reference results; one of
snakemake is planned, not done; one of make is printed.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fmbench.config.hashing import settings_hash
from fmbench.store.records import read_rows

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TUTORIAL = ROOT / "docs" / "tutorial.md"
REFERENCE = ROOT / "results" / "reference" / "default"


def blocks(kind: str) -> list[tuple[str, str]]:
    """(document, text) of every fenced block of a kind."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        found += [(document.name, body) for body in re.findall(rf"^```{kind}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)]
    return found


def commands() -> list[tuple[str, str]]:
    """(document, command) of every line of every ``sh`` block, comments left out, continued lines joined.

    Those of the tutorial need each other, and have a test of their own.
    """
    found = []
    for document, body in blocks("sh"):
        if document == TUTORIAL.name:
            continue
        for line in body.replace("\\\n", " ").splitlines():
            command = line.partition(" #")[0].strip()
            if command and not command.startswith("#"):
                found.append((document, command))
    return found


ALL = list(dict.fromkeys(command for _, command in commands()))
PROGRAMS = ("fmbench", "snakemake", "make", "mlflow", "conda", "pip", "python", "git", "bash")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A copy of the project with the reference results as its results."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("fmbench", "workflow", "profiles", "configs", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml", "config.yaml", "Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(REFERENCE, folder / "results")
    (folder / "results" / "checkpoints").mkdir()
    return folder


def run(arguments: list[str], place: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(place)}
    return subprocess.run(arguments, cwd=place, env=environment, capture_output=True, text=True, timeout=900)


def test_there_are_commands_in_the_documents():
    assert {document for document, _ in commands()} >= {"README.md", "cluster.md", "results.md", "extending.md"}
    assert {shlex.split(command)[0] for command in ALL} <= set(PROGRAMS)


@pytest.mark.workflow
@pytest.mark.parametrize("command", [c for c in ALL if c.startswith("fmbench ")])
def test_a_command_of_fmbench_runs(place, command):
    program, *arguments = shlex.split(command)
    done = run([str(Path(sys.executable).parent / program), *arguments], place)
    accepted = {0, 3} if command.startswith("fmbench doctor") else {0}  # what a preset lacks here is no error of the document
    assert done.returncode in accepted, done.stdout + done.stderr


@pytest.mark.workflow
@pytest.mark.parametrize("command", [c for c in ALL if c.startswith("snakemake ") and "slurm" not in c])
def test_a_command_of_snakemake_can_be_planned(place, command):
    extra = [] if {"--unlock", "--report"} & set(command.split()) else ["--dry-run"]
    if "--report" in command:
        pytest.skip("the report of a finished run is made by tests/test_workflow.py")
    done = run([sys.executable, "-m", *shlex.split(command), *extra], place)
    output = done.stdout + done.stderr
    # A preset for FID proper stops where the official weights are not, and says so.
    assert done.returncode == 0 or "pt_inception-2015-12-05-6726825d.pth are missing" in output, output


@pytest.mark.parametrize("command", [c for c in ALL if c.startswith("make ")])
def test_a_command_of_make_is_a_target(place, command):
    done = run([*shlex.split(command), "--dry-run"], place)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("document", "text"), blocks("python"))
def test_a_piece_of_python_runs(document, text):
    exec(compile(text, document, "exec"), {})


def test_the_plugins_of_the_extending_page_work(tmp_path):
    """The modules and configs of docs/extending.md: a path, prediction, network, data set and extractor of a user, each run."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    modules = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    configs = [b for b in re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE) if "datasets" in b]
    (tmp_path / "my_package").mkdir()
    for name, module, laid_over in zip(("my_module", "conditioned"), modules, configs, strict=True):
        (tmp_path / "my_package" / f"{name}.py").write_text(module)
        (tmp_path / f"{name}.yaml").write_text(laid_over)

    def fmbench(*arguments: str, config: str = "my_module") -> str:
        program = Path(sys.executable).parent / "fmbench"
        files = ["--configfile", str(ROOT / "config.yaml"), "--configfile", f"{config}.yaml"]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(
            [program, *arguments, *(files if arguments[0] in ("validate", "spec") else [])],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "on digits_by_class, digits_from_4x4" in fmbench("validate", config="conditioned")
    assert "ok: fm_ot, mine, quadratic, steep on line, digits" in fmbench("validate")
    spec = {
        name: fmbench("spec", *name.split()) for name in ("prepare line", "prepare digits", "features digits", "train line mine")
    }
    for name in ("line", "digits"):
        fmbench("prepare", "--spec", spec[f"prepare {name}"], "--out", f"data/{name}")
    fmbench("features", "--spec", spec["features digits"], "--data", "data/digits", "--out", "features")
    assert "brightness(6 rows)" in {row["features"] for row in read_rows([tmp_path / "features" / "rows.parquet"]).to_pylist()}
    short = json.loads(spec["train line mine"])
    short["training"] |= {"iterations": 20, "warmup_iterations": 5}
    folders = ["--data", "data/line", "--out", "model", "--checkpoints", "kept"]
    fmbench("train", "--spec", json.dumps(short), *folders, "--tracking-uri", "off")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["step"] == 20
    sweep = json.loads(fmbench("spec", "sweep", "line", "mine")) | {"model": settings_hash(short)}
    sweep["settings"] |= {"n": 8, "nfe": [4], "reference_nfe": 40, "reference_check_n": 2}
    fmbench("sweep", "--spec", json.dumps(sweep), *folders[:2], "--model", "model", "--out", "sweep", "--cache", "cells")
    rows = {row["solver"]: row for row in read_rows([tmp_path / "sweep" / "rows.parquet"]).to_pylist() if row["metric"] == "mse"}
    assert set(rows) == {"euler", "ab2", "cautious"} and {row["nfe"] for row in rows.values()} == {4}
    assert len({row["value"] for row in rows.values()}) == 3


@pytest.mark.workflow
def test_the_tutorial_leads_from_nothing_to_a_row_of_the_table(place):
    """Every file of the tutorial is written, every command run in its order. It prints what the page says, and makes the rows."""
    steps = re.findall(
        r'^```(\w+)(?: title="(.*?)")?\n(.*?)^```$', TUTORIAL.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert {kind for kind, _, _ in steps} == {"sh", "python", "yaml", "text"}
    environment = os.environ | {
        "PYTHONPATH": str(place),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    (place / "study").mkdir()
    output = ""
    for kind, file, body in steps:
        if file:
            (place / file).write_text(body)
        elif kind == "text":
            assert body.strip() in output, output
        elif "pip install" not in body:
            if "--dry-run" in body:  # the change of step 7
                config = place / "study.yaml"
                config.write_text(config.read_text().replace("nfe: [6, 12, 24]", "nfe: [6, 12, 24, 48]"))
            done = subprocess.run(shlex.split(body), cwd=place, env=environment, capture_output=True, text=True, timeout=900)
            output = done.stdout + done.stderr
            assert done.returncode == 0, output
    results = place / "results" / "study"
    lines = (results / "table1.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines if line.endswith("| ok |")] == ["| FM, OT path", "| gentle"]
    mse = {
        (r["method"], r["solver"], r["nfe"]): r["value"]
        for r in read_rows([results / "records.parquet"]).to_pylist()
        if r["metric"] == "mse"
    }
    for method in ("fm_ot", "gentle"):
        assert 20 < mse[method, "ssp3", 12] / mse[method, "ssp3", 24] < 200  # order 3, squared: about 64
        assert mse[method, "ssp3", 24] < mse[method, "euler", 24] / 100


def anchors(document: Path) -> set[str]:
    """The anchors that the forge gives to a document's headings."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_between_documents_lead_somewhere():
    for document in DOCUMENTS:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([\w-]+))?\)", document.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                linked = document.parent / target if target else document
                assert linked.exists(), f"{document.name} links to {target}"
                assert not anchor or anchor in anchors(linked), f"{document.name} links to {target}#{anchor}"
