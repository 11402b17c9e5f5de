import sys

import pytest

from fmbench.system import progress
from fmbench.system.progress import Console


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    return clock


def test_lines_show_the_progress_the_rate_and_the_time_left(clock, capsys, tmp_path):
    console = Console("train digits/fm_ot/0", "lines", tmp_path / "log", interval=10)
    shown = console.progress(1000, "it")
    for step, seconds in ((100, 5), (200, 10), (300, 11), (500, 25)):
        clock.now = 100 + seconds
        shown.update(step, loss=0.123456)
    shown.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [  # every ten seconds, not at every update
        "train digits/fm_ot/0: 200/1000 it, loss 0.1235, 20 it/s, 40 s left",
        "train digits/fm_ot/0: 500/1000 it, loss 0.1235, 20 it/s, 25 s left",
    ]
    assert [line[20:] for line in (tmp_path / "log").read_text().splitlines()] == lines


def test_the_rate_of_a_resumed_run_counts_only_its_part(clock, capsys):
    shown = Console("x", "lines", interval=10).progress(1000, "it", start=600)
    clock.now += 20
    shown.update(800)
    assert capsys.readouterr().err == "x: 800/1000 it, 10 it/s, 20 s left\n"


def test_a_run_without_progress_has_infinite_time_left(clock, capsys):
    shown = Console("x", "lines", interval=10).progress(10, "it")
    clock.now += 20
    shown.update(0)
    assert "0/10 it, 0 it/s, inf s left" in capsys.readouterr().err


def test_a_bar_shows_loss_and_total_and_the_log_keeps_plain_lines(clock, capsys, tmp_path):
    console = Console("train", "bar", tmp_path / "log", interval=10)
    shown = console.progress(50, "it", start=20)
    clock.now += 20
    shown.update(40, loss=0.5)
    shown.close()
    console.say("done -> there")
    drawn = capsys.readouterr().err
    assert "40/50" in drawn and "loss=0.5" in drawn and "train: done -> there" in drawn
    log = (tmp_path / "log").read_text()
    assert "train: 40/50 it, loss 0.5, 1 it/s, 10 s left" in log and "train: done -> there" in log
    assert "\r" not in log


def test_mode_none_writes_only_to_the_log(clock, capsys, tmp_path):
    console = Console("x", "none", tmp_path / "deep" / "log", interval=10)
    console.say("hello")
    shown = console.progress(3, "it")
    clock.now += 20
    shown.update(1)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    assert len((tmp_path / "deep" / "log").read_text().splitlines()) == 2


@pytest.mark.parametrize(("terminal", "mode"), [(True, "bar"), (False, "lines")])
def test_auto_draws_a_bar_on_a_terminal_only(monkeypatch, terminal, mode):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    assert Console("x", "auto").mode == mode


def test_any_text_reaches_the_terminal_and_the_log(capsys, tmp_path):
    Console("prepare caf\udce9", "lines", tmp_path / "log").say("\x1b[2J 北京\nmore")
    assert capsys.readouterr().err == "prepare caf\\xe9: \\x1b[2J 北京\nmore\n"
    assert (tmp_path / "log").read_text(encoding="utf-8")[20:] == "prepare caf\\xe9: \\x1b[2J 北京\nmore\n"


class Full:
    """A stream that takes nothing, as a terminal whose window is closed or a file on a full disk."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        self.write("")

    def isatty(self) -> bool:
        return False


@pytest.mark.parametrize("mode", ["lines", "bar"])
@pytest.mark.parametrize("stream", [Full(), None], ids=["full", "closed"])
def test_a_terminal_that_takes_nothing_ends_no_work(clock, monkeypatch, tmp_path, mode, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    console = Console("train", mode, tmp_path / "log", interval=10)
    console.say("begins")
    shown = console.progress(20, "it")
    clock.now += 20
    shown.update(10)
    shown.close()
    assert [line[20:] for line in (tmp_path / "log").read_text().splitlines()] == [
        "train: begins",
        "train: 10/20 it, 0.5 it/s, 20 s left",
    ]
