"""Which GPU is a job's, without one."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from fmbench.store.provenance import device_name
from fmbench.system import devices
from fmbench.system.distributed import device_of


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with three GPUs, and folders for its locks."""
    monkeypatch.setattr(devices, "_taken", [])
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    gpus(monkeypatch, "abc")
    yield monkeypatch
    for lock in devices._taken:
        lock.release()


def gpus(patch: pytest.MonkeyPatch, uuids: str) -> None:
    """Make these visible, in this order."""
    patch.setattr(torch.cuda, "device_count", lambda: len(uuids))
    patch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=uuids[i]))


def test_jobs_side_by_side_spread_over_the_gpus(machine):
    assert [device_of("cuda") for _ in range(5)] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]


def test_a_gpu_is_free_again_when_its_job_ends(machine):
    assert [device_of("cuda") for _ in range(3)] == ["cuda:0", "cuda:1", "cuda:2"]
    devices._taken[1].release()
    assert device_of("cuda") == "cuda:1"


def test_a_gpu_without_jobs_comes_before_one_with_a_free_place(machine):
    gpus(machine, "ab")
    assert [device_of("cuda") for _ in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    for lock in devices._taken[:2]:
        lock.release()
    assert device_of("cuda") == "cuda:1"  # the third job is at the other still


def test_a_gpu_is_known_whatever_number_it_has(machine):
    assert device_of("cuda") == "cuda:0"
    gpus(machine, "ca")  # as CUDA_VISIBLE_DEVICES has it
    # c; then each has one, and c is the first of them; then a.
    assert [device_of("cuda") for _ in range(3)] == ["cuda:0", "cuda:0", "cuda:1"]
    gpus(machine, "ab")
    assert device_of("cuda") == "cuda:1"


def test_another_process_sees_what_is_taken(machine, tmp_path):
    assert device_of("cuda") == "cuda:0"
    script = f"""
import tempfile, torch
from types import SimpleNamespace
from fmbench.system.distributed import device_of
tempfile.tempdir = {str(tmp_path)!r}
torch.cuda.device_count = lambda: 3
torch.cuda.get_device_properties = lambda i: SimpleNamespace(uuid="abc"[i])
print(device_of("cuda"))
"""
    for _ in range(2):  # the first has ended when the second comes
        said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert said.stdout.strip() == "cuda:1"


@pytest.mark.parametrize("count", [0, 1])
def test_where_there_is_no_choice_nothing_is_locked(count, machine, tmp_path):
    gpus(machine, "abc"[:count])
    assert device_of("cuda") == "cuda" and list(tmp_path.iterdir()) == []


def test_without_a_place_for_locks_it_is_the_first(machine, tmp_path):
    (tmp_path / f"fmbench-gpus-{devices.os.getuid()}").write_text("in the way")
    assert device_of("cuda") == "cuda"


@pytest.mark.parametrize("name", ["cpu", "cuda:2", "mps"])
def test_what_is_named_is_taken_as_it_is(name, machine, tmp_path):
    assert device_of(name) == name and list(tmp_path.iterdir()) == []


def test_processes_started_together_have_one_each(machine):
    machine.setenv("WORLD_SIZE", "2")
    machine.setenv("LOCAL_RANK", "1")
    assert device_of("cuda") == "cuda:1" and devices._taken == []


@pytest.mark.parametrize(("ours", "kept"), [({}, ":4096:8"), ({"CUBLAS_WORKSPACE_CONFIG": ":16:8"}, ":16:8")])
def test_deterministic_algorithms_are_asked_for_until_they_no_longer_are(ours, kept, monkeypatch):
    def asked() -> list[bool]:
        """Of torch, and of what it does not ask by itself."""
        of_torch = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
        return [*of_torch, not torch.backends.cuda.cudnn_sdp_enabled()]

    before = torch.are_deterministic_algorithms_enabled()  # as a command run in this process has left it
    monkeypatch.setattr(os, "environ", environment := dict(ours))
    try:
        devices.reproducible(False)
        assert asked() == [False, True, False] and environment == ours
        devices.reproducible()
        assert asked() == [True] * 3 and environment == {"CUBLAS_WORKSPACE_CONFIG": kept}
        assert not torch.utils.deterministic.fill_uninitialized_memory
    finally:
        devices.reproducible(before)


def test_a_gpu_has_the_name_of_its_kind_whatever_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA X")
    assert device_name("cuda") == device_name("cuda:1") == "cuda (NVIDIA X)"
