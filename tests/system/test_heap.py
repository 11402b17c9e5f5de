"""Freed memory stays with the process, where glibc is what gives it."""

import os
import platform
import subprocess
import sys

import pytest

from fmbench.system import heap

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's heap that is set")

FAULTS = """
import ctypes
import os
import resource
import torch
from fmbench.system.heap import keep_freed_memory

torch.set_num_threads(1)
if "SPARE" in os.environ:
    assert ctypes.CDLL(None).mallopt(-1, 2**17)  # as glibc has it at first; how far it has raised it by now is chance

def faults() -> int:
    found = []
    for _ in range(8):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        held = [torch.ones(2**19) for _ in range(40)]
        del held
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(found)

print(faults(), keep_freed_memory(), faults())
"""
"""Pages asked for by a round of allocations of 80 MiB in all, which the rounds before have freed: before and after.
With ``SPARE`` in the environment little of it was kept before."""


def run(**environment: str) -> tuple[int, bool, int]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    said = subprocess.run(
        [sys.executable, "-c", FAULTS], env=kept | environment, capture_output=True, text=True, timeout=120, check=True
    )
    before, kept_it, after = said.stdout.split()
    return int(before), kept_it == "True", int(after)


@needs_glibc
def test_what_is_freed_is_not_asked_for_again():
    before, kept, after = run(SPARE="yes")
    # 80 MiB are 20,000 pages of 4 KiB, or 40 of 2 MiB where the system gives such by itself.
    assert kept and after <= 5 < before, (before, after)


GROWING = """
import resource
import sys
import torch
from fmbench.system.heap import keep_freed_memory

torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert keep_freed_memory()

def resident() -> int:
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() // 2**20

before, most, stay = resident(), 0, []
for mib in range(8, 104, 8):
    large = torch.ones(2**18 * mib)
    most = max(most, resident() - before)
    stay.append(torch.ones(2**18 * (mib - 2)))
    del large
print(most)
"""
"""MiB that a process grows by for ever larger blocks, each freed again, with somewhat smaller ones that stay between them: in a
heap each lies behind a hole that the next does not fit into."""


@needs_glibc
def test_the_peak_hardly_changes_where_blocks_grow():
    kept, plain = (
        int(subprocess.run([sys.executable, "-c", GROWING, how], capture_output=True, timeout=120, check=True).stdout)
        for how in ("keep", "plain")
    )
    # What stays takes 506 MiB by then, and the largest 96; the holes would take as much again.
    assert plain > 590 and kept < 1.3 * plain, (kept, plain)


@needs_glibc
@pytest.mark.parametrize(
    "environment", [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}]
)
def test_a_users_own_settings_stay(environment):
    before, kept, after = run(**environment)
    assert not kept and after > 5 and before > 5, (before, after)


@pytest.mark.parametrize("name", ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"])
def test_where_one_of_them_is_set_none_is(name, monkeypatch):
    monkeypatch.setenv(name, "131072")
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: pytest.fail("the heap was set"))
    assert not heap.keep_freed_memory()


def test_another_c_library_is_left_alone(monkeypatch):
    class Bare:
        """A C library without mallopt."""

    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: Bare())
    assert not heap.keep_freed_memory()
