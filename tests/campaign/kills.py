"""SIGKILL at random times of single jobs, then the job again: the same bytes as without a kill."""

import random
import time
from pathlib import Path

from children import in_child
from jobs import Job, clear, copy_of, jobs, result
from tiny_benchmark import Bench
from tries import Tries


def run(bench: Bench, work: Path, number: int, seed: int) -> Tries:
    """Kill jobs of a benchmark until ``number`` of them died. Each begins without its outputs, checkpoints and cells.

    A job is killed up to three times in a row and then left to end. What it wrote must be what it writes undisturbed.
    """
    tries = Tries("kills", "a job that was killed ends at its next call with the same bytes")
    dice, known = random.Random(seed), list(jobs(bench).values())
    report, usual = work.with_name(f"{work.name}.said"), {}
    while tries.answers.total() < number:
        job = dice.choice(known)
        if job.name not in usual:
            usual[job.name] = _seconds(bench, work, job, report)
        fresh = _without_outputs(bench, work, job)
        killed, said = 0, None
        for _ in range(dice.randint(1, 3)):
            said = in_child(lambda j=job, b=fresh: j.run(b), report, dice.uniform(0, 1.1 * usual[job.name]))
            if said is not None:  # it ended before the kill
                break
            killed += 1
        said = said or in_child(lambda j=job, b=fresh: j.run(b), report)
        what = f"{job.name}, killed {killed} times"
        if said is None or said.code:
            tries.fault(f"{what}: it ends with {said}")
        elif result(fresh, job) != result(bench, job):
            tries.fault(f"{what}: other bytes")
        else:
            tries.answers["killed, then the same bytes"] += killed
    return tries


def _seconds(bench: Bench, work: Path, job: Job, report: Path) -> float:
    fresh, began = _without_outputs(bench, work, job), time.monotonic()
    said = in_child(lambda: job.run(fresh), report)
    if said is None or said.code:
        raise RuntimeError(f"{job.name} fails undisturbed: {said}")
    return time.monotonic() - began


def _without_outputs(bench: Bench, work: Path, job: Job) -> Bench:
    """A copy of the benchmark in which the job has not run yet."""
    fresh = copy_of(bench, work)
    clear(fresh.results, job, memory=True)
    return fresh
