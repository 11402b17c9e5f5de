"""The choice of a GPU and its settings, tested without a GPU."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from fmbench.store.provenance import device_name
from fmbench.system import devices
from fmbench.system.distributed import choose_device


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with three GPUs and a new folder for their locks."""
    monkeypatch.setattr(devices, "_taken", [])
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    gpus(monkeypatch, "abc")
    yield monkeypatch
    for lock in devices._taken:
        lock.release()


def gpus(patch: pytest.MonkeyPatch, uuids: str) -> None:
    """Make these GPUs visible, in this order."""
    patch.setattr(torch.cuda, "device_count", lambda: len(uuids))
    patch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=uuids[i]))


def test_jobs_side_by_side_spread_over_the_gpus(machine):
    assert [choose_device("cuda") for _ in range(5)] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]


def test_a_gpu_is_free_again_when_its_job_ends(machine):
    assert [choose_device("cuda") for _ in range(3)] == ["cuda:0", "cuda:1", "cuda:2"]
    devices._taken[1].release()
    assert choose_device("cuda") == "cuda:1"


def test_a_gpu_without_jobs_comes_before_one_with_a_free_place(machine):
    gpus(machine, "ab")
    assert [choose_device("cuda") for _ in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    for lock in devices._taken[:2]:
        lock.release()
    assert choose_device("cuda") == "cuda:1"  # the third job still uses the other one


def test_a_gpu_is_recognised_by_its_uuid_and_not_by_its_number(machine):
    assert choose_device("cuda") == "cuda:0"
    gpus(machine, "ca")  # as CUDA_VISIBLE_DEVICES may order them
    # First c. Then each has one job, and c comes first. Then a.
    assert [choose_device("cuda") for _ in range(3)] == ["cuda:0", "cuda:0", "cuda:1"]
    gpus(machine, "ab")
    assert choose_device("cuda") == "cuda:1"


def test_another_process_sees_which_gpus_are_taken(machine, tmp_path):
    assert choose_device("cuda") == "cuda:0"
    script = f"""
import tempfile, torch
from types import SimpleNamespace
from fmbench.system.distributed import choose_device
tempfile.tempdir = {str(tmp_path)!r}
torch.cuda.device_count = lambda: 3
torch.cuda.get_device_properties = lambda i: SimpleNamespace(uuid="abc"[i])
print(choose_device("cuda"))
"""
    for _ in range(2):  # the first process has ended when the second starts
        said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert said.stdout.strip() == "cuda:1"


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_is_locked_if_there_is_no_choice(count, machine, tmp_path):
    gpus(machine, "abc"[:count])
    assert choose_device("cuda") == "cuda" and list(tmp_path.iterdir()) == []


def test_without_a_folder_for_locks_the_current_gpu_is_taken(machine, tmp_path):
    (tmp_path / f"fmbench-gpus-{devices.os.getuid()}").write_text("in the way")
    assert choose_device("cuda") == "cuda"


@pytest.mark.parametrize("name", ["cpu", "cuda:2", "mps"])
def test_any_other_device_name_stays_unchanged(name, machine, tmp_path):
    assert choose_device(name) == name and list(tmp_path.iterdir()) == []


def test_processes_started_together_take_one_gpu_each(machine):
    machine.setenv("WORLD_SIZE", "2")
    machine.setenv("LOCAL_RANK", "1")
    assert choose_device("cuda") == "cuda:1" and devices._taken == []


@pytest.mark.parametrize(("ours", "kept"), [({}, ":4096:8"), ({"CUBLAS_WORKSPACE_CONFIG": ":16:8"}, ":16:8")])
def test_deterministic_algorithms_are_switched_on_and_off(ours, kept, monkeypatch):
    def asked() -> list[bool]:
        """Return what torch reports, and whether attention by cuDNN is off."""
        of_torch = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
        return [*of_torch, not torch.backends.cuda.cudnn_sdp_enabled()]

    before = torch.are_deterministic_algorithms_enabled()  # a command run in this process may have changed it
    torch.use_deterministic_algorithms(before, warn_only=True)  # its first call imports modules that set a variable
    monkeypatch.setattr(os, "environ", environment := dict(ours))
    try:
        devices.reproducible(False)
        assert asked() == [False, True, False] and environment == ours
        devices.reproducible()
        assert asked() == [True] * 3 and environment == {"CUBLAS_WORKSPACE_CONFIG": kept}
        assert not torch.utils.deterministic.fill_uninitialized_memory
    finally:
        devices.reproducible(before)


def test_the_device_name_of_a_gpu_does_not_contain_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA X")
    assert device_name("cuda") == device_name("cuda:1") == "cuda (NVIDIA X)"
