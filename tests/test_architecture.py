"""Every name in docs/architecture.md exists, and its picture is the real import graph."""

import ast
import re
from pathlib import Path

import pytest
from test_floors import MODULES, ROOMS, imports, room

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))


def exists(name: str) -> bool:
    """Whether a path, perhaps with ``<placeholders>``, names a file or folder of the project."""
    return any(ROOT.glob(re.sub(r"<\w+>", "*", name).rstrip("/")))


def defined(file: Path) -> set[str]:
    """Functions, methods, classes, constants and names imported into a Python file, or the rules of a file of rules."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".smk":
        return set(re.findall(r"^rule (\w+):", text, re.MULTILINE))
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:fmbench|workflow|tests|docs)/[^`]*|config\.yaml)`", TEXT))))
def test_a_path_exists(name):
    assert exists(name)


@pytest.mark.parametrize(("name", "file"), re.findall(r"`(\w+)` in `([\w/]+\.(?:py|smk))`", TEXT))
def test_a_name_is_in_its_file(name, file):
    assert name in defined(ROOT / file)


STEPS = re.findall(r"^\| \d+\. .*? \| `([^`]+)` \| `(\w+)` \|$", SECTIONS["The life of one number"], re.MULTILINE)


@pytest.mark.parametrize(("file", "name"), STEPS)
def test_a_step_in_the_life_of_a_number_is_in_its_file(file, name):
    assert name in defined(ROOT / file)


def test_the_life_of_a_number_has_all_its_steps():
    numbers = re.findall(r"^\| (\d+)\. ", SECTIONS["The life of one number"], re.MULTILINE)
    assert numbers == [str(i) for i in range(1, 15)] and len(STEPS) == 13
    assert "likelihood: {batch: 360}" in (ROOT / "config.yaml").read_text(encoding="utf-8")


def test_the_table_has_every_room_in_its_order():
    cells = re.findall(r"^\| (`fmbench/.*?) \| ", SECTIONS["The rooms"], re.MULTILINE)
    rooms = [name for cell in cells for name in re.findall(r"`fmbench/(\w+)(?:/|\.py)`", cell)]
    assert len(cells) == 12 and sorted(rooms) == sorted(set(ROOMS) - {"__main__"})
    assert [ROOMS.index(r) for r in rooms if r != "workflow"] == sorted(ROOMS.index(r) for r in rooms if r != "workflow")


def test_the_picture_has_exactly_the_arrows_that_the_imports_need():
    """An arrow to every room that is imported from and is not below another of those."""
    graph: dict[str, set[str]] = {name: set() for name in ROOMS}
    for module, path in MODULES.items():
        targets = {room(t) for t in imports(module, path) if t in MODULES and t != "fmbench"}
        graph[room(module)] |= targets - {room(module)}

    def below(name: str) -> set[str]:
        return graph[name].union(*(below(target) for target in graph[name]))

    needed = {(a, b) for a in graph for b in graph[a] if not any(b in below(c) for c in graph[a] - {b})}
    drawn = set()
    for left, right in re.findall(r"^    (\w+) --> (.*)$", SECTIONS["The rooms"], re.MULTILINE):
        drawn |= {(left, target) for target in right.split(" & ")}
    assert drawn == {(a, b) for a, b in needed if a != "__main__"}


def outputs_of_rules() -> dict[str, set[str]]:
    """The files that each rule declares as outputs, below the results folder, with ``<placeholders>``; logs do not count."""
    found = {}
    for file in sorted((ROOT / "workflow" / "rules").glob("*.smk")):
        for name, body in re.findall(
            r"^rule (\w+):\n(.*?)(?=^\S|\Z)", file.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        ):
            declared = re.search(r"^    output:\n(.*?)^    \w+:", body, re.MULTILINE | re.DOTALL)
            paths = re.findall(r"results\(f?\"([^\"]+)\"\)", declared[1]) if declared else []
            found[name] = {re.sub(r"\{(\w+)\}", lambda match: f"<{match[1].lower()}>", path) for path in paths}
    return {name: paths for name, paths in found.items() if paths}


def test_the_results_folder_has_the_outputs_of_every_rule():
    listed = {}
    for name, cell in re.findall(r"^\| `(\w+)` \| (.*?) \|$", SECTIONS["The results folder"], re.MULTILINE):
        beside, _, apart = cell.partition("; also ")
        folder, files = re.fullmatch(r"(?:`([^`]+/)`: )?(.*)", beside).groups()
        names = re.findall(r"`([^`/]+\.\w+)`", files)
        listed[name] = {f"{folder or ''}{file}" for file in names} | set(re.findall(r"`([^`/]+\.\w+)`", apart))
    assert listed == outputs_of_rules()


def test_the_glossary_has_every_stage_of_a_data_set_or_a_model():
    table = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").partition("## Words")[0]
    rules = {name for name, paths in outputs_of_rules().items() if any("<dataset>" in p or "<model>" in p for p in paths)}
    assert len(rules) > 10 and rules <= set(re.findall(r"`(\w+)`", table))
