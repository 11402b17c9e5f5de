"""The layout that tables share: numbers with spreads, Markdown and LaTeX."""

import pytest
from latex_checks import balanced, columns_fit

from fmbench.report.layout import LATEX, NONE, beside, latex_table, markdown_table, notes, spread, tex


@pytest.mark.parametrize(
    ("mean", "std", "best", "text"),
    [
        (1.234, 0.05, False, "1.23 ± 0.05"),
        (1.234, None, True, "**1.23**"),
        (1.0, float("nan"), False, "1.00"),
        (None, None, True, NONE),
        (float("nan"), 1.0, True, NONE),
    ],
)
def test_a_number_with_its_spread(mean, std, best, text):
    assert spread(mean, std, 2, best=best) == text


def test_a_number_in_latex_and_the_papers_beside_it():
    assert spread(2.5, 0.25, 1, LATEX, True) == r"\textbf{2.5 $\pm$ 0.2}"
    assert spread(2.5, 0.25, 1, LATEX, True, 0.75) == r"\textbf{2.5 $\pm$ 0.2 [0.8]}"
    assert spread(2.5, None, 1, stderr=0.75) == "2.5 [0.8]" and spread(2.5, None, 1, stderr=float("nan")) == "2.5"
    assert (beside("1.0", 2.99), beside("1.0", None), beside("-", float("nan"))) == ("1.0 (2.99)", "1.0", "-")


def test_latex_escapes_every_character_of_its_own_once():
    assert tex(r"a\b{c}_d%e&f#g$h~i^j") == (r"a\textbackslash{}b\{c\}\_d\%e\&f\#g\$h\textasciitilde{}i\textasciicircum{}j")
    assert tex("1 ± 2 < 3\n≤ 4") == r"1 $\pm$ 2 $<$ 3 $\le$ 4"
    assert tex("plain, text (1.5)") == "plain, text (1.5)"


def test_a_cell_cannot_end_a_markdown_table():
    lines = markdown_table(["a", "b"], [["x | y", "two\nlines"]])
    assert lines == ["| a | b |", "|---|---|", r"| x \| y | two lines |"]
    assert notes(["one\ntwo"]) == ["", "* one two", ""]


def test_the_check_of_latex_sees_what_is_wrong():
    good = "\n".join(latex_table("lr", [r"a & b \\"], [["1", "2"], None, ["x", r"\&"]], ["a note"]))
    assert balanced(good) and columns_fit(good) and good.count(r"\midrule") == 2
    assert good.index(r"\end{tabular}") < good.index("a note")
    assert not balanced(good.replace(r"\end{tabular}", "")) and not balanced(good + "}")
    assert not columns_fit(good.replace(r"1 & 2", "1"))
