"""Verdicts of tests, lines and claims, against closed forms."""

import math
from dataclasses import replace

import pytest

from fmbench.report.claims.claim import Evidence, Finding
from fmbench.report.claims.decision import decide, fails_levels
from fmbench.report.claims.fisher import Counts
from fmbench.report.claims.rendering import frame
from fmbench.report.claims.student import Mean, mean_test
from fmbench.report.claims.verdicts import (
    ALPHA,
    FAILS,
    HOLDS,
    INCONCLUSIVE,
    NOT_TESTED,
    Needs,
    combine,
    combine_needs,
    not_holding,
    tally,
)

COLUMNS = {"claim": 1, "dataset": "d", "part": "p"}


def lines(*tests: Mean | Counts, about: str = "trained", **columns: object) -> list[Finding]:
    """Each test in a line of its own, decided together."""
    return decide([Evidence({**COLUMNS, "about": about}, (test,), **columns) for test in tests])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "below", "verdict", "seeds"),
    [
        ([-1.0, -1.1, -0.9, -1.2, -0.8, -1.0], True, HOLDS, ""),
        ([-1.0, -1.1, -0.9, -1.2, -0.8, -1.0], False, FAILS, ""),
        ([1.0, 1.1, 0.9, 1.2, 0.8, 1.0], True, FAILS, ""),
        ([-1.0, 1.1, -0.9, 1.2, -0.8, 1.0], True, INCONCLUSIVE, ">100"),
        # Two seeds: 12.7 standard errors must lie between the mean and the threshold.
        ([-1.00, -1.01], True, HOLDS, ""),
        # -1.5 with a standard deviation of 0.71: with 3 seeds 1.76 is needed, with 4 seeds 1.13.
        ([-1.0, -2.0], True, INCONCLUSIVE, "4"),
        ([1.0, 2.0], True, INCONCLUSIVE, "4"),
        ([-1000.0], True, INCONCLUSIVE, ""),
    ],
)
def test_a_verdict_by_the_values_of_the_seeds(values, below, verdict, seeds):
    (line,) = lines(mean_test(values, below=below))
    assert (line.verdict, "" if line.needs is None else str(line.needs)) == (verdict, seeds)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([-1.0, -2.0], "Not significant: with 2 seeds the 95 % t interval includes 0. About 4 seeds would make it hold"),
        ([1.0, 2.0], "Not significant: with 2 seeds the 95 % t interval includes 0. About 4 seeds would make it fail"),
        ([-1.0, -1.01], "With 2 seeds the 95 % t interval is below 0"),
        ([1.0, 1.01], "With 2 seeds the 95 % t interval is above 0"),
        ([-1.0], "The value is below 0, but one seed gives no interval"),
        ([-1.0, 1.1, -0.9, 1.0], "More than 100 seeds would make it fail at the difference seen"),
        (
            [-2.0, -2.0],
            "all 2 seeds have the same value, below 0, and the sign test is not significant. About 6 seeds would make it hold",
        ),
        ([-2.0] * 6, "All 6 seeds have the same value, below 0, and the sign test is significant"),
    ],
)
def test_the_reason_says_what_was_found(values, why):
    assert why in lines(mean_test(values))[0].why


def test_seeds_without_a_spread_are_judged_by_the_sign_test():
    """Two equal values do not show that the spread is 0, and rounding is no spread."""
    assert [lines(mean_test([-2.0 + 1e-15 * k for k in range(n)]))[0].verdict for n in (2, 5, 6)] == [
        INCONCLUSIVE,
        INCONCLUSIVE,
        HOLDS,
    ]
    test = mean_test([-2.0] * 6)
    assert (test.p_holds, test.p_fails) == (0.5**6, 1.0) and all(map(math.isnan, test.bounds))


def test_a_second_threshold_leaves_a_gap_in_which_nothing_is_shown():
    test = mean_test([-0.03, -0.031, -0.029, -0.03], -0.05, other_side=0.0)
    (line,) = lines(test)
    assert line.verdict == INCONCLUSIVE and line.needs is None
    assert "is above -0.05, but not above 0" in line.why
    assert lines(mean_test([0.03, 0.031, 0.029, 0.03], -0.05, other_side=0.0))[0].verdict == FAILS
    assert lines(mean_test([-0.08, -0.081, -0.079, -0.08], -0.05, other_side=0.0))[0].verdict == HOLDS


def with_p(p_fails: float) -> Mean:
    """A test of many seeds whose p-value for "fails" is given."""
    from scipy import stats

    n = 20
    return Mean(float(stats.t.isf(p_fails, n - 1)), math.sqrt(n), n, 0.0)


def test_holms_correction_is_that_of_its_definition():
    """Of 4 tests at 2.5 %: 0.005 < 0.025 / 4, 0.008 < 0.025 / 3, 0.0124 < 0.025 / 2, 0.03 > 0.025."""
    p = [0.03, 0.005, 0.0124, 0.008]
    found = lines(*map(with_p, p))
    assert [line.verdict for line in found] == [INCONCLUSIVE, FAILS, FAILS, FAILS]
    assert "Holm's correction for 4 tests" in found[1].why
    family = [Evidence({**COLUMNS, "about": "trained"}, (with_p(value),)) for value in p]
    largest, level, tests = fails_levels(family)
    assert (largest, level, tests) == (pytest.approx(0.0124), ALPHA, 4)
    # The first that is not rejected stops it, also for smaller levels after it.
    assert {line.verdict for line in lines(with_p(0.0063), with_p(0.0064), with_p(0.0065), with_p(0.02))} == {INCONCLUSIVE}
    assert lines(with_p(0.0063))[0].verdict == FAILS


def test_oracles_are_a_family_of_their_own():
    trained = [Evidence({**COLUMNS, "about": "trained"}, (with_p(0.0063),)) for _ in range(4)]
    oracle = Evidence({**COLUMNS, "about": "oracle"}, (with_p(0.0063),))
    assert [line.verdict for line in decide([*trained, oracle])] == [INCONCLUSIVE] * 4 + [FAILS]


def test_holds_needs_every_test_of_a_line_and_no_correction():
    both = (with_p(1 - 0.024), with_p(1 - 0.024))
    evidence = Evidence({**COLUMNS, "about": "trained"}, both, rival="DDPM", over="NFE")
    assert decide([evidence] * 10)[0].verdict == HOLDS
    one = replace(evidence, tests=(both[0], with_p(1 - 0.026)))
    assert decide([one])[0].verdict == INCONCLUSIVE
    assert decide([replace(evidence, can_hold=False)])[0].verdict == INCONCLUSIVE
    single = replace(evidence, tests=(mean_test([-1.0], name="4"), mean_test([-2.0, -2.1], name="8")))
    (line,) = decide([single])
    assert (line.verdict, line.needs) == (INCONCLUSIVE, None)
    assert line.why == "Lower than DDPM at NFE 8 (95 % t intervals). Not significant against DDPM at NFE 4"
    (line,) = decide([replace(evidence, tests=(mean_test([-1.0], name="4"), mean_test([-2.0], name="8")))])
    assert line.why == "Not significant against DDPM at NFE 4, 8. One seed gives no interval"


def test_the_number_of_seeds_is_the_smallest_that_is_significant():
    """With that many seeds of the same mean and spread the line is decided, with one fewer it is not."""
    values = [-1.0, -2.5, 0.2]
    (line,) = lines(mean_test(values))
    assert line.needs is not None
    seen = mean_test(values)

    def again(n: int) -> str:
        return lines(Mean(seen.mean, seen.deviation, n, 0.0))[0].verdict

    needed = int(line.needs.seeds)
    assert (again(needed - 1), again(needed)) == (INCONCLUSIVE, HOLDS)
    # For "fails" the family counts: the same difference on the other side needs more seeds among ten tests than alone.
    alone, *_ = lines(mean_test([-v for v in values]))
    among, *_ = lines(*[mean_test([-v for v in values])] * 10)
    assert alone.needs is not None and among.needs is not None
    assert alone.needs.verdict == among.needs.verdict == FAILS and among.needs.seeds > alone.needs.seeds == needed


def test_fishers_test_is_scipys():
    from scipy import stats

    test = Counts(8, 8, 1, 8, "said")
    assert test.p_fails == pytest.approx(stats.fisher_exact([[8, 0], [1, 7]], alternative="greater").pvalue)
    assert lines(test)[0].verdict == FAILS and lines(Counts(0, 8, 8, 8, "said"))[0].verdict == HOLDS
    (line,) = lines(Counts(0, 4, 2, 4, "0 of 4 and 2 of 4"))
    # Half of the trainings against none: 6 of 12 has p = 0.007, 5 of 10 0.016, 4 of 9 0.041 (half of 9, rounded to even).
    assert line.verdict == INCONCLUSIVE and str(line.needs) == "10" and "0 of 4 and 2 of 4, which is not significant" in line.why


def test_verdicts_are_combined():
    assert combine([HOLDS, HOLDS, NOT_TESTED]) == HOLDS
    assert combine([HOLDS, INCONCLUSIVE]) == INCONCLUSIVE
    assert combine([HOLDS, INCONCLUSIVE, FAILS]) == FAILS
    assert combine([NOT_TESTED]) == combine([]) == NOT_TESTED


def test_the_seeds_of_several_lines_are_combined():
    nine, many, four = Needs(9, HOLDS), Needs(math.inf, HOLDS), Needs(4, FAILS)
    assert combine_needs([(HOLDS, None), (INCONCLUSIVE, nine)]) == nine
    assert combine_needs([(INCONCLUSIVE, nine), (INCONCLUSIVE, many)]) == many
    # One failing line is enough.
    assert combine_needs([(INCONCLUSIVE, nine), (INCONCLUSIVE, four), (INCONCLUSIVE, None)]) == four
    assert combine_needs([(INCONCLUSIVE, nine), (INCONCLUSIVE, None)]) is None
    assert combine_needs([(FAILS, None), (INCONCLUSIVE, nine)]) is None
    assert not_holding(HOLDS, None) == (INCONCLUSIVE, None)
    assert not_holding(INCONCLUSIVE, nine) == (INCONCLUSIVE, None) and not_holding(INCONCLUSIVE, four) == (INCONCLUSIVE, four)
    assert (str(nine), nine.words, str(many), many.words) == (
        "9",
        "about 9 seeds would make it hold",
        ">100",
        "more than 100 seeds would make it hold",
    )
    assert four.words == "about 4 seeds would make it fail"


def test_a_line_exactly_between_its_verdicts_names_no_seeds():
    """No number of seeds would decide it at the difference seen."""
    for test in (mean_test([1.0, -1.0]), mean_test([0.10, 0.17, 0.12], 0.1, other_side=0.2)):
        (line,) = lines(test)
        assert test.towards == INCONCLUSIVE and line.verdict == INCONCLUSIVE and line.needs is None


def test_the_table_says_which_way_more_seeds_would_decide():
    table = frame([*lines(mean_test([-1.0, -2.0])), *lines(mean_test([1.0, 2.0])), *lines(mean_test([-1.0, -1.01]))])
    assert list(zip(table.seeds_to_decide, table.decided_as, strict=True)) == [("4", HOLDS), ("4", FAILS), ("", "")]


def test_a_finding_has_a_known_verdict_and_a_reason():
    with pytest.raises(ValueError, match="a verdict is one of holds, fails"):
        Finding(1, "d", "trained", "", "true", "because")
    with pytest.raises(ValueError, match="needs a reason"):
        Finding(1, "d", "trained", "", HOLDS, "")


def test_a_tally_counts_every_verdict_in_grammar():
    assert tally([HOLDS, FAILS, HOLDS]) == "2 hold, 1 fails"
    assert tally([INCONCLUSIVE, FAILS, FAILS, NOT_TESTED]) == "2 fail, 1 inconclusive, 1 not tested here"
