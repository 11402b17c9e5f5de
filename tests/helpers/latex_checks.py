"""Checks of LaTeX text."""

import re


def balanced(text: str) -> bool:
    """Braces and environments are closed in the order they were opened, outside escapes."""
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            opened.append(name)
        elif not opened or opened.pop() != name:
            return False
    return depth == 0 and not opened


def columns_fit(text: str) -> bool:
    """Every row of every tabular has the columns that it declares."""
    for columns, body in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        for line in body.splitlines():
            if line.endswith(r"\\") and len(re.findall(r"(?<!\\)&", line)) != len(columns) - 1:
                return False
    return r"\begin{tabular}" in text
