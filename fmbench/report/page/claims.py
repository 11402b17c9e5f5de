"""The claims on the page: a row for each, with its verdict and a forest plot, which opens on its evidence."""

import io
from collections.abc import Mapping
from html import escape

import pandas as pd

from fmbench.report.claims.claim import short
from fmbench.report.claims.registry import CLAIMS
from fmbench.report.claims.rows import in_prose
from fmbench.report.claims.scale import PART, on_scale
from fmbench.report.claims.verdicts import FAILS, HOLDS, INCONCLUSIVE, NOT_TESTED
from fmbench.report.page.markup import folded, sections, table, to_html
from fmbench.report.page.strips import badge, definitions, each, number, part, strip

HEADER = ("Verdict", "Data set", "Part of the claim", "Statistic", "Value", "Threshold", "Seeds", "Paper", "Reason")
ACROSS = 4
"""The largest number of data sets with a column each; of more, every strip has the name of its data set."""
KEY = (
    "Each horizontal line is one piece of evidence with its interval over seeds. The vertical line is the threshold: "
    "<strong>right of it is what the paper claims</strong>. Each part of a claim has its own scale."
)
REFERENCE_KEY = " The pale band and the tick are the reference's interval and value."


def read_lines(csv: bytes) -> pd.DataFrame:
    """Return the rows of a ``claims.csv``. A missing text is empty, a missing number is NaN."""
    numbers = ("claim", "value", "low", "high", "threshold", "seeds", "coverage", "paper")
    lines = pd.read_csv(io.BytesIO(csv), dtype=str, keep_default_na=False)
    return lines.assign(**{name: pd.to_numeric(lines[name]) for name in numbers})


def claims_section(files: Mapping[str, bytes], reference: pd.DataFrame, verdicts: Mapping[int, str]) -> str:
    """Return the section on the claims as HTML: how many hold, a row for each, and how they are judged.

    Args:
        files: ``claims.csv`` and ``claims.md``.
        reference: the rows of the reference's ``claims.csv``; may be empty.
        verdicts: the reference's verdict on each claim as a whole.
    """
    lines = read_lines(files["claims.csv"])
    first, *rest = sections(files["claims.md"].decode())
    prose = {int(section.title.partition(".")[0]): section.body.partition("\n|")[0] for section in rest}
    placed = on_scale(pd.concat([lines.assign(run=True), _alike(reference, lines).assign(run=False)], ignore_index=True))
    datasets = [name for name in lines.dataset.unique() if name not in ("", "all")]
    rows = "".join(_claim(n, lines, placed, datasets, prose.get(n, ""), verdicts.get(n, "")) for n in lines.claim.unique())
    notes = to_html(first.body[first.body.find("\n* ") + 1 :])
    sides = "<small><span>← against</span><span>as claimed →</span></small>"
    names = "".join(f'<span data-dataset="{escape(name)}">{escape(name)}{sides}</span>' for name in datasets)
    columns = f'<span></span><span>Claim</span><span>Verdict</span><span class="cells">{names}</span>'
    top = f'<div class="columns" aria-hidden="true">{columns}</div>\n'
    style = f"sets{len(datasets)}" if len(datasets) <= ACROSS else "many"
    key = f'<p class="key">{KEY}{REFERENCE_KEY if len(reference) else ""} Open a claim for its numbers.</p>\n'
    html = f"{_tally(lines)}{key}" + f'<div class="claims {style}">\n{top}{rows}</div>\n'
    return f'<section id="claims">\n<h2>Claims</h2> {html}{folded("How the claims are judged", notes)}</section>\n'


def _alike(reference: pd.DataFrame, lines: pd.DataFrame) -> pd.DataFrame:
    """The reference's lines that this run has, too, with the claimed side of this run's."""
    if reference.empty:
        return reference
    key = [*PART, "against"]
    return reference.drop(columns="claimed", errors="ignore").merge(lines[[*key, "claimed"]], on=key)


def _tally(lines: pd.DataFrame) -> str:
    """How many claims have each verdict."""
    found = lines[lines.about == "overall"].verdict
    words = {HOLDS: ("holds", "hold"), FAILS: ("fails", "fail"), INCONCLUSIVE: ("is inconclusive", "are inconclusive")}
    words[NOT_TESTED] = ("is not tested here", "are not tested here")
    parts = []
    for verdict, (one, several) in words.items():
        count = int((found == verdict).sum())
        if count or verdict in (HOLDS, FAILS):
            parts.append(badge(verdict, f"{count} {one if count == 1 else several}"))
    return f'<p class="tally">Of the paper\'s {len(found)} claims, in this run {" ".join(parts)}</p>\n'


def _claim(claim: int, lines: pd.DataFrame, placed: pd.DataFrame, datasets: list[str], prose: str, reference: str) -> str:
    """One row: number, title, verdict and strips, and the evidence below it."""
    own = lines[lines.claim == claim]
    whole = own[own.about == "overall"].iloc[0]
    where = next((found.where for found in CLAIMS if found.number == claim), "")
    about = whole.seeds_to_decide if whole.seeds_to_decide.startswith(">") else f"about {whole.seeds_to_decide}"
    needs = f"<small>{escape(f'{whole.decided_as} at {about}')} seeds</small>" if whole.seeds_to_decide else ""
    then = f"<small>reference: {escape(reference)}</small>" if reference else ""
    drawn = placed[(placed.claim == claim) & (placed.about == "trained")]
    cells = f'<span class="cells">{"".join(_cell(drawn[drawn.dataset == name], name) for name in datasets)}</span>'
    if drawn.empty:
        text = definitions(own[own.about == "definition"]) or f"<span>{escape(whole.why)}</span>"
        cells = f'<span class="exact">{text}</span>'
    summary = (
        f'<summary><span class="number">{claim}</span>'
        f'<span class="title">{escape(whole.title)} <small>{escape(where)}</small></span>'
        f'<span class="said">{badge(whole.verdict)}{needs}{then}</span>{cells}</summary>\n'
    )
    evidence = own[own.about != "overall"]
    shown = to_html(prose) + (_evidence(evidence) if len(evidence) else "")
    return f'<details class="claim" id="claim{claim}">\n{summary}<div class="evidence">\n{shown}</div>\n</details>\n'


def _cell(lines: pd.DataFrame, dataset: str) -> str:
    """The strip of one claim on one data set."""
    mine = lines[lines.run]
    drawn = strip(mine, lines[~lines.run.astype(bool)]) if len(mine) else ""
    label = f"<small>{escape(dataset)}</small>" if drawn else ""
    return f'<span class="cell" data-dataset="{escape(dataset)}">{label}{drawn}</span>'


def _evidence(lines: pd.DataFrame) -> str:
    """The table of a claim's lines."""
    rows = []
    for line in each(lines):
        seeds = "over samples" if line.interval == "samples" else str(int(line.seeds)) if line.seeds else ""
        of = [line.dataset, part(line), line.statistic, number(line)]
        cells = map(escape, [*of, short(line.threshold), seeds, short(line.paper), line.why])
        attributes = {"data-dataset": line.dataset, "data-method": in_prose(line.against)}
        rows.append(({k: v for k, v in attributes.items() if v}, [badge(line.verdict), *cells]))
    return table(HEADER, rows)
