"""Kills, full disks and flipped bits in MLflow's database, and whether the store recovers from each by itself.

Each try runs in a fork of one process, which has imported MLflow already. :func:`campaign` runs the tries in a process of its
own, since a process with threads must not fork. ``tests/store/test_tracking_store.py`` runs a short form.
"""

import contextlib
import json
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from killer import die, life
from user_code import command

from fmbench.store.tracking_store import is_aside

KINDS = ("kill", "time", "full", "flip")
"""Killed before a chosen step of the first opening; killed at a random time; a full disk; a database with a flipped bit."""
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}
"""Audit events before Python changes something in the file system. With the SQL statements they are the steps of an opening."""


def campaign(kinds: Sequence[str], results: Path, folder: Path, tries: int, seed: int) -> list[dict[str, Any]]:
    """Damage ``tries`` stores and let ``fmbench mlflow-rebuild`` repair each.

    Args:
        kinds: some of :data:`KINDS`, which take turns.
        results: a results folder, whose trainings the rebuilt store must show.
        folder: an empty folder for the stores.

    Returns:
        For each try: ``kind``, ``at`` (the step, second, byte or bit), ``hurt`` (whether the process died or failed; True for
        a flipped bit), ``code`` and ``said`` (exit code and messages of the rebuild), ``runs`` (names of the trainings that the
        store shows), ``aside`` (names of the files that were set aside).
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "MLFLOW_DISABLE_TELEMETRY": "true"}
    arguments = [",".join(kinds), results, folder, tries, seed]
    done = subprocess.run(
        [sys.executable, __file__, *map(str, arguments)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def open_store(folder: Path, before_step: Callable[[int], None] = lambda step: None) -> int:
    """Open a store as a training does, and call ``before_step`` with the number of each step."""
    import sqlalchemy

    from fmbench.store.tracking import Mirror
    from fmbench.store.tracking_runs import RunIdentity

    steps = 0

    def step(*_: Any) -> None:
        nonlocal steps
        steps += 1
        before_step(steps)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS and str(folder) in str(arguments[0]):
            step()

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", step)
    sys.addaudithook(hook)
    mirror = Mirror(folder, None, lambda message: None)
    mirror.run(mirror.experiment("fmbench/first"), RunIdentity("train/first", "first/0", {}))
    return 0


def full_disk(folder: Path, limit: int) -> int:
    """Open a store where no file may grow beyond ``limit`` bytes. The exit code is 3 if that fails."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        return open_store(folder)
    except Exception:
        return 3


def recovered(results: Path, folder: Path) -> dict[str, Any]:
    """Rebuild the store in a process of its own, and look into it."""
    report = folder.parent / f"{folder.name}.json"

    def rebuild_and_look() -> int:
        from fmbench.store.tracking import Mirror

        said = command("mlflow-rebuild", "--results", results, "--tracking", folder, "--progress", "lines")
        client = Mirror(folder, None, lambda message: None, float("inf")).client
        names = {e.experiment_id: e.name for e in client.search_experiments()}
        of_trainings = [e for e, name in names.items() if name.startswith("fmbench/") and name != "fmbench/summary"]
        finished = [r.info.run_name for r in client.search_runs(of_trainings) if r.info.status == "FINISHED"]
        runs = sorted(name for name in finished if "/" in name)  # without their parents
        aside = sorted(p.name for p in folder.iterdir() if is_aside(p))
        report.write_text(json.dumps({"code": said.code, "said": said.err, "runs": runs, "aside": aside}))
        return 0

    if life(rebuild_and_look) != 0:
        raise RuntimeError(f"the store in {folder} cannot be opened")
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def _steps(folder: Path) -> int:
    """The number of steps of a first opening."""
    count = folder / "count"

    def work() -> int:
        seen = 0

        def note(step: int) -> None:
            nonlocal seen
            seen = step

        code = open_store(folder / "whole", note)
        count.write_text(str(seen))
        return code

    if life(work) != 0:
        raise RuntimeError("a store cannot be opened even without harm")
    return int(count.read_text())


def spread(first: int, last: int, tries: int, dice: random.Random) -> list[int]:
    """Numbers from ``first`` to ``last``, one at random in each of ``tries`` equal parts."""
    width = (last + 1 - first) / tries
    return [first + int((i + dice.random()) * width) for i in range(tries)]


def main(kinds: Sequence[str], results: Path, folder: Path, tries: int, seed: int) -> None:
    """Print a JSON object for each try."""
    import fmbench.store.tracking  # noqa: F401

    os.environ["MLFLOW_LOGGING_LEVEL"] = "CRITICAL"
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 - imported once for all forks

    dice = random.Random(seed)
    began = time.monotonic()
    steps = _steps(folder)
    seconds = time.monotonic() - began
    whole = folder / "whole" / "mlflow.db"
    if "flip" in kinds:
        recovered(results, whole.parent)
    with contextlib.closing(sqlite3.connect(whole)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # a page in the log would hide a flipped bit in the file
    in_steps, in_bytes = spread(1, steps, tries, dice), spread(0, whole.stat().st_size - 1, tries, dice)
    for i in range(tries):
        kind, store = kinds[i % len(kinds)], folder / str(i)
        if kind == "kill":
            at: float = in_steps[i]
            hurt = life(lambda store=store, at=at: open_store(store, lambda step: die() if step == at else None)) is None
        elif kind == "time":
            at = round(dice.uniform(0, seconds), 3)
            hurt = life(lambda store=store: open_store(store), at) is None
        elif kind == "full":
            at = in_bytes[i]
            hurt = life(lambda store=store, at=at: full_disk(store, at)) == 3
        else:
            shutil.copytree(whole.parent, store)
            at = flip(store / "mlflow.db", dice)
            hurt = True
        print(json.dumps({"kind": kind, "at": at, "hurt": hurt} | recovered(results, store)), flush=True)


def flip(path: Path, dice: random.Random) -> int:
    """Flip one bit of a file, in its first 100 bytes (sqlite's header) in half of the cases, and return its number."""
    size = path.stat().st_size
    bit = dice.randrange(800 if dice.random() < 0.5 else size * 8)
    with open(path, "r+b") as stream:
        stream.seek(bit // 8)
        (byte,) = stream.read(1)
        stream.seek(bit // 8)
        stream.write(bytes([byte ^ (1 << bit % 8)]))
    return bit


if __name__ == "__main__":
    main(sys.argv[1].split(","), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
