"""The gallery: every figure of the reference run with its caption, from the files that are there."""

import re

from links import REFERENCE, ROOT

CAPTIONS = ROOT / "workflow" / "report"
FOLDER = ROOT / REFERENCE


def gallery() -> str:
    """The Markdown of the gallery, a page in the folder of the reference run."""
    names = sorted(path.stem for path in FOLDER.glob("*.png"))
    paper = [name for name in names if name.startswith("fig")]
    parts = [
        "# Gallery",
        "Every figure of the reference run: the default config on a checkerboard and on handwritten digits. A click on a figure"
        " opens it as SVG. The [start page](../../../README.md#what-comes-out) has the claims and Table 1.",
        *(f"![Samples on their way from noise to data]({path.name})" for path in FOLDER.glob("*.gif")),
        "## Tables",
        "\n".join(f"* [{name}]({path.rpartition('/')[2]})" for table in tables() for name, path in table.items()),
        "## Figures of the paper",
        *map(figure, paper),
        "## Further figures",
        *map(figure, (name for name in names if name not in paper)),
    ]
    return "\n\n".join(parts) + "\n"


def tables() -> list[dict[str, str]]:
    """Title and path of each table of the reference run."""
    return [{title(path.stem): f"{REFERENCE}/{path.name}"} for path in sorted(FOLDER.glob("*.md")) if path.stem != "README"]


def others() -> list[dict[str, list[str | dict[str, str]]]]:
    """Name, first page and tables of each further reference run."""
    folders = sorted(path.parent for path in FOLDER.parent.glob("*/README.md") if path.parent != FOLDER)
    found: list[dict[str, list[str | dict[str, str]]]] = []
    for folder in folders:
        path = folder.relative_to(ROOT).as_posix()
        made = [{title(table.stem): f"{path}/{table.name}"} for table in sorted(folder.glob("*.md")) if table.stem != "README"]
        found.append({title(folder.name): [f"{path}/README.md", *made]})
    return found


def figure(name: str) -> str:
    """A figure under its title, with the caption of the report."""
    path = CAPTIONS / f"{name}.rst"
    caption = path.read_text(encoding="utf-8").strip() if path.exists() else ""
    image = f"![{title(name)}]({name}.png)"
    linked = f"[{image}]({name}.svg)" if (FOLDER / f"{name}.svg").exists() else image
    return f"### {title(name)}\n\n{linked}\n\n{caption.replace('``', '`')}"


def title(name: str) -> str:
    """``fig04_few_step`` is "Figure 4, few step", ``table1`` is "Table 1", ``solver_budget`` is "Solver budget"."""
    number = re.match(r"(fig|table)(\d+)_?", name)
    rest = name[number.end() if number else 0 :].replace("_", " ").replace("nfe", "NFE")
    if number is None:
        return rest[:1].upper() + rest[1:]
    return f"{'Figure' if number[1] == 'fig' else 'Table'} {int(number[2])}" + (f", {rest}" if rest else "")
