"""Any text can be written to a terminal, a log and a page."""

import os

import pytest

from fmbench.errors import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain, with\ttab and\nnew line", "plain, with\ttab and\nnew line"),
        ("naïve 北京 \N{NO-BREAK SPACE}😀", "naïve 北京 \N{NO-BREAK SPACE}😀"),
        (os.fsdecode(b"caf\xe9.png"), r"caf\xe9.png"),  # a file name in Latin-1
        ("\ud800 half a pair", r"\ud800 half a pair"),
        ("\x1b[31mred\x1b]0;title\x07", r"\x1b[31mred\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),  # the same code in one character
        ("over\rwritten\b\x00\x7f", r"over\rwritten\x08\x00\x7f"),
        ("\u202egnp.exe \u2028next\u200b\ufeff", r"\u202egnp.exe \u2028next\u200b\ufeff"),
        ("\U000e0041", r"\U000e0041"),  # an invisible letter
    ],
)
def test_what_a_reader_should_not_get_is_escaped(text, shown):
    assert printable(text) == shown


def test_no_character_of_unicode_is_left_that_a_stream_cannot_take():
    everything = "".join(map(chr, range(0x110000)))
    shown = printable(everything)
    shown.encode("utf-8")
    assert printable(shown) == shown
    assert all(c.isprintable() or c.isspace() for c in shown) and not set(shown) & set("\x1b\x9b\r\x85\u2028")
