"""The pages of the library: one for each public module of the mathematics, which mkdocstrings fills from its docstrings."""

import ast
from pathlib import Path

from links import ROOT
from roles import ROLE

ROOMS = {"flow": "fmbench/flow", "flow.solvers": "fmbench/flow/solvers", "metrics": "fmbench/metrics"}


def library() -> tuple[dict[str, str], list]:
    """Every page by its path on the site, and their navigation."""
    pages, rooms = {}, []
    for name, folder in ROOMS.items():
        modules = sorted(p for p in (ROOT / folder).glob("*.py") if not p.stem.startswith("_"))
        place = f"library/{name.replace('.', '/')}"
        pages |= {f"{place}/{module.stem}.md": f"::: fmbench.{name}.{module.stem}\n" for module in modules}
        rows = [f"| [{module.stem}]({module.stem}.md) | {first_line(module)} |" for module in modules]
        table = ["| module | what it holds |", "|---|---|", *rows]
        pages[f"{place}/index.md"] = (
            f"# fmbench.{name}\n\n{first_line(ROOT / folder / '__init__.py')}\n\n" + "\n".join(table) + "\n"
        )
        rooms.append({name: [f"{place}/index.md", *({m.stem: f"{place}/{m.stem}.md"} for m in modules)]})
    pages["library/index.md"] = (
        "# Library\n\nThe mathematics of fmbench: functions of tensors and arrays, without files or global state."
        " [Methods and equations](../methods.md#the-mathematics-as-a-library) has an example.\n\n"
        + "\n".join(f"* [fmbench.{name}]({name.replace('.', '/')}/index.md)" for name in ROOMS)
        + "\n"
    )
    return pages, ["library/index.md", *rooms]


def first_line(module: Path) -> str:
    """The first line of a module's docstring, for a cell of a table."""
    text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return ROLE.sub(r"`\1`", text.partition("\n")[0]).replace("|", "\\|")
