"""All claims tested on the sources: every line of evidence, and a line on each claim as a whole."""

from collections.abc import Sequence

from fmbench.report.claims.claim import SUPER_RESOLUTION, Claim, Finding, Lines, Sources, sentence
from fmbench.report.claims.decision import decide
from fmbench.report.claims.registry import CLAIMS
from fmbench.report.claims.sources import missing_source
from fmbench.report.claims.verdicts import NOT_TESTED, combine, combine_needs, not_holding, tally
from fmbench.report.table2.numbers import datasets


def evaluate_claims(sources: Sources, claims: Sequence[Claim] = CLAIMS) -> Lines:
    """The lines of every claim, with the line on the claim as a whole first."""
    found: Lines = []
    for claim in claims:
        missing = [name for name in claim.needs if name not in sources]
        if len(missing) == len(claim.needs):
            why = ". ".join(map(missing_source, missing))
            found.append(Finding(claim.number, "all", "overall", "", NOT_TESTED, why))
        else:
            lines = decide(claim.evaluate(_on(claim.about, sources)))
            found += [overall(claim, lines, missing), *lines]
    return found


def _on(about: str, sources: Sources) -> Sources:
    """The rows of the data sets that a claim is on. The paper's claims on generation say nothing of super-resolution."""
    super_resolved = datasets(sources["records"]) if "records" in sources else []
    return {
        name: rows[rows.dataset.isin(super_resolved) == (about == SUPER_RESOLUTION)] if "dataset" in rows else rows
        for name, rows in sources.items()
    }


def overall(claim: Claim, lines: Lines, missing: Sequence[str] = ()) -> Finding:
    """The line on the claim as a whole, from all its lines except those on oracles."""
    counted = [line for line in lines if line.about != "oracle"]
    verdict = combine(line.verdict for line in counted)
    needs = combine_needs((line.verdict, line.needs) for line in counted)
    partly = _tested_in_part(counted)
    if missing or partly:
        verdict, needs = not_holding(verdict, needs)
    counts = tally([line.verdict for line in counted])
    number = f"{len(counted)} line{'s' if len(counted) > 1 else ''} of evidence"
    texts = [f"{number}: {counts}" if counted else f"There are no rows of {claim.about} to test this claim"]
    texts += [sentence(f"{needs.words} at the differences seen")] if needs else []
    texts += [f"Only part of the claim is tested on {', '.join(partly)}"] if partly else []
    return Finding(claim.number, "all", "overall", "", verdict, ". ".join([*texts, *map(missing_source, missing)]), needs=needs)


def _tested_in_part(lines: Lines) -> list[str]:
    """The data sets that have both tested and untested lines, on which a claim cannot hold as a whole."""
    verdicts: dict[str, set[str]] = {}
    for line in lines:
        verdicts.setdefault(line.dataset, set()).add(line.verdict)
    return [dataset or "the definitions" for dataset, found in verdicts.items() if NOT_TESTED in found and len(found) > 1]
