"""Files of the repository that must agree with each other and with the package."""

import ast
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import typer.main
import yaml
from user_code import command

import fmbench
from fmbench.cli.main import app
from fmbench.config import names
from fmbench.config.reading import parse
from fmbench.flow.objectives import build
from fmbench.report.figures import FIGURES
from fmbench.stages import theory

ROOT = Path(fmbench.__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
RULES = {
    name: text
    for file in sorted((ROOT / "workflow" / "rules").glob("*.smk"))
    for name, text in re.findall(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", file.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
}


# Dependencies and versions


def conda_dependencies() -> tuple[list[str], list[str]]:
    """What conda installs and what pip does."""
    plain = [d for d in ENVIRONMENT["dependencies"] if isinstance(d, str)]
    (pip,) = [d["pip"] for d in ENVIRONMENT["dependencies"] if isinstance(d, dict)]
    return plain, pip


def test_the_conda_environment_has_the_projects_dependencies_and_its_tests():
    wanted = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["test"]
    _, pip = conda_dependencies()
    assert sorted(pip) == sorted(wanted)


def test_the_conda_environment_has_the_projects_python():
    plain, _ = conda_dependencies()
    assert f"python{PROJECT['project']['requires-python']}" in plain
    assert "pip" in plain
    minimum = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert PROJECT["tool"]["mypy"]["python_version"] == minimum
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + minimum.replace(".", "")


def test_everything_the_package_imports_is_a_dependency():
    assert imported_by("fmbench") - named_by(PROJECT["project"]["dependencies"]) == set()


def test_everything_the_tests_and_benchmarks_import_is_a_dependency_or_an_extra_of_the_tests():
    named = named_by(PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["test"])
    beside = {path.stem for folder in ("tests", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.py")}
    beside |= {"jsonschema", "mpmath"}  # these come with snakemake and with torch
    assert imported_by("tests", "tools", "benchmarks") - named - beside == set()


def named_by(requirements: list[str]) -> set[str]:
    """What may be imported where these are installed."""
    named = {re.split(r"[>=<\[]", d)[0].replace("-", "_").lower() for d in requirements}
    return named | {"yaml", "sklearn", "skimage", "PIL", "matplotlib", "markdown_it"}  # matplotlib comes with seaborn


def imported_by(*folders: str) -> set[str]:
    """The top-level names of other people's modules that the files of ``folders`` import, inside functions too."""
    found: set[str] = set()
    for path in (file for folder in folders for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"fmbench"}


def test_there_is_one_version():
    assert PROJECT["project"]["version"] == fmbench.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == fmbench.__version__
    assert fmbench.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_citation_has_what_the_format_demands():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert re.fullmatch(r"1\.\d\.\d", str(citation["cff-version"]))
    assert citation["license"] == PROJECT["project"]["license"] == "MIT"
    assert "fmbench" in citation["title"]
    references = str(citation["references"])
    assert "Lipman" in references and "2210.02747" in references


def test_the_licence_is_there():
    assert "MIT License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["project"]["license-files"] == ["LICENSE"]


def test_the_data_of_the_package_is_packed():
    for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items():
        folder = ROOT / package.replace(".", "/")
        packed = {p for pattern in patterns for p in folder.glob(pattern)}
        others = {p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
        assert packed == others and packed


# The schema


def test_the_schema_is_fresh():
    said = command("schema")
    stored = (ROOT / "workflow" / "schemas" / "config.schema.json").read_text(encoding="utf-8")
    assert stored == said.out, "run: make schema"
    assert "schemas/config.schema.json" in (ROOT / "config.yaml").read_text(encoding="utf-8").splitlines()[0]


# Rules


def shell(rule: str) -> str:
    """The shell command of a rule, its string literals joined."""
    text = RULES[rule].split("shell:", 1)[1]
    return "".join(re.findall(r'"([^"]*)"', text))


def commands() -> dict[str, Any]:
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_the_rules_are_found():
    assert set(RULES) == {
        "prepare",
        "features",
        "train",
        "sample",
        "likelihood",
        "dequantisation",
        "sweep",
        "sample_quality",
        "learning_curve",
        "few_step",
        "trajectory",
        "gather",
        "theory",
        "collect",
        "table1",
        "table2",
        "table3",
        "table4",
        "claims",
        "figure",
        "page",
        "mlflow_summary",
        "mlflow_rebuild",
    }


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_calls_the_command_of_its_name_with_options_that_it_has(rule):
    line = shell(rule)
    # A training may be started by another program, for several processes.
    match = re.match(r"(?:python -m|\{params\.launcher\}) fmbench ([\w-]+) ", line)
    assert match is not None and match[1] == rule.replace("_", "-")
    parameters = commands()[match[1]].params
    known = {option: parameter for parameter in parameters for option in parameter.opts}
    used = re.findall(r"(--[\w-]+)", line)
    used += re.findall(r'"(--\w+)=', RULES[rule].split("params:", 1)[1])  # where an option is given once for each input
    assert used and set(used) <= set(known)
    demanded = {p.opts[0] for p in parameters if p.required and p.opts[0].startswith("--")}
    assert demanded <= set(used)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_thin_logged_and_quotes_what_it_passes(rule):
    text = RULES[rule]
    assert "log:" in text and "conda:" in text and "--log {log:q}" in shell(rule)
    assert "run:" not in text and "script:" not in text
    unquoted = set(re.findall(r"{([\w.]+)}", shell(rule)))
    # Numbers, a hash, a constrained name, and a command with its options, which are words of their own.
    assert unquoted <= {"threads", "params.code", "wildcards.figure", "params.launcher"}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_reruns_when_its_code_changes(rule):
    """The hash of the stage's code is among the params, or nothing would notice an edit."""
    assert re.search(r"^ +code=", RULES[rule], re.MULTILINE)


@pytest.mark.parametrize("rule", ["train", "sample", "likelihood", "dequantisation", "sweep"])
def test_dear_rules_are_measured(rule):
    assert "benchmark:" in RULES[rule] and "threads:" in RULES[rule] and "gpu=" in RULES[rule]


def test_every_figure_has_a_rule_and_a_caption():
    common = (ROOT / "workflow" / "rules" / "common.smk").read_text(encoding="utf-8")
    assert re.search(r"from fmbench.config.names import .*\bFIGURES\b", common) and set(names.FIGURES) == set(FIGURES)
    reports = ROOT / "workflow" / "report"
    captions = {*FIGURES, "table1", "table2", "table3", "table4", "claims", "equivalence", "page", "figure", "workflow"}
    assert {path.stem for path in reports.glob("*.rst")} == captions
    for name in captions:
        assert (reports / f"{name}.rst").read_text(encoding="utf-8").strip()
    used = set(re.findall(r'"../report/([^"]+)\.rst"', "".join(RULES.values())))
    assert used == {"figure", "table1", "table2", "table3", "table4", "claims", "equivalence", "page"}


def test_a_figure_is_written_in_every_format_with_its_data():
    outputs = re.findall(r'results\("figures/\{figure\}\.(\w+)"\)', RULES["figure"].split("log:", 1)[0])
    assert outputs == ["png", "svg", "pdf", "parquet"]
    for kind in ("png", "svg", "pdf"):
        assert f"--out {{output.{kind}:q}}" in RULES["figure"]


def test_every_file_that_a_figure_is_drawn_from_is_made_by_a_rule():
    outputs = {name for text in RULES.values() for name in re.findall(r'results\("([^"{}]+)"\)', text.split("log:", 1)[0])}
    if 'results("{gathered}.parquet")' in RULES["gather"].split("log:", 1)[0]:
        outputs |= {f"{kind}.parquet" for kind in names.GATHERED}
    assert {file for files in names.FIGURES.values() for file in files} <= outputs


def test_the_rule_of_the_theory_makes_what_its_stage_writes():
    made = set(re.findall(r'results\("theory/(\w+)\.parquet"\)', RULES["theory"].split("log:", 1)[0]))
    assert made == {name.lower() for name, value in vars(theory).items() if isinstance(value, pa.Schema)}
    assert "input:" not in RULES["theory"]


def test_the_rules_of_the_stages_give_the_code_and_the_spec_of_their_own_stage():
    """What is run under another stage's hash would not rerun when it is edited."""
    for rule in ("sample", "likelihood", "dequantisation", "sweep", "sample_quality"):
        assert f'model_spec("{rule}")' in RULES[rule] and f'model_code("{rule}")' in RULES[rule]
    assert "train_spec" in RULES["train"] and "train_code" in RULES["train"]
    own = {rule: rule for rule in ("table2", "table3", "table4", "claims", "theory", "page", "gather")}
    for rule, stage in (own | {"figure": "figures"}).items():
        assert f'code("{stage}"' in RULES[rule]


# What the documents say


def test_make_targets_that_the_documents_name_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", makefile, re.MULTILINE))
    for document in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        named = set(re.findall(r"(?:^|`)make ([a-z][a-z0-9-]*)", text, re.MULTILINE))
        assert named and named <= targets
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None and set(phony[1].split()) == targets
    assert {"table1", "test"} <= targets


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_files_that_the_documents_name_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    named = re.findall(r"`((?:fmbench|workflow|configs|tests)/[\w./-]*)`", text) + re.findall(r"\]\((\w[\w./-]+)\)", text)
    missing = [name for name in named if not name.startswith(("http", "results/")) and not (ROOT / name).exists()]
    assert not missing


def test_the_methods_that_the_readme_shows_can_be_built():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = [b for b in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if b.startswith("methods:")]
    methods = [m for m in yaml.safe_load(block)["methods"] if not (isinstance(m, dict) and "my_package" in m.get("use", ""))]
    values = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8")) | {"methods": methods}
    config = parse(values)
    assert len(config.methods) >= 3
    for method in config.methods:
        assert build(method.resolve()).t_max <= 1


def test_the_config_shows_a_method_of_ones_own_that_can_be_built():
    text = (ROOT / "config.yaml").read_text(encoding="utf-8")
    shown = re.findall(r"^# +- (\{name: .*\})$", text, re.MULTILINE)
    assert len(shown) >= 2
    for line in shown:
        values = yaml.safe_load(text) | {"methods": [yaml.safe_load(line)]}
        assert build(parse(values).methods[0].resolve())
