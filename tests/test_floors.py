"""The floors of the package: a module imports from its own floor or below, and 0-2 are pure."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import fmbench

ROOT = Path(fmbench.__file__).parent

FLOORS = [
    {"rng", "broadcast", "errors", "names", "plugins", "cells", "milestones"},
    {"paths", "prediction", "solvers", "fields"},
    {"objectives", "methods", "likelihood", "oracle", "weighting", "networks", "metrics", "counting"},
    {
        "config",
        "specs",
        "benchmark",
        "share",
        "data",
        "files",
        "yamlfile",
        "cache",
        "checkpoint",
        "records",
        "tracking",
        "provenance",
        "progress",
        "codehash",
        "weights",
        "devices",
        "heap",
        "distributed",
        "inception",
        "extractors",
    },
    {"training", "stages", "report"},
    {"cli", "__main__", "workflow"},
]
"""A room is a module of the package, or a folder with everything in it."""

PURE = set().union(*FLOORS[:3])
IMPURE_IMPORTS = {"mlflow", "pandas", "pyarrow", "filelock", "time", "datetime", "tempfile", "shutil"}
FILE_CALLS = {"open", "read_text", "write_text", "read_bytes", "write_bytes"}

MODULES = {
    ".".join(("fmbench", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}


def floor(module: str) -> int:
    """The package itself holds nothing but its version, and lies on the ground."""
    if module == "fmbench":
        return 0
    room = module.split(".")[1]
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def imports(module: str, path: Path) -> Iterator[str]:
    """Everything a file imports, inside functions too: modules of the package by full name, others as written."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                # ``from fmbench import names`` names a module, ``from fmbench.paths import PATHS`` a thing in one.
                inner = f"{source}.{alias.name}"
                yield inner if inner in MODULES else source


def calls(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.func.id
            elif isinstance(node.func, ast.Attribute):
                yield node.func.attr


def test_no_room_is_on_two_floors():
    rooms = [room for rooms in FLOORS for room in rooms]
    assert len(rooms) == len(set(rooms))


def test_every_module_has_a_floor():
    known = set().union(*FLOORS)
    homeless = [module for module in MODULES if module != "fmbench" and module.split(".")[1] not in known]
    assert not homeless, f"assign these to a floor in {Path(__file__).name}: {homeless}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_come_from_the_same_floor_or_below(module):
    above = [
        target
        for target in imports(module, MODULES[module])
        if target.split(".")[0] == "fmbench" and floor(target) > floor(module)
    ]
    assert not above, f"{module} is on floor {floor(module)} and imports from above: {above}"


@pytest.mark.parametrize("module", [m for m in MODULES if (m + ".").split(".")[1] in {"", *PURE}])
def test_the_lower_floors_are_pure(module):
    impure = [target for target in imports(module, MODULES[module]) if target.split(".")[0] in IMPURE_IMPORTS]
    assert not impure, f"{module} is on a pure floor and imports {impure}"
    files = sorted(FILE_CALLS & set(calls(MODULES[module])))
    assert not files, f"{module} is on a pure floor and calls {files}"


def test_the_reader_of_imports_sees_what_it_should(tmp_path):
    """Were it blind to a form of import, the rule would hold of nothing."""
    source = tmp_path / "paths.py"
    source.write_text(
        "import fmbench.records\nfrom fmbench import names\nfrom fmbench.config import Config\n"
        "from . import rng\nfrom .solvers import fixed\nfrom .fields import Field\n"
        "def late():\n    from fmbench.stages import train\n    import pandas as pd\n    open('x').read()\n"
    )
    assert list(imports("fmbench.paths", source)) == [
        "fmbench.records",
        "fmbench.names",
        "fmbench.config",
        "fmbench.rng",
        "fmbench.solvers.fixed",
        "fmbench.fields",
        "fmbench.stages.train",
        "pandas",
    ]
    assert set(calls(source)) == {"open", "read"}
    package = tmp_path / "__init__.py"
    package.write_text("from .fixed import integrate\nfrom ..paths import PATHS\n")
    assert list(imports("fmbench.solvers", package)) == ["fmbench.solvers.fixed", "fmbench.paths"]
    assert (floor("fmbench.rng"), floor("fmbench.solvers.fixed"), floor("fmbench.cli")) == (0, 1, 5)
