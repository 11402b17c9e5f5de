"""A hash of the code a stage depends on, so that a real edit reruns it and a comment does not.

Snakemake does not look into the package. Each rule therefore carries, among its params, the hash of the syntax trees
(docstrings removed) of the stage's module and of everything in fmbench it imports, directly or not.
"""

import ast
import hashlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from fmbench.config.specs import plugins

PACKAGE = Path(__file__).parent.parent

PLUMBING = frozenset(
    f"fmbench.{name}"
    for name in (
        "errors",
        *(f"config.{name}" for name in ("base", "config", "hashing", "numbers", "reading", "specs", "yamlfile")),
        *(f"config.{name}_settings" for name in ("evaluation", "feature", "method", "network", "training")),
        *(f"store.{name}" for name in ("cache", "codehash", "files", "provenance", "tracking")),
        "system.progress",
    )
)
"""Modules that cannot change a number: messages, files, MLflow, and the reading of the config, whose outcome is in a job's
spec already. They are left out, so that a better error message does not cost a day of training. What a job itself works out of
its settings must be in none of them: :mod:`fmbench.config.cells` and :mod:`fmbench.config.snapshots` are therefore modules
of their own."""


def stage_hash(stage: str, plugins: tuple[str, ...] = ()) -> str:
    """16 hex digits over the code of a stage and of plug-in modules given by dotted names."""
    digest = _digest(stage_module(stage), plugins)
    if stage in ("table1", "table2", "table3", "table4", "claims"):  # the paper's numbers are data, and part of what is shown
        for numbers in sorted((PACKAGE / "report" / "paper").glob("*.csv")):
            digest.update(numbers.read_bytes())
    return digest.hexdigest()[:16]


def module_hash(module: str, plugins: tuple[str, ...] = ()) -> str:
    """16 hex digits over the code of a module of fmbench, of all it imports, and of plug-ins."""
    return _digest(module, plugins).hexdigest()[:16]


def plugin_code(spec: Any) -> str:
    """16 hex digits over the code of what a spec names of somebody's own; empty where that is nothing."""
    own = plugins(spec)
    return _of_plugins(hashlib.sha256(), own).hexdigest()[:16] if own else ""


def plugin_files(spec: Any) -> set[str]:
    """The files of what a spec names of somebody's own, fmbench's apart: those behind :func:`plugin_code`."""
    return {
        str(file) for name in plugins(spec) if not name.startswith("fmbench.") for file in _plugin_sources(name.partition(":")[0])
    }


def _digest(module: str, plugins: tuple[str, ...]) -> "hashlib._Hash":
    digest = hashlib.sha256()
    for name in sorted(closure(module)):
        digest.update(f"{name}={_tree_hash(_source(name))};".encode())
    return _of_plugins(digest, plugins)


def _of_plugins(digest: "hashlib._Hash", plugins: tuple[str, ...]) -> "hashlib._Hash":
    for plugin in sorted(set(plugins)):
        for source in sorted(_plugin_sources(plugin.partition(":")[0])):
            digest.update(f"{source.name}={_tree_hash(source)};".encode())
    return digest


def _plugin_sources(module: str) -> set[Path]:
    """The files of a plug-in module and of what it imports from its own top-level package or folder."""
    found: set[Path] = set()
    waiting = [module]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            continue  # that it is not there is for the check to say
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            continue
        source = Path(spec.origin)
        if found and name.partition(".")[0] != module.partition(".")[0] and source.parent not in {f.parent for f in found}:
            continue  # somebody else's library
        found.add(source)
        waiting += _all_imports(source, name if source.name == "__init__.py" else name.rpartition(".")[0])
    return found


def _all_imports(source: Path, package: str) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return [n for n in names if n and not n.startswith("fmbench")]


def stage_module(stage: str) -> str:
    """The module of a stage: ``fmbench.stages.<stage>``, or ``fmbench.report.<stage>`` for tables and figures."""
    for module in (f"fmbench.stages.{stage}", f"fmbench.report.{stage}"):
        if _source(module).exists():
            return module
    raise ValueError(f"there is no stage {stage!r}")


def closure(module: str) -> set[str]:
    """``module`` and every fmbench module it imports, directly or not, less the plumbing."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name in PLUMBING:
            continue
        found.add(name)
        waiting += _imports(_source(name))
    return found


def _source(module: str) -> Path:
    base = PACKAGE.parent.joinpath(*module.split("."))
    package = base / "__init__.py"
    return package if package.exists() else base.with_suffix(".py")


@cache
def _imports(source: Path) -> tuple[str, ...]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.Import):
            candidates = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            candidates = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        # "from fmbench.metrics import frechet" may name a module or a thing in one.
        names.update(c for c in candidates if c.startswith("fmbench.") and _source(c).exists())
    return tuple(sorted(names))


@cache
def _tree_hash(source: Path) -> str:
    tree = ast.parse(source.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            node.body = [s for s in node.body if not _is_text(s)] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_text(statement: ast.stmt) -> bool:
    """Docstrings, and the strings that document an attribute."""
    return (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)
    )
