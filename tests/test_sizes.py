"""The sizes that CONTRIBUTING.md asks for: files of at most 300 lines, functions of at most 60 lines and 7 parameters.

A comment that gives the reason exempts a function (``# Long:``, ``# Many parameters:``) or a file (``# Long file:``).
"""

import ast
from collections.abc import Iterator

import pytest
from test_floors import MODULES

LINES, FUNCTION_LINES, PARAMETERS = 300, 60, 7


def excused(text: str, node: ast.FunctionDef, mark: str) -> bool:
    """Whether a comment with this mark is in the function, in the two lines above it, or at the top of the module."""
    lines = text.splitlines()
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    near = lines[max(0, first - 3) : node.end_lineno]
    return any(line.strip().startswith(f"# {mark}: ") for line in near)


def functions(text: str) -> Iterator[ast.FunctionDef]:
    yield from (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))


def parameters(node: ast.FunctionDef) -> int:
    """The number of parameters, ``self`` and ``cls`` left out."""
    named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return sum(argument.arg not in ("self", "cls") for argument in named)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_keeps_the_sizes_or_says_why_not(module):
    text = MODULES[module].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES or "# Long file: " in text
    # typer reads the options of a command from its parameters.
    free = module.startswith("fmbench.cli.")
    for node in functions(text):
        size, count = node.end_lineno - node.lineno + 1, parameters(node)
        assert size <= FUNCTION_LINES or excused(text, node, "Long"), f"{node.name} has {size} lines"
        assert count <= PARAMETERS or free or excused(text, node, "Many parameters"), f"{node.name} has {count} parameters"
