"""The rooms of the package: a module imports from its own room or from those below, and the rooms of mathematics are pure."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import fmbench

ROOT = Path(fmbench.__file__).parent

ROOMS = [
    "errors",
    "config",
    "flow",
    "store",
    "system",
    "networks",
    "metrics",
    "data",
    "training",
    "stages",
    "report",
    "workflow",
    "cli",
    "__main__",
]
"""The rooms, lowest first. A room is a module of the package, or a folder with everything in it."""
APART = {("report", "stages")}
"""Rooms that do not import from each other, whatever their order: (importer, imported)."""

PURE = ("fmbench.flow", "fmbench.networks", "fmbench.metrics")
IMPURE = ("fmbench.metrics.extractors", "fmbench.metrics.inception", "fmbench.metrics.extractor_weights")
"""Those of the pure rooms that read files: the weights of published feature extractors."""
IMPURE_IMPORTS = {"mlflow", "pandas", "pyarrow", "filelock", "time", "datetime", "tempfile", "shutil"}
FILE_CALLS = {"open", "read_text", "write_text", "read_bytes", "write_bytes"}

MODULES = {
    ".".join(("fmbench", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}


def room(module: str) -> str:
    """The package itself holds nothing but its version, and counts as the lowest room."""
    return module.split(".")[1] if "." in module else ROOMS[0]


def floor(module: str) -> int:
    return ROOMS.index(room(module))


def is_pure(module: str) -> bool:
    return module not in IMPURE and any(module == m or module.startswith(m + ".") for m in PURE)


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
                # ``from fmbench import names`` names a module, ``from fmbench.flow.paths import PATHS`` a thing in one.
                inner = f"{source}.{alias.name}"
                yield inner if inner in MODULES else source


def calls(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.func.id
            elif isinstance(node.func, ast.Attribute):
                yield node.func.attr


def test_every_room_is_known():
    assert sorted({room(module) for module in MODULES if module != "fmbench"}) == sorted(ROOMS)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_its_own_room_or_from_those_below(module):
    found = [target for target in imports(module, MODULES[module]) if target.split(".")[0] == "fmbench"]
    above = [target for target in found if floor(target) > floor(module)]
    assert not above, f"{module} is in the room {room(module)} and imports from above: {above}"
    across = [target for target in found if (room(module), room(target)) in APART]
    assert not across, f"{module} imports from {across}; {room(module)} and {room(across[0])} keep apart"


def test_no_two_modules_import_each_other():
    """Neither directly nor through others; what a function imports when it is called counts too."""
    graph = {m: {t for t in imports(m, path) if t in MODULES and t != m} for m, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module not in done:
            for target in sorted(graph[module]):
                visit(target, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", filter(is_pure, MODULES))
def test_the_rooms_of_mathematics_are_pure(module):
    impure = [target for target in imports(module, MODULES[module]) if target.split(".")[0] in IMPURE_IMPORTS]
    assert not impure, f"{module} is in a pure room and imports {impure}"
    files = sorted(FILE_CALLS & set(calls(MODULES[module])))
    assert not files, f"{module} is in a pure room and calls {files}"


def test_the_reader_of_imports_sees_what_it_should(tmp_path):
    """Were it blind to a form of import, the rule would hold of nothing."""
    source = tmp_path / "methods.py"
    source.write_text(
        "import fmbench.store.records\nfrom fmbench.config import names\nfrom fmbench.config.config import Config\n"
        "from . import plugins\nfrom ..flow.solvers import fixed\nfrom .cells import Cell\n"
        "def late():\n    from fmbench.stages import train\n    import pandas as pd\n    open('x').read()\n"
    )
    assert list(imports("fmbench.config.methods", source)) == [
        "fmbench.store.records",
        "fmbench.config.names",
        "fmbench.config.config",
        "fmbench.config.plugins",
        "fmbench.flow.solvers.fixed",
        "fmbench.config.cells",
        "fmbench.stages.train",
        "pandas",
    ]
    assert set(calls(source)) == {"open", "read"}
    package = tmp_path / "__init__.py"
    package.write_text("from .fixed import integrate\nfrom ..paths import PATHS\n")
    assert list(imports("fmbench.flow.solvers", package)) == ["fmbench.flow.solvers.fixed", "fmbench.flow.paths"]
    assert (floor("fmbench.errors"), floor("fmbench.flow.solvers.fixed"), floor("fmbench.cli")) == (0, 2, 12)
