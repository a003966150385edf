"""Blocks of rows on several CPU threads.

With many short operations, a thread for each block is quicker than several threads for each operation, which would wait
for one another after every one of them, and wait long where other programs keep a core busy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")

_THREADS: ContextVar[int | None] = ContextVar("_THREADS", default=None)


@contextmanager
def block_threads() -> Iterator[None]:
    """Give PyTorch's CPU threads to :func:`map_parts`: within, each operation runs on one."""
    before, threads = torch.get_num_threads(), thread_count()
    token = _THREADS.set(threads)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _THREADS.reset(token)


def thread_count() -> int:
    """Return the number of threads that :func:`map_parts` uses on the CPU."""
    return _THREADS.get() or torch.get_num_threads()


def map_parts(function: Callable[[Part], Result], parts: Iterable[Part], device: torch.device) -> list[Result]:
    """Return ``function`` of each part, in order, without gradients; on the CPU within :func:`block_threads`.

    Args:
        function: Takes a part. May write to its own rows of tensors that it shares with others.
        parts: Such as slices of rows.
        device: Where the tensors lie; on a GPU the parts run one after another.

    Example:
        >>> map_parts(lambda part: torch.arange(4)[part].sum().item(), [slice(0, 2), slice(2, 4)], torch.device("cpu"))
        [1, 5]
    """
    listed = list(parts)
    inference = torch.is_inference_mode_enabled()

    def call(part: Part) -> Result:
        with torch.inference_mode(inference), torch.no_grad():  # settings of each thread
            return function(part)

    threads = min(thread_count(), len(listed))
    if device.type != "cpu" or threads < 2:
        return [call(part) for part in listed]
    with block_threads(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(call, listed))
