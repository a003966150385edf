"""A process's part of work that every process could do alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar, cast

import torch

from vireid_lightning.errors import VIReIDError

_Found = TypeVar("_Found", bound=dict[Any, list[Any]])


@dataclass(frozen=True)
class Share:
    """Deals numbered pieces of work to the processes: process r of R does r, r + R, r + 2R, ...

    The pieces do not depend on the number of processes, so that each is computed from the same numbers in the same
    order by whoever does it.

    Attributes:
        processes: Number of processes R.
        rank: Number of this process, from 0.

    Example:
        >>> [number for number in range(5) if Share(processes=2, rank=1).owns(number)]
        [1, 3]
    """

    processes: int = 1
    rank: int = 0

    @classmethod
    def of_group(cls) -> Share:
        """Return the share of this process in the default process group; everything where there is none."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return cls()
        return cls(torch.distributed.get_world_size(), torch.distributed.get_rank())

    def owns(self, number: int) -> bool:
        """Whether this process does a piece of work."""
        return number % self.processes == self.rank

    def collect(self, work: Callable[[], _Found]) -> _Found:
        """Do this process's work and return what all processes found; lists of one key stand in the processes' order.

        Raises:
            VIReIDError: If the work failed anywhere, in every process.
        """
        if self.processes == 1:
            return work()
        result: _Found | None = None
        failure: Exception | None = None
        try:
            result = work()
        except Exception as error:  # whatever it is, the others wait for word of it
            failure = error
        told = None if failure is None else str(failure) if isinstance(failure, VIReIDError) else repr(failure)
        outcomes: list[Any] = [None] * self.processes
        torch.distributed.all_gather_object(outcomes, (result, told))
        if failure is not None:
            raise failure
        for process, (_, text) in enumerate(outcomes):
            if text is not None:
                raise VIReIDError(f"Process {process}: {text}")
        found: dict[Hashable, list[Any]] = {}
        for key, values in chain.from_iterable(outcome.items() for outcome, _ in outcomes):
            found.setdefault(key, []).extend(values)
        return cast("_Found", found)


#: All work: that of a process that is alone.
ALL = Share()
