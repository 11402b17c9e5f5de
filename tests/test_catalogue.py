"""The repository has what the Snakemake workflow catalogue looks for, and another workflow can use it as a module."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from user_code import command

import fmbench
from fmbench.config.config import Config
from fmbench.config.key_page import key_page
from fmbench.config.reading import load

ROOT = Path(fmbench.__file__).parent.parent


def test_the_catalogue_finds_the_workflow_and_lists_its_usage():
    """It searches for the two words, reads workflow/Snakefile, and needs both other files for its standardised usage."""
    first = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[0]
    assert re.match("# .*Snakemake workflow", first)
    assert (ROOT / "workflow" / "Snakefile").is_file() and (ROOT / "config" / "README.md").is_file()
    settings = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))["usage"]
    assert set(settings) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert settings["software-stack-deployment"]["conda"] is True and settings["report"] is True
    assert settings["mandatory-flags"]["flags"] == []


def test_the_page_of_all_keys_is_fresh():
    assert (ROOT / "config" / "README.md").read_text(encoding="utf-8") == command("schema", "--markdown").out, "run: make schema"


def test_the_page_of_all_keys_has_every_key_once_in_its_group_and_each_link_leads_to_a_group():
    schema = Config.model_json_schema()
    page = key_page(schema)
    sections = dict(re.findall(r"^## (\w[\w ]*)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    groups = {"The whole config": schema} | {name.removesuffix("Settings"): group for name, group in schema["$defs"].items()}
    assert set(sections) == set(groups)
    for name, group in groups.items():
        rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.*) \| (.+) \|$", sections[name], re.MULTILINE)
        assert [key for key, *_ in rows] == list(group["properties"])
        assert {key for key, _, default, _ in rows if default == "**required**"} == set(group.get("required", []))
    assert set(re.findall(r"\]\(#([\w-]+)\)", page)) <= {name.lower() for name in groups}


def test_the_config_of_the_catalogue_is_the_default_config():
    assert (ROOT / "config" / "config.yaml").resolve() == (ROOT / "config.yaml").resolve()


def test_the_test_config_is_the_smoke_preset_written_out():
    smoke = load(str(ROOT / "config.yaml"), str(ROOT / "configs" / "smoke.yaml"))
    written = load(str(ROOT / ".test" / "config.yaml"))
    assert written.results_dir == "results"
    assert written.model_dump(exclude={"results_dir"}) == smoke.model_dump(exclude={"results_dir"})


def test_every_profile_is_in_the_page_of_profiles():
    text = (ROOT / "profiles" / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert named == sorted(path.parent.name for path in (ROOT / "profiles").glob("*/config.yaml"))


def snakemake(folder: Path, *arguments: str) -> str:
    """Run snakemake in a folder outside of the repository, and return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "FMBENCH_TRACKING_URI": "off"}
    words = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.workflow
def test_a_plain_snakemake_on_the_test_config_plans_everything(tmp_path):
    shutil.copy(ROOT / ".test" / "config.yaml", tmp_path)
    output = snakemake(ROOT, "--directory", str(tmp_path), "--dry-run")
    planned = dict(re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE))
    assert planned["all"] == planned["page"] == planned["table4"] == "1" and planned["train"] == "6"


@pytest.mark.workflow
def test_another_workflow_uses_fmbench_as_a_module_from_its_own_folder(tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(ROOT / "examples" / "module", folder)
    planned = snakemake(folder, "--dry-run")
    assert re.search(r"^ranking +1$", planned, re.MULTILINE) and re.search(r"^fmbench_train +2$", planned, re.MULTILINE)
    snakemake(folder)
    with open(folder / "benchmark" / "table1.csv") as stream:
        rows = [row for row in csv.DictReader(stream) if row["status"] == "ok"]
    best = sorted(rows, key=lambda row: float(row["nll_mean"]))
    ranking = [line.split(",") for line in (folder / "ranking.csv").read_text().splitlines()]
    assert ranking == [[row["dataset"], row["method"], row["nll_mean"]] for row in best] and len(best) == 2
