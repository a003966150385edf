"""Every image of an evaluation once, dealt to the processes."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import cast

from torch.utils.data import Dataset, DistributedSampler

from vireid_lightning.data.samplers.planned import check_processes


class EvaluationSampler(DistributedSampler[int]):
    """Deals the positions of a list to the ranks: rank r of R takes r, r + R, r + 2R, ...

    Nothing is padded or repeated; ranks may differ by one in length.

    Args:
        samples: The list whose positions are dealt; only its length is read.
        num_replicas: Number of processes R.
        rank: Number of this process, from 0.
    """

    def __init__(self, samples: Sized, *, num_replicas: int = 1, rank: int = 0) -> None:
        check_processes(num_replicas, rank)
        # A DistributedSampler asks its dataset for nothing but its length.
        dataset = cast("Dataset[int]", samples)
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False)
        self.positions = range(rank, len(samples), num_replicas)
        self.num_samples, self.total_size = len(self.positions), len(samples)

    def __len__(self) -> int:
        """Return the number of this rank's positions."""
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        """Yield this rank's positions in ascending order."""
        return iter(self.positions)
