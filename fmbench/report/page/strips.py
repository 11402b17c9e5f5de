"""A forest plot in the page: for each claim and data set a strip with the intervals and verdicts of its lines of evidence."""

from html import escape
from typing import Any

import pandas as pd

from fmbench.report.claims.claim import short
from fmbench.report.claims.rows import in_prose
from fmbench.report.claims.verdicts import FAILS, HOLDS, INCONCLUSIVE, NOT_TESTED, tally

HALF, STEP = 116, 5.8
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
        reference: of the reference, on the same scale; each is a band and a tick behind the same line of this run.
    """
    said = f"{lines.dataset.iloc[0]}: {len(lines)} line{'s' if len(lines) > 1 else ''} of evidence, {tally(list(lines.verdict))}"
    beside = {_key(line): line for line in each(reference)}
    height = STEP * len(lines) + 4
    behind, drawn = "", ""
    for k, line in enumerate(each(lines)):
        y = round(STEP * (k + 0.5) + 2, 1)
        told = f"{part(line)}: {number(line)}, threshold {short(line.threshold)}: {line.verdict}"
        then = beside.get(_key(line))
        if then is not None:
            told += f". The reference has {number(then)}: {then.verdict}"
            behind += f'<g class="reference">{_interval(then, y)}<path class="tick" d="M{_x(then.at):.1f} {y - 2.5:g}v5"/></g>'
        mark = _interval(line, y) + shape(line.verdict, _x(line.at), y, 2.4)
        drawn += f'<g class="{CLASSES[line.verdict]}"><title>{escape(told)}</title>{mark}</g>'
    drawn = f'{behind}<path class="threshold" d="M{HALF} 0V{height:g}"/>{drawn}'
    label = escape(said)
    return f'<svg class="strip" role="img" aria-label="{label}" viewBox="0 0 {2 * HALF} {height:g}">{drawn}</svg>'


def definitions(lines: pd.DataFrame) -> str:
    """Return the numbers of a claim that follows from definitions, which has no threshold to draw."""
    return "".join(f"<span>{escape(f'{_text(line.statistic)} {number(line)}')}</span>" for line in each(lines))


def _interval(line: Any, y: float) -> str:
    """The interval of a line; empty if it has none."""
    if pd.isna(line.left) or pd.isna(line.right):
        return ""
    return f'<path d="M{_x(line.left):.1f} {y:g}H{_x(line.right):.1f}"/>'


def _x(place: float) -> float:
    return HALF + (HALF - 5) * place


def _key(line: Any) -> tuple[str, ...]:
    return (_text(line.dataset), _text(line.part), _text(line.against))


def _text(value: object) -> str:
    return str(value) if isinstance(value, str) else ""
