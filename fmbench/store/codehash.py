"""A hash of the code that a stage runs: a real edit changes it and reruns the stage, a new comment does not.

Snakemake does not look into the package. Each rule therefore has among its params the hash of the syntax trees, without
docstrings, of the stage's module and of every fmbench module that it imports, directly or not.
"""

import ast
import hashlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from fmbench.config.plugins import plugins_in

PACKAGE = Path(__file__).parent.parent

_STORE_PLUMBING = (
    *("cache", "codehash", "documents", "files", "limits", "parquet_pages", "provenance", "seal", "shapes", "temporary"),
    *("tracker", "tracking", "tracking_check", "tracking_runs", "tracking_store"),
)
PLUMBING = frozenset(
    f"fmbench.{name}"
    for name in (
        "errors",
        *(f"config.{name}" for name in ("base", "config", "execution", "folder", "hashing", "installation", "limits")),
        *(f"config.{name}" for name in ("messages", "numbers", "reading", "specs", "yamlfile")),
        *(
            f"config.{name}_settings"
            for name in ("evaluation", "feature", "method", "network", "solver", "super_resolution", "training")
        ),
        *(f"store.{name}" for name in _STORE_PLUMBING),
        "system.progress",
    )
)
"""Modules that cannot change a number, so a hash leaves them out. A better error message must not cost a day of training.

They hold messages, files, MLflow, and the reading of the config: what a config means for a job is in the job's spec, which
Snakemake compares by itself. What a job works out of its settings while it runs must not be in these modules. For this reason
:mod:`fmbench.config.cells` and :mod:`fmbench.config.snapshots` are modules of their own.
"""
DATA_FILES = {
    **dict.fromkeys(("table1", "table2", "table3", "table4", "claims"), "paper/*.csv"),
    "page": "page/page.*",
}
"""The files of ``fmbench/report`` that are no modules and part of a stage's hash: the paper's numbers; style and script."""


def stage_hash(stage: str, plugins: tuple[str, ...] = ()) -> str:
    """16 hex digits over the code of a stage and of plug-ins.

    Args:
        plugins: dotted names, such as ``mymodule:MyPath``.

    Raises:
        ValueError: there is no such stage.
    """
    digest = _digest(stage_module(stage), plugins)
    if stage in DATA_FILES:
        for file in sorted((PACKAGE / "report").glob(DATA_FILES[stage])):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def module_hash(module: str, plugins: tuple[str, ...] = ()) -> str:
    """16 hex digits over the code of a module of fmbench, of every fmbench module it imports, and of plug-ins."""
    return _digest(module, plugins).hexdigest()[:16]


def plugin_code(spec: Any) -> str:
    """16 hex digits over the code of the plug-ins that a spec names; empty if it names none."""
    names = plugins_in(spec)
    return _add_plugins(hashlib.sha256(), names).hexdigest()[:16] if names else ""


def plugin_files(spec: Any) -> set[str]:
    """The files of the plug-ins that a spec names, without files of fmbench itself."""
    modules = {name.partition(":")[0] for name in plugins_in(spec) if not name.startswith("fmbench.")}
    return {str(file) for module in modules for file in _plugin_sources(module)}


def _digest(module: str, plugins: tuple[str, ...]) -> "hashlib._Hash":
    digest = hashlib.sha256()
    for name in sorted(closure(module)):
        digest.update(f"{name}={_tree_hash(_source(name))};".encode())
    return _add_plugins(digest, plugins)


def _add_plugins(digest: "hashlib._Hash", plugins: tuple[str, ...]) -> "hashlib._Hash":
    """Feed the code of plug-ins to ``digest`` and return it."""
    for plugin in sorted(set(plugins)):
        for source in sorted(_plugin_sources(plugin.partition(":")[0])):
            digest.update(f"{source.name}={_tree_hash(source)};".encode())
    return digest


def _plugin_sources(module: str) -> set[Path]:
    """The files of a plug-in's module and of the modules it imports from its own top-level package or from its folders."""
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
            continue  # the check before training reports a missing module
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            continue
        source = Path(spec.origin)
        if found and name.partition(".")[0] != module.partition(".")[0] and source.parent not in {f.parent for f in found}:
            continue  # another library
        found.add(source)
        waiting += _all_imports(source, name if source.name == "__init__.py" else name.rpartition(".")[0])
    return found


def _all_imports(source: Path, package: str) -> list[str]:
    """Every name that a plug-in's file imports, outside of fmbench; relative imports are resolved from ``package``."""
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
    """The module or package of a stage: ``fmbench.stages.<stage>``, or ``fmbench.report.<stage>`` for tables and figures.

    Raises:
        ValueError: there is no such stage.
    """
    for module in (f"fmbench.stages.{stage}", f"fmbench.report.{stage}"):
        if _source(module).exists():
            return module
    raise ValueError(f"there is no stage {stage!r}")


def closure(module: str) -> set[str]:
    """``module`` and every fmbench module that it imports, directly or not, without :data:`PLUMBING`."""
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
    """The file of a module of fmbench, or the ``__init__.py`` of a package; it may not exist."""
    base = PACKAGE.parent.joinpath(*module.split("."))
    package = base / "__init__.py"
    return package if package.exists() else base.with_suffix(".py")


@cache
def _imports(source: Path) -> tuple[str, ...]:
    """The fmbench modules that a file of fmbench imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.Import):
            candidates = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            candidates = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        # "from fmbench.a import b" may name the module fmbench.a.b or something in fmbench.a.
        names.update(c for c in candidates if c.startswith("fmbench.") and _source(c).exists())
    return tuple(sorted(names))


@cache
def _tree_hash(source: Path) -> str:
    """The hash of a file's syntax tree without its docstrings."""
    tree = ast.parse(source.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            node.body = [s for s in node.body if not _is_text(s)] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_text(statement: ast.stmt) -> bool:
    """Whether a statement is a docstring or a string that documents an attribute."""
    return (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)
    )
