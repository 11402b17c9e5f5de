"""A forest plot in the page: for each claim and data set a strip with the intervals and verdicts of its lines of evidence."""

from html import escape
from typing import Any

import pandas as pd

from fmbench.report.claims.claim import short
from fmbench.report.claims.rows import in_prose
from fmbench.report.claims.verdicts import FAILS, HOLDS, INCONCLUSIVE, NOT_TESTED

HALF, STEP = 116, 6.5
"""Half the width of a strip, and the distance between lines, in the units of its drawing."""
CLASSES = {HOLDS: "holds", FAILS: "fails", INCONCLUSIVE: "inconclusive", NOT_TESTED: "untested"}
"""The style of each verdict, in ``page.css``."""
_SHAPES = {
    HOLDS: '<circle cx="{x:g}" cy="{y:g}" r="{r:g}"/>',
    FAILS: '<path d="M{x:g} {y:g}m-{r:g} -{r:g}l{d:g} {d:g}m-{d:g} 0l{d:g} -{d:g}"/>',
    INCONCLUSIVE: '<path d="M{x:g} {y:g}m0 -{t:g}l{r:g} {t:g}l-{r:g} {t:g}l-{r:g} -{t:g}z"/>',
    NOT_TESTED: '<path d="M{x:g} {y:g}m-{r:g} 0h{d:g}"/>',
}


def shape(verdict: str, x: float, y: float, r: float) -> str:
    """Return the shape of a verdict as SVG: a disc holds, a cross fails, a diamond is inconclusive, a dash is not tested."""
    return _SHAPES[verdict].format(x=round(x, 1), y=round(y, 1), r=r, d=2 * r, t=round(1.3 * r, 2))


def each(lines: pd.DataFrame) -> list[Any]:
    """Return the lines as named tuples."""
    return list(lines.itertuples(index=False))


def badge(verdict: str, text: str = "") -> str:
    """Return a verdict as HTML, by shape, colour and words."""
    drawn = f'<svg viewBox="0 0 12 12" aria-hidden="true">{shape(verdict, 6, 6, 4)}</svg>'
    return f'<span class="verdict {CLASSES[verdict]}">{drawn}{escape(text or verdict)}</span>'


def number(line: Any) -> str:
    """Return the value of a line with its interval and unit, as text."""
    bounds = f" [{short(line.low)}, {short(line.high)}]" if pd.notna(line.low) and pd.notna(line.high) else ""
    return f"{short(line.value)}{bounds} {_text(line.unit)}".strip()


def part(line: Any) -> str:
    """Return the part of the claim that a line is on, as text: "NLL against DDPM"."""
    against = f" against {in_prose(line.against)}" if _text(line.against) else ""
    return f"{'oracles: ' if line.about == 'oracle' else ''}{_text(line.part)}{against}"


def strip(lines: pd.DataFrame, reference: pd.DataFrame) -> str:
    """Return the strip of one claim on one data set as SVG. The line in the middle is the threshold, the claimed side is right.

    Args:
        lines: of this run, on a scale (:func:`fmbench.report.claims.scale.on_scale`).
        reference: of the reference, on the same scale; each is drawn pale below the same line of this run.
    """
    counts = [f"{count} {verdict}" for verdict in CLASSES if (count := int((lines.verdict == verdict).sum()))]
    said = f"{lines.dataset.iloc[0]}: {len(lines)} line{'s' if len(lines) > 1 else ''} of evidence, {', '.join(counts)}"
    beside = {_key(line): line for line in each(reference)}
    step = STEP + 3.5 if beside else STEP
    height = step * len(lines) + 4
    drawn = f'<path class="threshold" d="M{HALF} 0V{height}"/>'
    for k, line in enumerate(each(lines)):
        y = step * k + STEP / 2 + 2
        told = f"{part(line)}: {number(line)}, threshold {short(line.threshold)}: {line.verdict}"
        pale = f'<g class="reference">{_mark(beside[_key(line)], y + 4, 1.8)}</g>' if _key(line) in beside else ""
        drawn += f'{pale}<g class="{CLASSES[line.verdict]}"><title>{escape(told)}</title>{_mark(line, y, 2.6)}</g>'
    label = escape(said)
    return f'<svg class="strip" role="img" aria-label="{label}" viewBox="0 0 {2 * HALF} {height}">{drawn}</svg>'


def definitions(lines: pd.DataFrame) -> str:
    """Return the numbers of a claim that follows from definitions, which has no threshold to draw."""
    return "".join(f"<span>{escape(f'{_text(line.statistic)} {number(line)}')}</span>" for line in each(lines))


def _mark(line: Any, y: float, r: float) -> str:
    """The interval and the shape of a line, or its shape alone."""
    interval = ""
    if pd.notna(line.left) and pd.notna(line.right):
        interval = f'<path d="M{_x(line.left):.1f} {y:g}H{_x(line.right):.1f}"/>'
    return interval + shape(line.verdict, _x(line.at), y, r)


def _x(place: float) -> float:
    return HALF + (HALF - 5) * place


def _key(line: Any) -> tuple[str, ...]:
    return (_text(line.dataset), _text(line.part), _text(line.against))


def _text(value: object) -> str:
    return str(value) if isinstance(value, str) else ""
