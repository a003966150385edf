"""What the training samplers share: a plan for all ranks together, which follows from (seed, epoch) alone.

The samplers subclass torch's ``DistributedSampler`` with explicit ``num_replicas`` and ``rank``, so that Lightning
keeps them and tells them the epoch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, DistributedSampler

from vireid_lightning.kinds import check_number
from vireid_lightning.types import UNKNOWN, Sample


class Draw(NamedTuple):
    """One image to load and the seed of its augmentation, so that no draw depends on the worker that loads it.

    Attributes:
        index: Position of the image in the list of training samples.
        seed: Seed of the image's augmentation.
        label: Pseudo label that the image is drawn by; -1 where batches are not drawn by pseudo labels.
    """

    index: int  # type: ignore[assignment]  # hides the method `index` of tuples, which nothing calls
    seed: int
    label: int = UNKNOWN


def check_processes(num_replicas: int, rank: int) -> None:
    """Refuse what is no number of processes and number of one of them, from 0.

    Raises:
        VIReIDError: Names the number that is wrong.
    """
    check_number("num_replicas", num_replicas, 1, whole=True)
    check_number("rank", rank, 0, num_replicas - 1, whole=True)


class PlannedSampler(DistributedSampler[Draw]):
    """Draws each rank's share of a plan that is made for all ranks together.

    The plan of an epoch follows from (seed, epoch) alone, and rank r of R takes the r-th share of each step, along the
    plan's third axis. So R processes together see exactly the images, with the augmentation seeds, that one would see.

    Args:
        samples: The training samples.
        num_replicas: Number of processes R.
        rank: Number of this process, from 0.
        seed: Seed of all random draws.

    Attributes:
        first_step: The step that the next pass begins with; above 0 where a run goes on within an epoch.
    """

    first_step = 0

    def __init__(self, samples: Sequence[Sample], *, num_replicas: int, rank: int, seed: int) -> None:
        check_processes(num_replicas, rank)
        check_number("seed", seed, 0, whole=True)
        # A DistributedSampler asks its dataset for nothing but its length.
        dataset = cast("Dataset[Draw]", samples)
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=True, seed=seed, drop_last=True)

    def _set_length(self, steps_per_epoch: int | None, *, images: int, per_step: int) -> None:
        """Set the number of steps, by default as many as draw ``images`` about once, and the batches' sizes.

        Args:
            steps_per_epoch: The wanted number of steps; None: the default.
            images: Number of images of the scarcer modality.
            per_step: Number of images of one modality in a step, over all ranks.
        """
        if steps_per_epoch is not None:
            check_number("steps_per_epoch", steps_per_epoch, 1, whole=True)
        self.steps_per_epoch = max(1, round(images / per_step)) if steps_per_epoch is None else steps_per_epoch
        #: Number of images in this rank's batch.
        self.batch_size = 2 * per_step // self.num_replicas
        self.num_samples = self.steps_per_epoch * self.batch_size
        self.total_size = self.num_samples * self.num_replicas

    def __len__(self) -> int:
        """Return the number of images that this rank draws in an epoch."""
        return self.num_samples

    def __iter__(self) -> Iterator[Draw]:
        """Yield this rank's draws of the epoch that :meth:`set_epoch` named, in batch order, from ``first_step`` on."""
        plan = self.plan(self.epoch)
        share = plan.shape[2] // self.num_replicas
        own = slice(self.rank * share, (self.rank + 1) * share)
        # Made for the whole plan and then cut, so that the seeds do not depend on the number of ranks either.
        seeds = np.random.SeedSequence([self.seed, self.epoch, 1]).generate_state(plan.size, np.uint64)
        rest, drawn_seeds = plan[self.first_step :, :, own], seeds.reshape(plan.shape)[self.first_step :, :, own]
        for index, seed in zip(rest.flat, drawn_seeds.flat):
            yield Draw(int(index), int(seed))

    @abstractmethod
    def plan(self, epoch: int) -> NDArray[np.int64]:
        """Return the positions of an epoch's images over all ranks, (steps, 2 modalities, shares, ...)."""


def draw_in_turn(
    images: NDArray[np.int64], draws: int, per_draw: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Return (draws, per_draw) images that run through random orders of ``images``, all of them before any again.

    A draw that begins at the end of one order and ends in the next repeats no image, if there are enough of them.
    """
    drawn: list[int] = []
    while len(drawn) < draws * per_draw:
        order = generator.permutation(images)
        begun = len(drawn) % per_draw
        if begun and len(images) >= per_draw:
            head = order[~np.isin(order, drawn[-begun:])][: per_draw - begun]
            order = np.concatenate([head, order[~np.isin(order, head)]])
        drawn.extend(order.tolist())
    return np.array(drawn[: draws * per_draw], dtype=np.int64).reshape(draws, per_draw)
