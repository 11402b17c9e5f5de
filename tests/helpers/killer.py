"""Kills processes by SIGKILL, over and over. It forks, so that its children have torch imported already and can be killed safely.

test_checkpoint.py runs it. It prints one JSON object.
"""

import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # optimisers import this at their first step; imported here once for all children
from user_code import command

import fmbench.stages.collect
import fmbench.stages.oracles
import fmbench.stages.train  # noqa: F401 - the command imports them when it is called
from fmbench.store.checkpoint import CheckpointFolder
from fmbench.store.provenance import commit

EVENTS = {"open", "os.rename", "os.remove", "os.chmod", "os.link", "os.symlink", "os.truncate"}
"""Audit events that Python raises before it changes something in the file system."""
FILES = ("model.safetensors", "config.json", "loss_curve.parquet")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def half_written(at: int) -> None:
    """Let the process die when the ``at``-th checkpoint from now on is half written."""
    save, calls = torch.save, 0

    def dying(state: Any, path: Path) -> None:
        nonlocal calls
        calls += 1
        save(state, path)
        if calls == at:
            os.truncate(path, path.stat().st_size // 2)
            die()

    torch.save = dying


def life(work: Callable[[], int], seconds: float | None = None) -> int | None:
    """Run ``work`` in a child. Returns its exit code, or None if it was killed, by itself or after so many seconds."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)  # even if the child has ended, its id is not free before waitpid
    _, status = os.waitpid(pid, 0)
    return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


# Kills at every point of a save


def saved(folder: Path, number: int, dies_at: int = 0, half: bool = False) -> int:
    """Save a checkpoint with ``number`` in it, and die before the ``dies_at``-th change of the file system."""
    asked = 0

    def hook(event: str, _: Any) -> None:
        nonlocal asked
        if event in EVENTS:
            asked += 1
            if asked == dies_at:
                die()

    with CheckpointFolder(folder) as checkpoints:
        checkpoints.load("key")
        if half:
            half_written(1)
        sys.addaudithook(hook)
        checkpoints.save({"key": "key", "number": number, "weights": torch.full((1000,), float(number))})
        os._exit(0)


def points(folder: Path) -> list[dict[str, Any]]:
    """After ``before`` other saves, kill a save at each point in turn, then load, and save once more."""
    found = []
    for before in range(4):
        for dies_at in itertools.count(0):  # 0 for half a file
            where = folder / f"{before}-{dies_at}"
            for number in range(before):
                life(lambda where=where, number=number: saved(where, number))
            code = life(lambda where=where, b=before, d=dies_at: saved(where, b, d, half=d == 0))
            with CheckpointFolder(where) as checkpoints:
                state, complaints = checkpoints.load("key")
                files = sorted(path.name for path in where.iterdir())
                checkpoints.save({"key": "key", "number": 99})
                after = checkpoints.load("key")[0]
            found.append({"before": before, "dies_at": dies_at, "killed": code is None, "complaints": complaints, "files": files})
            found[-1] |= {"found": state and state["number"], "after": after and after["number"]}
            if code == 0:  # the save makes fewer changes than that
                break
    return found


# Kills anywhere during training


def training(folder: Path, spec: str, data: str, kills: int, seed: int) -> dict[str, Any]:
    """Kill trainings at random times, sometimes in the middle of a checkpoint. Each that reaches its end is compared."""
    dice = random.Random(seed)
    commit()  # asks git once for all children

    def train(name: str, half_at: int | None = None) -> int:
        if half_at is not None:
            half_written(half_at)
        arguments = ["--spec", spec, "--data", data, "--out", folder / name / "model", "--checkpoints", folder / name / "c"]
        said = command(
            "train", *arguments, "--log", folder / name / "log", "--progress", "lines", "--tracking-uri", "off", "--code", "0"
        )
        if said.code:
            (folder / name / "error").write_text(said.err)
        return said.code

    def bytes_of(name: str) -> list[bytes]:
        return [(folder / name / "model" / file).read_bytes() for file in FILES]

    began = time.monotonic()
    if life(lambda: train("whole")) != 0:
        raise RuntimeError((folder / "whole" / "error").read_text())
    whole = time.monotonic() - began
    expected, ended = bytes_of("whole"), []
    killed = inside = lives = 0
    while killed < kills or inside < 3 or lives:
        enough = killed >= kills and inside >= 3
        name = f"run{len(ended)}"
        half_at = dice.randrange(1, 12) if not enough and lives % 5 == 3 else None
        seconds = None if enough or half_at else dice.uniform(0, 0.5 * whole)
        code = life(lambda name=name, half_at=half_at: train(name, half_at), seconds)
        lives += 1
        if code is None:
            killed, inside = killed + (half_at is None), inside + (half_at is not None)
        elif code == 0:
            log = (folder / name / "log").read_text()
            ended.append(
                {"same": bytes_of(name) == expected, "lives": lives, "resumed": log.count("resumed from the checkpoint")}
            )
            ended[-1]["complaints"] = log.count("cannot be used")
            lives = 0
        else:
            raise RuntimeError(f"{name} ended with {code}: {(folder / name / 'error').read_text()}")
    return {"killed": killed, "inside": inside, "seconds": whole, "ended": ended}


if __name__ == "__main__":
    torch.set_num_threads(1)
    mode, where, *rest = sys.argv[1:]
    found: Any = points(Path(where)) if mode == "points" else training(Path(where), rest[0], rest[1], int(rest[2]), int(rest[3]))
    print(json.dumps(found))
