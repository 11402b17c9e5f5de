"""Timing in turns: A, B, A, B, ..., so that whatever else the machine does falls on both alike."""

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import torch

Work = Callable[[], Any]
Clock = Callable[[], float]
Timer = Callable[[int], float]
"""Does its work a number of times, and gives the seconds that one took, in the mean."""


def seconds(work: Work, repeats: int, clock: Clock = time.perf_counter) -> float:
    """Seconds for one call, the mean of ``repeats``."""
    start = clock()
    for _ in range(repeats):
        work()
    return (clock() - start) / repeats


def in_turn(ours: Work, theirs: Work, rounds: int, least: float = 0.01, clock: Clock | None = None) -> dict[str, float]:
    """Medians of both in milliseconds, and median and quartiles of the ratio theirs / ours of each round.

    Each call of a round is repeated until it takes about ``least`` seconds, the same number of times on both sides.
    ``clock`` is the wall's; a processor's counts every thread and nothing that others do.
    """
    clock = clock or time.perf_counter
    return _summary(_rounds(partial(seconds, ours, clock=clock), partial(seconds, theirs, clock=clock), rounds, least))


def against_apart(ours: Work, make: Callable[..., Work], *arguments: Any, rounds: int, least: float = 0.01) -> dict[str, float]:
    """:func:`in_turn` in processors' time, against ``make(*arguments)`` in a process of its own (:class:`Apart`).

    The peer is started ``STARTS`` times, each for its share of the rounds: where a process lies in memory alone is 1 to 2 %.
    """
    found: list[tuple[float, float]] = []
    timer = partial(seconds, ours, clock=time.process_time)
    for start in range(STARTS):
        with Apart(make, *arguments) as peer:
            found += _rounds(timer, peer, (rounds + start) // STARTS, least)
    return _summary(found)


STARTS = 3


def _rounds(ours: Timer, theirs: Timer, rounds: int, least: float) -> list[tuple[float, float]]:
    ours(1), theirs(1)  # warm up
    repeats = max(1, round(least / max(ours(1), 1e-9)))
    first, second = [], []
    for k in range(rounds):
        # Who goes first changes too.
        for mine in (True, False) if k % 2 else (False, True):
            (first if mine else second).append((ours if mine else theirs)(repeats))
    return list(zip(first, second, strict=True))


def _summary(found: list[tuple[float, float]]) -> dict[str, float]:
    low, middle, high = statistics.quantiles([theirs / ours for ours, theirs in found], n=4, method="inclusive")
    return {
        "ours_ms": 1e3 * statistics.median(ours for ours, _ in found),
        "theirs_ms": 1e3 * statistics.median(theirs for _, theirs in found),
        "ratio": middle,
        "ratio_low": low,
        "ratio_high": high,
    }


class Apart:
    """The work that ``make(*arguments)`` gives, in a process of its own, by that process's own time; a :data:`Timer`.

    For a peer on the CPU: what our command line sets for its whole process (:mod:`fmbench.system.heap`) is not set there. Both
    processes have one thread, and one waits while the other works; inside ``with`` both are kept on one core, since two need not
    be equally fast.

    Raises:
        RuntimeError: the other process has ended; what it said is above.
    """

    def __init__(self, make: Callable[..., Work], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, self._there = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._there, make, *arguments), daemon=True)
        self._cores: set[int] = set()

    def __enter__(self) -> Self:
        self._cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        try:
            if self._cores:
                os.sched_setaffinity(0, {max(self._cores)})  # and what is started now
            self._process.start()
        except BaseException:
            self._free()
            raise
        self._there.close()
        return self

    def __call__(self, repeats: int) -> float:
        try:
            self._pipe.send(repeats)
            found: float = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            raise RuntimeError(f"the peer's process ended with exit code {self._process.exitcode}") from None
        return found

    def __exit__(self, *error: object) -> None:
        self._pipe.close()
        self._process.join()
        self._free()

    def _free(self) -> None:
        if self._cores:
            os.sched_setaffinity(0, self._cores)


def _serve(pipe: Connection, make: Callable[..., Work], *arguments: Any) -> None:
    torch.set_num_threads(1)
    work = make(*arguments)
    with contextlib.suppress(EOFError, BrokenPipeError):  # closed, or killed, over there
        while True:
            pipe.send(seconds(work, pipe.recv(), time.process_time))


def machine(device: torch.device | None = None) -> dict[str, Any]:
    """What the figures depend on."""
    name = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = models[0].split(":", 1)[1].strip() if models else name
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device is not None and device.type == "cuda" else {}
    return gpu | {
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "cpu": name,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "load_average": list(os.getloadavg()),
    }


def arguments(
    description: str | None, devices: bool = False, parts: tuple[str, ...] = (), compiles: bool = False
) -> argparse.Namespace:
    """The command line of every script here, with further options where one may choose; one thread from here on."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    parser.add_argument("--rounds", type=int, default=21, help="how often each pair is run in turn; at least 2")
    if devices:
        parser.add_argument("--device", default="cpu", help="cpu or cuda")
    if parts:
        parser.add_argument("--only", choices=parts, help="one part of it")
    if compiles:
        parser.add_argument(
            "--compile", action="store_true", help="on the CPU: ours compiled; seconds to minutes for each network"
        )
    found = parser.parse_args()
    if found.rounds < 2:
        parser.error("--rounds must be at least 2: quartiles are of several")
    torch.set_num_threads(1)
    return found


def show(rows: list[dict[str, Any]], columns: list[str]) -> None:
    """Rows as a Markdown table."""

    def text(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    cells = [columns, *([text(row.get(c, "")) for c in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for k, line in enumerate(cells):
        print("| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |")
        if k == 0:
            print("|" + "|".join("-" * (w + 2) for w in widths) + "|")


def write(path: Path | None, before: dict[str, Any], tables: dict[str, list[dict[str, Any]]]) -> None:
    """Machine and tables to a JSON file, if one was asked for; ``before`` is :func:`machine` as it was at the start."""
    print(f"\n{before}")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        found = {"machine": before, "load_average_after": list(os.getloadavg()), **tables}
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
