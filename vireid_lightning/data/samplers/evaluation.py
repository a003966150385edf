"""Every image of an evaluation once, dealt to the processes."""

from __future__ import annotations

from collections.abc import Iterator, Sized

from torch.utils.data import DistributedSampler


class EvaluationSampler(DistributedSampler[int]):
    """Deals the positions of a list to the ranks: rank r of R takes r, r + R, r + 2R, ...

    Nothing is padded or repeated; ranks may differ by one in length.

    Args:
        samples: The list to deal; only its length is read.
        num_replicas: Number of processes R.
        rank: This process.
    """

    def __init__(self, samples: Sized, *, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(samples, num_replicas=num_replicas, rank=rank, shuffle=False)
        self.positions = range(rank, len(samples), num_replicas)
        self.num_samples, self.total_size = len(self.positions), len(samples)

    def __len__(self) -> int:
        """Return the number of this rank's positions."""
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        """Yield this rank's positions in ascending order."""
        return iter(self.positions)
