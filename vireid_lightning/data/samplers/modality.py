"""Batches for methods that learn without identities: equal numbers of visible and infrared images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vireid_lightning.data.samplers.planned import PlannedSampler
from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_number
from vireid_lightning.types import INFRARED, MODALITIES, VISIBLE, Sample


class ModalitySampler(PlannedSampler):
    """Draws batches of N visible and N infrared images and never looks at an identity.

    Each modality runs through a random order of all its images and starts over with another, independently of the other
    modality. The batch is defined globally, as that of
    :class:`~vireid_lightning.data.samplers.identity.IdentitySampler`: the plan of an epoch follows from (seed, epoch)
    alone, and rank r of R takes the r-th N/R images of either modality. A rank's batch is, in this order, its visible
    and its infrared images.

    Use it with ``DataLoader(..., batch_size=sampler.batch_size, drop_last=True)``.

    Args:
        samples: The training samples; only their modality is read.
        images_per_modality: Number N of images of each modality in a batch, over all ranks.
        steps_per_epoch: Number of steps in an epoch; None: each image of the scarcer modality is seen about once.
        num_replicas: Number of processes R, a divisor of N.
        rank: Number of this process, from 0.
        seed: Seed of all random draws.

    Raises:
        VIReIDError: A modality has no image, N or the number of steps is below 1, or N is not divisible by R.

    Example:
        >>> samples = [Sample(f"{i}.jpg", -1, i % 2, 1) for i in range(20)]
        >>> sampler = ModalitySampler(samples, images_per_modality=5)
        >>> sampler.steps_per_epoch, sampler.batch_size
        (2, 10)
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        images_per_modality: int,
        steps_per_epoch: int | None = None,
        num_replicas: int = 1,
        rank: int = 0,
        seed: int = 0,
    ) -> None:
        check_number("images_per_modality", images_per_modality, whole=True)
        super().__init__(samples, num_replicas=num_replicas, rank=rank, seed=seed)
        modality = np.array([sample.modality for sample in samples], dtype=np.int64)
        self.images = tuple(np.flatnonzero(modality == number) for number in (VISIBLE, INFRARED))
        for name, images in zip(MODALITIES, self.images):
            if not len(images):
                raise VIReIDError(
                    f"The training set has no {name} image, but this method learns from visible and infrared images: "
                    "check the dataset's root and its training split."
                )
        if images_per_modality < 1 or images_per_modality % num_replicas:
            raise VIReIDError(
                f"A batch of {images_per_modality} images per modality (identities_per_batch * images_per_modality) "
                f"cannot be split over {num_replicas} processes: make it a multiple of {num_replicas}."
            )
        self.images_per_modality = images_per_modality
        self._set_length(steps_per_epoch, images=min(map(len, self.images)), per_step=images_per_modality)

    def plan(self, epoch: int) -> NDArray[np.int64]:
        """Return the positions of an epoch's images over all ranks, (steps, 2 modalities, N)."""
        generator = np.random.default_rng([self.seed, epoch, 0])
        wanted = self.steps_per_epoch * self.images_per_modality
        plan = np.empty((2, wanted), dtype=np.int64)
        for row, images in zip(plan, self.images):
            orders = [generator.permutation(images) for _ in range(-(-wanted // len(images)))]
            row[:] = np.concatenate(orders)[:wanted]
        by_step: NDArray[np.int64] = plan.reshape(2, self.steps_per_epoch, self.images_per_modality).transpose(1, 0, 2)
        return by_step
