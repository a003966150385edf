"""Blocks of rows on several CPU threads.

With many short operations, a thread for each block is quicker than several threads for each operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")


def map_parts(function: Callable[[Part], Result], parts: Iterable[Part], device: torch.device) -> list[Result]:
    """Return ``function`` of each part, in order; on the CPU on as many threads as PyTorch uses, without gradients.

    Args:
        function: Takes a part. May write to its own rows of tensors that it shares with others.
        parts: Such as slices of rows.
        device: Where the tensors lie; on a GPU the parts run one after another.

    Example:
        >>> map_parts(lambda part: torch.arange(4)[part].sum().item(), [slice(0, 2), slice(2, 4)], torch.device("cpu"))
        [1, 5]
    """
    listed, threads = list(parts), torch.get_num_threads()

    def call(part: Part) -> Result:
        with torch.no_grad():  # what a thread records is its own affair
            return function(part)

    if device.type != "cpu" or threads == 1 or len(listed) < 2:
        return [call(part) for part in listed]
    try:
        with ThreadPoolExecutor(min(threads, len(listed)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(call, listed))
    finally:
        # The setting is of the thread that makes it, but threads that start later would take the last one.
        torch.set_num_threads(threads)
