"""``claims.csv``, ``claims.md`` and ``claims.tex``, written from the lines of evidence."""

from dataclasses import asdict, fields
from pathlib import Path

import pandas as pd

from fmbench.report.claims.claim import Claim, Finding, Lines, short
from fmbench.report.claims.evaluation import evaluate_claims
from fmbench.report.claims.registry import CLAIMS
from fmbench.report.claims.rows import in_prose
from fmbench.report.claims.sources import read_sources
from fmbench.report.claims.verdicts import ALPHA, FAILS, HOLDS, INCONCLUSIVE, LEVEL, combine, combine_needs
from fmbench.report.layout import Markup, block, heading, latex_table, markdown_table, notes, tex, write_all

COLUMNS = ["claim", "title", "dataset", "about", "part", "against", "statistic", "unit", "value", "low", "high", "threshold"]
COLUMNS += ["claimed", "interval", "seeds", "coverage", "paper", "verdict", "seeds_to_decide", "decided_as", "why"]
_BOLD = {HOLDS: Markup("**holds**"), FAILS: Markup("**fails**")}


def write_claims(results: Path, out: Path) -> Lines:
    """Tests every claim on a results folder, writes ``out`` (CSV) and beside it ``.md`` and ``.tex``, and returns the lines."""
    lines = evaluate_claims(read_sources(results))
    write_all(out, frame(lines), markdown(lines), latex(lines))
    return lines


def claim_lines(results: Path) -> pd.DataFrame:
    """The rows of ``claims.csv`` of a results folder, made from its parquet files."""
    return frame(evaluate_claims(read_sources(results)))


def frame(lines: Lines) -> pd.DataFrame:
    """The lines as a tidy table, each with its claim's title."""
    titles = {claim.number: claim.title for claim in CLAIMS}
    table = pd.DataFrame([asdict(line) for line in lines], columns=[f.name for f in fields(Finding)])
    table.insert(1, "title", table.claim.map(titles))
    table["seeds_to_decide"] = ["" if line.needs is None else str(line.needs) for line in lines]
    table["decided_as"] = ["" if line.needs is None else line.needs.verdict for line in lines]
    return table[COLUMNS]


def markdown(lines: Lines) -> str:
    """The page for reading: an overview, how to read it, and a section for each claim."""
    header, rows = _overview(lines)
    text = ["# Claims", "", "The claims of Lipman et al. (2023), tested on the numbers of this run.", ""]
    text += markdown_table(header, [[_BOLD.get(cell, cell) for cell in row] for row in rows])
    text += notes(_notes(lines))[:-1]
    for claim in CLAIMS:
        text += _section(claim, [line for line in lines if line.claim == claim.number])
    return "\n".join(text) + "\n"


def latex(lines: Lines) -> str:
    """The overview as a booktabs table."""
    header, rows = _overview(lines)
    names = " & ".join(map(tex, header)) + r" \\"
    bold = {HOLDS: rf"\textbf{{{HOLDS}}}", FAILS: rf"\textbf{{{FAILS}}}"}
    cells = [[bold.get(cell, tex(cell)) for cell in row] for row in rows]
    return "\n".join(latex_table("rll" + "l" * (len(header) - 3), [names], cells))


def _overview(lines: Lines) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the overview: a verdict for each claim, as a whole and by data set."""
    datasets = list(dict.fromkeys(line.dataset for line in lines if line.dataset not in ("", "all")))
    with_oracles = any(line.about == "oracle" for line in lines)
    header = ["", "Claim", "Where", "Verdict", *datasets, *(["Oracles (path alone)"] if with_oracles else [])]
    rows = []
    for claim in CLAIMS:
        own = [line for line in lines if line.claim == claim.number]
        groups = [[line for line in own if line.dataset == d and line.about == "trained"] for d in datasets]
        groups += [[line for line in own if line.about == "oracle"]] if with_oracles else []
        whole = [line for line in own if line.about == "overall"]
        rows.append([str(claim.number), claim.title, claim.where, *map(_together, [whole, *groups])])
    return header, rows


def _together(lines: Lines) -> str:
    """The verdict of several lines in words; empty without lines."""
    if not lines:
        return ""
    verdict = combine(line.verdict for line in lines)
    needs = combine_needs((line.verdict, line.needs) for line in lines)
    return f"{verdict}; {needs.words}" if needs else verdict


def _notes(lines: Lines) -> list[str]:
    """The notes below the overview: how to read verdicts and intervals."""
    notes = [
        "A claim holds if every tested line of evidence holds, on every data set. It fails if one line fails.",
        f"Intervals in the evidence are {LEVEL * 100:g} % intervals over seeds unless a line says otherwise: Student's t on the "
        "values of the seeds, differences paired by seed. Ratios are judged on a logarithmic scale.",
        f"If a claim is false, a run says that it holds with a probability of at most {ALPHA * 100:g} %, because every test must "
        f"be significant. If it is true, a run says that it fails with a probability of at most {ALPHA * 100:g} %, because a "
        "line fails only after Holm's correction over all tests of the claim. Both rates are for normal values. docs/claims.md "
        "has those of other distributions, by simulation.",
    ]
    if any(line.verdict == INCONCLUSIVE and line.needs for line in lines):
        notes.append(
            "A number of seeds is a rough guide to how many would settle an inconclusive verdict, and which way, if differences "
            "and spreads stay as they are in this run. One failing line is enough to make a claim fail, so the smallest number "
            "of the lines on the wrong side counts. If there is none, all lines must hold, and the largest number counts."
        )
    notes.append("These verdicts are about this run, not the paper's. Other data sets, budgets or networks may give others.")
    return notes


def _section(claim: Claim, lines: Lines) -> list[str]:
    """The section of one claim: what it says, how it is tested, and its lines of evidence."""
    whole = next(line for line in lines if line.about == "overall")
    text = ["", heading(2, f"{claim.number}. {claim.title}: {whole.verdict}"), ""]
    text += [block(f"{claim.statement} ({claim.where})"), ""]
    text += [block(f"How it is tested: {claim.how}"), "", block(f"Overall: {whole.verdict}. {whole.why}."), ""]
    if claim.in_paper:
        text += [block(f"In the paper: {claim.in_paper()}."), ""]
    rest = [line for line in lines if line.about != "overall"]
    if rest:
        columns = ["Data set", "Part of the claim", "Statistic", "Value", "Seeds", "Paper", "Verdict", "Reason"]
        text += markdown_table(columns, map(_row, rest))
    return text


def _row(line: Finding) -> list[str]:
    what = f"oracles: {line.part}" if line.about == "oracle" else line.part
    against = f" against {in_prose(line.against)}" if line.against else ""
    value = _value(line) + (" (over samples)" if line.interval == "samples" else "")
    seeds = str(line.seeds) if line.seeds else ""
    verdict = _BOLD.get(line.verdict, line.verdict)
    return [line.dataset, f"{what}{against}", line.statistic, value, seeds, short(line.paper), verdict, line.why]


def _value(line: Finding) -> str:
    if line.value is None:
        return ""
    bounds = "" if line.low is None or line.high is None else f" [{short(line.low)}, {short(line.high)}]"
    return f"{short(line.value)}{bounds} {line.unit}"
