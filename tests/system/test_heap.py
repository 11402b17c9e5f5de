"""With glibc, freed memory stays with the process."""

import os
import platform
import subprocess
import sys

import pytest

from fmbench.system import heap

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's heap is set")

FAULTS = """
import ctypes
import os
import resource
import torch
from fmbench.system.heap import keep_freed_memory

torch.set_num_threads(1)
if "SPARE" in os.environ:
    assert ctypes.CDLL(None).mallopt(-1, 2**17)  # glibc's initial value; it may have been raised by now

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
"""Prints the page faults of a round of allocations of 80 MiB, which earlier rounds have freed: before and after the setting.
With ``SPARE`` in the environment, little freed memory is kept before it."""


def run(**environment: str) -> tuple[int, bool, int]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    said = subprocess.run(
        [sys.executable, "-c", FAULTS], env=kept | environment, capture_output=True, text=True, timeout=120, check=True
    )
    before, kept_it, after = said.stdout.split()
    return int(before), kept_it == "True", int(after)


@needs_glibc
def test_freed_memory_is_not_requested_again():
    before, kept, after = run(SPARE="yes")
    # 80 MiB are 20,000 pages of 4 KiB, or 40 of 2 MiB if the system uses such pages.
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
"""Prints the MiB by which a process grows. It allocates larger and larger blocks and frees each again, but keeps a smaller block
after each. In a heap each freed block leaves a hole that the next block does not fit into."""


@needs_glibc
def test_the_peak_hardly_changes_where_blocks_grow():
    kept, plain = (
        int(subprocess.run([sys.executable, "-c", GROWING, how], capture_output=True, timeout=120, check=True).stdout)
        for how in ("keep", "plain")
    )
    # At that point the kept blocks take 506 MiB and the largest block 96 MiB. The holes would take as much again.
    assert plain > 590 and kept < 1.3 * plain, (kept, plain)


@needs_glibc
@pytest.mark.parametrize(
    "environment", [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}]
)
def test_the_settings_of_the_user_stay(environment):
    before, kept, after = run(**environment)
    assert not kept and after > 5 and before > 5, (before, after)


@pytest.mark.parametrize("name", ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"])
def test_nothing_is_set_if_the_user_has_set_one_variable(name, monkeypatch):
    monkeypatch.setenv(name, "131072")
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: pytest.fail("the heap was set"))
    assert not heap.keep_freed_memory()


def test_another_c_library_stays_unchanged(monkeypatch):
    class Bare:
        """A C library without mallopt."""

    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: Bare())
    assert not heap.keep_freed_memory()
