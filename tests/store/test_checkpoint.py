"""Checkpoints survive damage, full disks, other settings and kill -9."""

import contextlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from user_code import command

from fmbench.config import specs
from fmbench.config.hashing import canonical
from fmbench.config.reading import parse
from fmbench.errors import CheckpointError
from fmbench.store.checkpoint import CheckpointFolder, differences
from fmbench.store.files import atomic
from fmbench.store.seal import NONE, check_seal


def state_of(number: int, key: str = "key") -> dict[str, Any]:
    return {"key": key, "number": number, "weights": torch.full((30,), float(number))}


def filled(folder: Path, numbers: int = 3, about: dict[str, Any] | None = None) -> None:
    with CheckpointFolder(folder, about) as checkpoints:
        for number in range(numbers):
            checkpoints.save(state_of(number))


def loaded(folder: Path, key: str = "key", about: dict[str, Any] | None = None) -> tuple[int | None, list[str]]:
    with CheckpointFolder(folder, about) as checkpoints:
        state, complaints = checkpoints.load(key)
    return None if state is None else state["number"], complaints


# Damage


def test_the_last_two_are_kept_and_torch_reads_them(tmp_path):
    filled(tmp_path, 5)
    assert sorted(p.name for p in tmp_path.glob("*.pt")) == ["checkpoint.previous.pt", "checkpoint.pt"]
    numbers = [torch.load(tmp_path / n, weights_only=True)["number"] for n in ("checkpoint.pt", "checkpoint.previous.pt")]
    assert numbers == [4, 3]


def test_a_flipped_bit_is_found_and_the_previous_checkpoint_is_used(tmp_path):
    """Most of a checkpoint is numbers. torch.load accepts any of them; the seal does not."""
    filled(tmp_path)
    newest = tmp_path / "checkpoint.pt"
    good = newest.read_bytes()
    torch_accepts = 0
    for position in [*range(0, len(good), 7), *range(len(good) - 80, len(good))]:
        newest.write_bytes(good[:position] + bytes([good[position] ^ (1 << position % 8)]) + good[position + 1 :])
        with pytest.raises(ValueError, match=r"it has no checksum|its content does not match its checksum"):
            check_seal(newest)
        if position % 70 == 0:
            number, (complaint,) = loaded(tmp_path)
            assert number == 1 and complaint.startswith(f"{newest} cannot be used (it")
            with contextlib.suppress(Exception):
                torch_accepts += torch.load(newest, weights_only=True) is not None
    assert torch_accepts > 5


def test_any_truncation_is_found(tmp_path):
    filled(tmp_path)
    newest = tmp_path / "checkpoint.pt"
    good = newest.read_bytes()
    for kept in [*range(0, len(good), 7), *range(len(good) - 80, len(good))]:
        newest.write_bytes(good[:kept])
        with pytest.raises(ValueError, match="it has no checksum: it is damaged"):
            check_seal(newest)
    assert loaded(tmp_path) == (1, [f"{newest} cannot be used ({NONE})"])
    newest.write_bytes(good + b"\0")
    assert loaded(tmp_path)[0] == 1


def test_damage_at_the_end_of_a_large_checkpoint_is_found(tmp_path):
    """The file is read in pieces of 1 MiB."""
    with CheckpointFolder(tmp_path) as checkpoints:
        checkpoints.save(state_of(0) | {"large": torch.zeros(2**19)})
    newest = tmp_path / "checkpoint.pt"
    content = bytearray(newest.read_bytes())
    content[-2000] ^= 1
    newest.write_bytes(content)
    with pytest.raises(ValueError, match="its content does not match its checksum"):
        check_seal(newest)


def test_two_checkpoints_are_kept_again_after_a_damaged_one(tmp_path):
    filled(tmp_path)
    newest = tmp_path / "checkpoint.pt"
    newest.write_bytes(b"half of a")
    with CheckpointFolder(tmp_path) as checkpoints:
        assert checkpoints.load("key")[0]["number"] == 1
        for number in (3, 4):
            checkpoints.save(state_of(number))
    newest.write_bytes(b"half of a")
    assert loaded(tmp_path)[0] == 3


class Planted:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_a_checkpoint_with_a_class_in_it_is_not_unpickled(tmp_path):
    with CheckpointFolder(tmp_path) as checkpoints:
        checkpoints.save(state_of(0) | {"more": Planted(tmp_path / "done")})
    number, (complaint,) = loaded(tmp_path)
    assert number is None and "cannot be used" in complaint and not (tmp_path / "done").exists()


# Other settings


ABOUT = {"spec": {"training": {"learning_rate": 0.1, "iterations": 5}, "seed": 0}, "versions": {"torch": "1"}}


def test_a_checkpoint_of_other_settings_is_refused_with_the_differences(tmp_path):
    filled(tmp_path, about=ABOUT)
    other = {"spec": {"training": {"learning_rate": 0.2, "iterations": 5, "clip_norm": 1.0}, "seed": 0}, "versions": {}}
    number, complaints = loaded(tmp_path, "new", other)
    assert number is None and len(complaints) == 2
    assert complaints[0] == (
        f"{tmp_path / 'checkpoint.pt'} cannot be used (it belongs to the training key, not new: spec.training.clip_norm was "
        "not set there and is 1.0 here, spec.training.learning_rate was 0.1 there and is 0.2 here, versions.torch was 1 there "
        "and is not set here)"
    )
    assert loaded(tmp_path, "key", other) == (2, [])


def test_many_differences_are_counted():
    ours = {str(i): i for i in range(9)}
    assert differences(ours, dict.fromkeys(ours, -1)).endswith("4 was 4 there and is -1 here, and 4 more")
    assert differences(ours, ours) == "no difference in the settings written down"


# Full disks


@pytest.mark.parametrize("limit", [0, 1000, 40_000, 300_000])
def test_a_full_disk_leaves_the_earlier_checkpoints(tmp_path, limit):
    """A limit on the size of files stands for a full disk: torch and Python fail in write in the same way."""
    filled(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.glob("*.pt")}
    large = state_of(3) | {"weights": torch.zeros(200_000)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with CheckpointFolder(tmp_path) as checkpoints:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(CheckpointError, match=r"cannot write a checkpoint to .*Make room or fix the folder, then rerun"):
                checkpoints.save(large)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert {p.name: p.read_bytes() for p in tmp_path.glob("*.pt")} == before
        assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
        checkpoints.save(large)  # room was made
    assert loaded(tmp_path) == (3, [])


def test_a_disk_that_is_full_at_the_flush_leaves_the_earlier_checkpoints(tmp_path, monkeypatch):
    filled(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.glob("*.pt")}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with CheckpointFolder(tmp_path) as checkpoints, pytest.raises(CheckpointError, match="No space left on device"):
        checkpoints.save(state_of(3))
    assert {p.name: p.read_bytes() for p in tmp_path.glob("*.pt")} == before


def test_a_file_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    """Otherwise a machine that stops could leave an empty file under the name."""
    asked, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (asked.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *paths: (asked.append("replace"), replace(*paths)))
    with atomic(tmp_path / "a") as temporary:
        temporary.write_text("whole")
    assert asked == ["fsync", "replace"]


def test_a_folder_that_cannot_be_written_is_not_locked(tmp_path, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fmbench.store.checkpoint.write_document", full)
    checkpoints = CheckpointFolder(tmp_path, ABOUT)
    with pytest.raises(CheckpointError, match="No space left on device"), checkpoints:
        pass
    with CheckpointFolder(tmp_path):  # another one, while the first still exists
        pass


def test_no_links_are_needed(tmp_path, monkeypatch):
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(95, "Operation not supported")

    for name in ("link", "symlink"):
        monkeypatch.setattr(os, name, refused)
    filled(tmp_path)
    assert loaded(tmp_path) == (2, [])


# Kill -9


def killer(*arguments: Any) -> Any:
    script = Path(__file__).parent.parent / "helpers" / "killer.py"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_kill_at_any_point_of_a_save_costs_that_checkpoint_at_most(tmp_path):
    """The kill comes before each operation on the file system, and with half a file written."""
    seen = killer("points", tmp_path)
    assert [sum(point["killed"] for point in seen if point["before"] == before) >= 5 for before in range(4)] == [True] * 4
    newest = set()
    for point in seen:
        one_before = point["before"] - 1 if point["before"] else None
        assert point["found"] in (one_before, point["before"]) and point["complaints"] == [], point
        assert point["after"] == 99
        assert set(point["files"]) <= {"lock", "checkpoint.pt", "checkpoint.previous.pt"}, point  # no half-written file stays
        newest.add((point["killed"], tuple(point["files"]), point["found"] == point["before"]))
    # Among the points are: before anything, between the two renames, and after it all.
    assert (True, ("checkpoint.previous.pt", "checkpoint.pt", "lock"), False) in newest
    assert (True, ("checkpoint.previous.pt", "lock"), False) in newest
    assert (False, ("checkpoint.previous.pt", "checkpoint.pt", "lock"), True) in newest


def test_kill_9_at_twenty_random_times_and_the_weights_are_the_same_bytes(tmp_path):
    training = {"iterations": 300, "batch_size": 64, "checkpoint_every": 9, "log_every": 5, "warmup_iterations": 20}
    board = {
        "data": {"source": "checkerboard", "parameters": {"train": 500, "test": 50}},
        "network": {"kind": "mlp", "width": 32, "depth": 2},
        "training": training,
    }
    config = parse({"datasets": ["board"], "methods": ["fm_ot"], "settings": {"board": board}})
    said = command(
        "prepare", "--spec", canonical(specs.prepare(config, "board")), "--out", tmp_path / "data", "--progress", "none"
    )
    assert said.code == 0, said.err
    found = killer("training", tmp_path, canonical(specs.train(config, "board", "fm_ot", 0)), tmp_path / "data", 20, 0)
    assert found["killed"] >= 20 and found["inside"] >= 3
    for run in found["ended"]:
        assert run["same"] and run["complaints"] == 0, run
    assert sum(run["resumed"] for run in found["ended"]) >= 10
