"""Peak resident memory of a piece of code."""

from __future__ import annotations

from pathlib import Path


class MemoryGrowth:
    """How far this process's resident memory rises above what it held at the start, at most (Linux).

    The system keeps the highest value and sets it back on request, so that no peak between two samples is missed.

    Example:
        >>> with MemoryGrowth() as growth:  # doctest: +SKIP
        ...     work()
        >>> print(growth.mib)  # doctest: +SKIP
    """

    mib = 0.0

    def __enter__(self) -> MemoryGrowth:
        Path("/proc/self/clear_refs").write_text("5")
        self._before = _status("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.mib = (_status("VmHWM") - self._before) / 2**10


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))
