"""Memory of the host that a network's maps take: kept for the next ones instead of handed back to the system."""

from __future__ import annotations

import ctypes
import functools
import os
import sys

# Numbers of <malloc.h>.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
# Whoever sets one of these has chosen how memory is allocated.
_CHOICES = (
    "GLIBC_TUNABLES",
    "MALLOC_MMAP_MAX_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TOP_PAD_",
    "MALLOC_TRIM_THRESHOLD_",
)


@functools.cache
def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, and reuse it; for networks that run on the CPU.

    The C library of Linux asks the system for every large tensor and hands it back when the tensor is freed. The system
    clears each page before it gives it out again, which takes a third or more of the time of a ResNet-50 that embeds
    images, and a sixth to a third of its training step (``python tests/benchmarks/kept_memory.py``). Values do not
    change. The process grows by up to a quarter, and stays as large as it ever was until it ends or forks. Before each
    ``os.fork``, as for processes that load images, what is free is handed back: the new process would keep the old
    pages for as long as it lives, and this one would copy every page that it uses again.

    Nothing happens where the environment says how memory is allocated (``MALLOC_TRIM_THRESHOLD_`` and its like, or
    ``GLIBC_TUNABLES``), and on systems without the GNU C library. An allocator that is preloaded in its place, such as
    jemalloc, does not notice.

    Returns:
        Whether freed memory is kept from now on.
    """
    library = _find_glibc()
    if library is None or any(name in os.environ for name in _CHOICES):
        return False
    # No tensor gets pages of its own, and pages at the heap's end stay.
    kept = all(library.mallopt(option, value) == 1 for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1)))
    if kept:
        os.register_at_fork(before=hand_back_freed_memory)
    return kept


def hand_back_freed_memory() -> None:
    """Hand what this process has freed and kept back to the system; nothing happens without the GNU C library."""
    if (library := _find_glibc()) is not None:
        library.malloc_trim(0)


@functools.cache
def _find_glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    return library if hasattr(library, "gnu_get_libc_version") else None  # musl's mallopt does nothing
