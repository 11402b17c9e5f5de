"""How far a run is: the state of each job from its output, its log and the processes of this machine."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fmbench.config.config import Config
from fmbench.workflow.jobs import Job, jobs
from fmbench.workflow.needs import Needs, read_needs

DONE, RUNNING, FAILED, UNFINISHED, LEFT = STATES = ("done", "running", "failed", "unfinished", "left")
"""``unfinished``: it has a log without an end and no process on this machine. It was killed, or it runs on another machine."""

_TOOK = re.compile(r"\btook ([\d.]+) s, ")
_TIME = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")
_ERROR = re.compile(r"fmbench: error: |[\w.]*(?:Error|Exception)\b")
_TAIL = 4096
"""Bytes at the end of a log that are read. Its last line is shorter."""


@dataclass(frozen=True)
class Found:
    """A job and what is known of it.

    Attributes:
        job: the job.
        state: one of :data:`STATES`.
        seconds: what it took, if it is done and its log says so.
        said: the last line of its log, without the time; empty if there is none.
    """

    job: Job
    state: str
    seconds: float | None
    said: str


def status(config: Config) -> list[Found]:
    """Return the state of every job of a run. A file that is there counts as done, also if its settings have changed."""
    results, running = Path(config.results_dir), logs_of_processes()
    return [_look(job, results, running) for job in jobs(config)]


def _look(job: Job, results: Path, running: set[str]) -> Found:
    log = results / job.log
    last = _last_line(log)
    if str(log.resolve()) in running:
        return Found(job, RUNNING, None, last)
    took = _TOOK.search(last)
    if (results / job.output).exists():
        return Found(job, DONE, float(took[1]) if took else None, last)
    if not last or took:  # a job whose files were removed after it had finished
        return Found(job, LEFT, None, last)
    return Found(job, FAILED if _ERROR.match(last) else UNFINISHED, None, last)


def _last_line(log: Path) -> str:
    try:
        with open(log, "rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL))
            lines = stream.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return _TIME.sub("", next((line for line in reversed(lines) if line.strip()), ""))


def logs_of_processes() -> set[str]:
    """Return the logs that processes of this machine write: the value of ``--log`` of each command of fmbench. Linux only."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode("utf-8", errors="surrogateescape").split("\0")
            if "fmbench" in words and "--log" in words[:-1]:
                log = words[words.index("--log") + 1]
                found.add(str(Path(os.readlink(entry / "cwd"), log).resolve()))
        except OSError:  # it has ended, or belongs to somebody else
            continue
    return found


class TimeLeft(NamedTuple):
    """The time of the jobs that are not done.

    Attributes:
        seconds: if one job runs at a time.
        alike: the number of jobs that are estimated by done ones.
        planned: the number of jobs that are estimated by the plan, because none like them is done.
        unknown: the number of jobs that are not in ``seconds``.
    """

    seconds: float
    alike: int
    planned: int
    unknown: int


def time_left(found: Iterable[Found], needs: Needs | None = None) -> TimeLeft:
    """Estimate the time of the jobs that are not done, from the done ones.

    A job takes as long as the mean of the done jobs of its rule on the same data set with the same method; if there are none, of
    its rule on the same data set, and then of its rule. If none of its rule is done, it takes as long as the plan has counted.
    """
    found = list(found)
    known: dict[tuple[str, ...], list[float]] = {}
    for one in found:
        if one.seconds is not None:
            for key in _alike(one.job):
                known.setdefault(key, []).append(one.seconds)
    left = [one.job for one in found if one.state != DONE]
    alike = [next((known[key] for key in _alike(job) if key in known), None) for job in left]
    planned = [_planned(job, needs) for job, like in zip(left, alike, strict=True) if like is None]
    by_plan = [seconds for seconds in planned if seconds is not None]
    took = [sum(like) / len(like) for like in alike if like is not None]
    return TimeLeft(sum(took) + sum(by_plan), len(took), len(by_plan), len(planned) - len(by_plan))


def _planned(job: Job, needs: Needs | None) -> float | None:
    """The seconds that the plan has counted for a job; None for a job that was not counted."""
    dataset, method = (*job.of.split("/"), "")[:2]
    return None if needs is None or not dataset else needs.seconds(job.rule, dataset, method)


def _alike(job: Job) -> list[tuple[str, ...]]:
    """What jobs have in common with this one, the most first."""
    parts = job.of.split("/")[:2] if job.of.count("/") == 2 else []
    return [(job.rule, *parts[:n]) for n in range(len(parts), -1, -1)]


def text(found: list[Found], config: Config, command: str) -> str:
    """Return the status in words: a table by rule, what runs and failed, the time left, and the command to give next.

    Args:
        command: the command that continues the run.
    """
    results = config.results_dir
    count = Counter(one.state for one in found)
    parts = ", ".join(f"{count[state]} {state}" for state in STATES if count[state])
    lines = [f"{results}: {len(found)} jobs: {parts}", *_table(found)]
    for state in (RUNNING, FAILED, UNFINISHED):
        for one in found:
            if one.state == state:
                name = f"{one.job.rule} {one.job.of}".strip()
                said = one.said.removeprefix(f"{name}: ") or "it has just begun"
                lines.append(f"{state}: {name}: {said}" + (f"; log: {results}/{one.job.log}" if state != RUNNING else ""))
    return "\n".join([*lines, *_end(found, count, config, command)])


def _table(found: list[Found]) -> list[str]:
    by_rule: dict[str, Counter[str]] = {}
    for one in found:
        by_rule.setdefault(one.job.rule, Counter())[one.state] += 1
    shown = [state for state in STATES if any(states[state] for states in by_rule.values())]
    width = max(map(len, by_rule))
    head = f"  {'rule':<{width}}" + "".join(f"{state:>12}" for state in shown)
    return [head, *(_line(rule, states, shown, width) for rule, states in by_rule.items())]


def _line(rule: str, states: Mapping[str, int], shown: list[str], width: int) -> str:
    return f"  {rule:<{width}}" + "".join(f"{states[state] or '':>12}" for state in shown)


def _end(found: list[Found], count: Mapping[str, int], config: Config, command: str) -> list[str]:
    if count[DONE] == len(found):
        return [
            f"everything is done; the page is {config.results_dir}/index.html",
            f"next: fmbench reproduce --results {config.results_dir}",
        ]
    left = time_left(found, read_needs(config))
    how = {"as jobs like them took": left.alike, "by the plan": left.planned}
    used = [words if how[words] == left.alike + left.planned else f"{how[words]} {words}" for words in how if how[words]]
    if used:
        lines = [f"time left for {left.alike + left.planned} jobs: about {_duration(left.seconds)} if one runs at a time, "]
        lines[0] += " and ".join(used)
    else:
        lines = ["no job like those left is done yet; `fmbench plan` estimates a whole run"]
    if used and left.unknown:
        lines.append(f"{left.unknown} other jobs are left, and no job like them is done yet")
    if count[RUNNING]:
        return [*lines, "next: wait; `fmbench status` shows the state again"]
    return [*lines, f"next: {command}"]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
