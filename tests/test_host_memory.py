"""Freed memory that a process keeps."""

import os
import subprocess
import sys

import pytest

from vireid_lightning.host_memory import _CHOICES

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the setting is glibc's")

_FAULTS = """
import resource, sys, torch
from vireid_lightning.host_memory import keep_freed_memory
kept = keep_freed_memory()
def fill():
    torch.empty(2**24, dtype=torch.uint8).fill_(1)  # 4,096 pages
for _ in range(10):  # the heap grows a few times before a freed block fits
    fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    fill()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _count_faults(**environment: str) -> tuple[bool, int]:
    inherited = {key: value for key, value in os.environ.items() if key not in _CHOICES}
    command = [sys.executable, "-c", _FAULTS]
    done = subprocess.run(command, env=inherited | environment, check=True, capture_output=True, text=True)
    kept, faults = done.stdout.split()
    return kept == "True", int(faults)


def test_freed_memory_is_used_again():
    kept, faults = _count_faults()
    assert kept
    assert faults < 4096  # ten times 4,096 where each tensor's pages are new


@pytest.mark.parametrize("name", _CHOICES)
def test_what_the_environment_says_of_memory_stays(name):
    value = "glibc.malloc.mmap_threshold=4096" if name == "GLIBC_TUNABLES" else "4096"
    kept, _ = _count_faults(**{name: value})
    assert not kept


def test_memory_is_handed_back_where_the_environment_says_so():
    kept, faults = _count_faults(MALLOC_MMAP_THRESHOLD_="4096")
    assert not kept
    assert faults >= 10 * 4096 // 512  # pages of 4 KiB, or of up to 2 MiB


_FORK = """
import os, torch
from vireid_lightning.host_memory import keep_freed_memory
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
kept = keep_freed_memory()
used = torch.ones(2**24)
freed = torch.ones(2**26)  # 256 MiB
del freed
before = resident()
if not (child := os.fork()):
    os._exit(0)
os.waitpid(child, 0)
print(kept, before - resident(), float(used.sum()))
"""


def test_a_fork_does_not_take_freed_memory_with_it():
    inherited = {key: value for key, value in os.environ.items() if key not in _CHOICES}
    done = subprocess.run([sys.executable, "-c", _FORK], env=inherited, check=True, capture_output=True, text=True)
    kept, freed, total = done.stdout.split()
    assert kept == "True"
    assert int(freed) > 0.9 * 2**28
    assert float(total) == 2**24  # what is in use stays
