"""Files of the repository agree with each other and with the package: dependencies, versions, hooks, schema, documents."""

import ast
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from user_code import command

import fmbench
from fmbench.config.reading import parse
from fmbench.flow.objectives import build

ROOT = Path(fmbench.__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


# Dependencies and versions


RULES_ENVIRONMENT = yaml.safe_load((ROOT / "workflow" / "envs" / "fmbench.yml").read_text(encoding="utf-8"))
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()


def conda_dependencies(environment: dict[str, Any] = ENVIRONMENT) -> tuple[list[str], list[str]]:
    """Return what conda installs, and what pip installs."""
    plain = [d for d in environment["dependencies"] if isinstance(d, str)]
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    return plain, pip


def all_dependencies(environment: dict[str, Any]) -> list[str]:
    """Return what both install, with the names of PyPI, without Python and pip."""
    plain, pip = conda_dependencies(environment)
    named = [d.replace("pytorch>=", "torch>=") for d in plain if not re.match(r"(python|pip)\b", d)]
    return sorted([*named, *pip], key=str.lower)


def test_the_conda_environment_has_the_dependencies_and_those_of_the_tests():
    wanted = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["test"]
    assert [d.lower() for d in all_dependencies(ENVIRONMENT)] == sorted(d.lower() for d in wanted)


def test_the_environment_of_the_rules_has_what_the_package_imports():
    """But not snakemake, which no command of a rule imports."""
    wanted = [d for d in PROJECT["project"]["dependencies"] if not d.startswith("snakemake")]
    assert all_dependencies(RULES_ENVIRONMENT) == sorted(wanted)
    rules = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "workflow" / "rules").glob("*.smk"))
    assert set(re.findall(r'conda:\n +"([^"]+)"', rules)) == {"../envs/fmbench.yml"}


def test_the_lock_has_one_version_of_each_dependency_that_pyproject_allows():
    comment, *lines = LOCK
    assert comment.startswith("# ")
    locked = dict(line.split("==") for line in lines)
    assert (
        len(locked) == len(lines)
        and list(locked) == sorted(locked)
        and not {"fmbench", "pytest", "diffusers", "mkdocs"} & set(locked)
    )
    for requirement in map(Requirement, PROJECT["project"]["dependencies"]):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement


def test_the_container_has_a_pinned_base_and_does_not_run_as_root():
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    assert re.search(r"^ARG PYTHON=3\.\d+\.\d+-\S+\nFROM python:\$\{PYTHON\}$", text, re.MULTILINE)
    steps = re.findall(r"^(USER|RUN|COPY|CMD) (.*)", text, re.MULTILINE)
    users = [value for step, value in steps if step == "USER"]
    assert users == ["1000"] and [step for step, _ in steps][-2:] == ["USER", "CMD"]


def test_the_conda_environment_has_the_projects_python():
    plain, _ = conda_dependencies()
    assert f"python{PROJECT['project']['requires-python']}" in plain
    assert "pip" in plain
    minimum = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert PROJECT["tool"]["mypy"]["python_version"] == minimum
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + minimum.replace(".", "")


def test_every_import_of_the_package_is_a_dependency():
    assert imported_by("fmbench") - named_by(PROJECT["project"]["dependencies"]) == set()


def test_every_import_of_the_tests_tools_and_benchmarks_is_a_dependency_or_in_an_extra():
    extras = PROJECT["project"]["optional-dependencies"]
    named = named_by(PROJECT["project"]["dependencies"] + extras["test"] + extras["docs"]) | {"griffe"}  # by mkdocstrings[python]
    beside = {path.stem for folder in ("tests", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.py")}
    beside |= {"jsonschema", "mpmath"}  # these come with snakemake and with torch
    assert imported_by("tests", "tools", "benchmarks") - named - beside == set()


def named_by(requirements: list[str]) -> set[str]:
    """Return the names that may be imported where ``requirements`` are installed."""
    named = {re.split(r"[>=<\[]", d)[0].replace("-", "_").lower() for d in requirements}
    return named | {"yaml", "sklearn", "skimage", "PIL", "matplotlib", "markdown_it"}  # matplotlib comes with seaborn


def imported_by(*folders: str) -> set[str]:
    """Return the top-level names of other projects' modules that the files of ``folders`` import, inside functions too."""
    found: set[str] = set()
    for path in (file for folder in folders for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"fmbench"}


def test_there_is_one_version():
    assert PROJECT["project"]["dynamic"] == ["version"] and "version" not in PROJECT["project"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "fmbench.__version__"}
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == fmbench.__version__
    versions = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    released = f"{fmbench.__version__} - {citation['date-released']}"
    assert released in versions[:2] and versions[0] in ("Unreleased", released)


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


# Hooks and schema


def test_the_hooks_of_pre_commit_run_the_commands_of_make_lint():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe is not None
    commands = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repo["repo"] == "local" and [hook["entry"] for hook in repo["hooks"]] == commands
    for hook in repo["hooks"]:
        # No filter of files: each hook checks the whole tree on every commit.
        assert set(hook) == {"id", "name", "entry", "language", "pass_filenames"}
        assert hook["language"] == "system" and hook["pass_filenames"] is False


def test_the_schema_is_fresh():
    said = command("schema")
    stored = (ROOT / "workflow" / "schemas" / "config.schema.json").read_text(encoding="utf-8")
    assert stored == said.out, "run: make schema"
    assert "schemas/config.schema.json" in (ROOT / "config.yaml").read_text(encoding="utf-8").splitlines()[0]


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


def test_every_document_is_in_the_navigation_of_the_site():
    named = re.findall(r"^ +- [^:]+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= set(named), "add the page to nav in mkdocs.yml"
    for name in named:
        assert (ROOT / "docs" / name).exists() or (ROOT / name).exists(), f"mkdocs.yml names {name}"


def test_the_methods_in_the_readme_can_be_built():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = [b for b in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if b.startswith("methods:")]
    methods = [m for m in yaml.safe_load(block)["methods"] if not (isinstance(m, dict) and "my_package" in m.get("use", ""))]
    values = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8")) | {"methods": methods}
    config = parse(values)
    assert len(config.methods) >= 3
    for method in config.methods:
        assert build(method.resolve()).t_max <= 1


def test_the_methods_in_comments_of_the_config_can_be_built():
    text = (ROOT / "config.yaml").read_text(encoding="utf-8")
    shown = re.findall(r"^# +- (\{name: .*\})$", text, re.MULTILINE)
    assert len(shown) >= 2
    for line in shown:
        values = yaml.safe_load(text) | {"methods": [yaml.safe_load(line)]}
        assert build(parse(values).methods[0].resolve())
