"""The verdicts of a claim's lines, with one correction over all tests that can make the claim fail.

A claim is a conjunction: every test of every line must go its way. Two errors are possible.

* A wrong "holds". The claim holds only if every test is significant at :data:`~fmbench.report.claims.verdicts.ALPHA`. If one part
  of the claim is not true, its test is significant with at most this probability, and so is the claim. No correction is needed
  (an intersection-union test).
* A wrong "fails". The claim fails if a single test is significant on the other side, so many tests have many chances. Holm's
  correction over all tests of the claim keeps the probability that any of them is wrong at ALPHA or below, whatever their
  dependence.

The lines on trained methods are one family. The lines on oracles are another, because they do not count for the claim.
"""

from collections.abc import Sequence

import numpy as np

from fmbench.report.claims.claim import Drafts, Evidence, Finding, Lines, Test, sentence
from fmbench.report.claims.verdicts import ALPHA, FAILS, HOLDS, INCONCLUSIVE, LEVEL, Needs, not_holding

UNDECIDED = "Not significant against"
OUTCOMES = {
    "below": {HOLDS: "Lower than", FAILS: "Higher than", INCONCLUSIVE: UNDECIDED},
    "above": {HOLDS: "Higher than", FAILS: "Lower than", INCONCLUSIVE: UNDECIDED},
}
"""The outcomes of a comparison in words, by the side that the claim puts the difference on."""


def decide(drafts: Drafts) -> Lines:
    """The lines of one claim with their verdicts, in the order given."""
    evidence = [draft for draft in drafts if isinstance(draft, Evidence)]
    families = {about: [line for line in evidence if line.about == about] for about in {line.about for line in evidence}}
    levels = {about: fails_levels(family) for about, family in families.items()}
    return [draft if isinstance(draft, Finding) else _decided(draft, *levels[draft.about]) for draft in drafts]


def fails_levels(family: Sequence[Evidence]) -> tuple[float, float, int]:
    """Holm's procedure on a family of lines.

    Returns:
        The largest p-value that is rejected (-1 if none is), the level that the next one would need, and the number of tests.
    """
    p = np.sort([test.p_fails for line in family for test in line.tests if test.seeds > 1])
    rejected = 0
    while rejected < len(p) and p[rejected] <= ALPHA / (len(p) - rejected):
        rejected += 1
    return float(p[rejected - 1]) if rejected else -1.0, ALPHA / max(len(p) - rejected, 1), len(p)


def _decided(line: Evidence, rejected_up_to: float, next_level: float, tests: int) -> Finding:
    """The line with its verdict, its reason, and the number of seeds that would decide it."""
    outcomes = [_outcome(test, rejected_up_to) for test in line.tests]
    verdict = FAILS if FAILS in outcomes else HOLDS if all(o == HOLDS for o in outcomes) else INCONCLUSIVE
    needs = _needs(line.tests, outcomes, next_level) if verdict == INCONCLUSIVE else None
    if not line.can_hold:
        verdict, needs = not_holding(verdict, needs)
    correction = f" (Holm's correction for {tests} tests)" if tests > 1 else ""
    texts = _reasons(line, outcomes, correction)
    if needs is not None:
        texts.append(sentence(f"{needs.words} at the difference seen"))
    return Finding(verdict=verdict, why=". ".join([*texts, *line.notes]), needs=needs, **line.columns)


def _outcome(test: Test, rejected_up_to: float) -> str:
    return HOLDS if test.p_holds <= ALPHA else FAILS if test.seeds > 1 and test.p_fails <= rejected_up_to else INCONCLUSIVE


def _needs(tests: Sequence[Test], outcomes: Sequence[str], next_level: float) -> Needs | None:
    """The seeds that would decide the open tests of a line: any that would fail, or else all that must hold.

    The result is None if that is unknown, for example because a test is exactly between its two verdicts.
    """
    if any(test.seeds < 2 for test in tests):
        return None
    failing = [test.seeds_for(next_level) for test in tests if test.towards == FAILS]
    if failing:
        return Needs(min(failing), FAILS)
    if any(test.towards == INCONCLUSIVE for test in tests):
        return None
    return Needs(max(t.seeds_for(ALPHA) for t, o in zip(tests, outcomes, strict=True) if o == INCONCLUSIVE), HOLDS)


def _reasons(line: Evidence, outcomes: Sequence[str], correction: str) -> list[str]:
    """The sentences on a line's tests: the clause of a single one, or where each outcome was found."""
    rival = f"{{}} {line.rival}" if line.rival else ""
    words_of = OUTCOMES[line.columns.get("claimed") or "below"]
    if not line.over:
        clause = line.tests[0].reason(outcomes[0], correction)
        if rival:
            return [f"{rival.format(words_of[outcomes[0]])}: {clause}"]
        return [sentence(f"not significant: {clause}" if outcomes[0] == INCONCLUSIVE and line.tests[0].seeds > 1 else clause)]
    found = []
    for outcome, words in words_of.items():
        names = [test.name for test, o in zip(line.tests, outcomes, strict=True) if o == outcome]
        if names:
            how = f" ({LEVEL * 100:g} % t intervals)" if outcome == HOLDS else correction if outcome == FAILS else ""
            found.append(f"{words} {line.rival} at {line.over} {', '.join(names)}{how}")
    return [*found, "One seed gives no interval"] if all(test.seeds == 1 for test in line.tests) else found
