"""Mermaid diagrams as pictures: the forge draws them in the browser, the site when it is built."""

import re
from collections.abc import Callable

import mermaidx

_DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def drawn(text: str, keep: Callable[[int, str], str]) -> str:
    """The document with a picture for each diagram. A click on it opens it alone, in its full size.

    Args:
        text: Markdown.
        keep: from the number of a diagram in the document and its SVG to the link of the picture.
    """
    numbers = iter(range(1, 1 + len(_DIAGRAM.findall(text))))

    def picture(match: re.Match[str]) -> str:
        svg = mermaidx.render(match[1]).svg()
        arrows = "; ".join(line.strip().replace("-->", "→") for line in match[1].splitlines()[1:] if line.strip())
        link = keep(next(numbers), svg)
        return f"[![Diagram: {arrows}]({link})]({link})"

    return _DIAGRAM.sub(picture, text)
