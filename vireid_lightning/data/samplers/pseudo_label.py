"""Batches of pseudo identities, whose labels change from epoch to epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, DistributedSampler

from vireid_lightning.data.samplers.planned import Draw, check_processes, draw_in_turn
from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_number


class PseudoLabelSampler(DistributedSampler[list[Draw]]):
    """Draws whole batches of P pseudo identities with K images each of every modality that the labels have.

    :meth:`assign` sets what the next epochs draw from. The batch is defined globally: the plan of an epoch follows from
    (seed, epoch, labels) alone, and rank r of R takes the r-th P/R pseudo identities of each step. A rank's batch is,
    in this order, its visible and its infrared images; where labels are shared by the modalities, image i of either
    half has the same one. Each draw carries its label, so that a batch knows it whichever process loads the images.

    Pseudo identities run through a random order, all of them before any again, whatever their size; so do the images
    of each. Where there are fewer pseudo identities than P, a step holds some of them more than once.

    Use it with ``DataLoader(..., batch_size=None)``: each item that it yields is a rank's batch.

    Args:
        steps_per_epoch: Length of an epoch.
        num_replicas: Number of processes R.
        rank: This process.
        seed: Seed of all draws.

    Attributes:
        first_step: The step that the next pass begins with; above 0 where a run goes on within an epoch.

    Raises:
        VIReIDError: ``steps_per_epoch`` is below 1.

    Example:
        >>> sampler = PseudoLabelSampler(steps_per_epoch=2)
        >>> labels, modality = np.array([0, 0, 1, 1, -1, 2, 2]), np.zeros(7, dtype=np.int64)
        >>> sampler.assign(labels, modality, identities_per_batch=3, images_per_modality=2)
        >>> [sorted(draw.index for draw in batch) for batch in sampler]
        [[0, 1, 2, 3, 5, 6], [0, 1, 2, 3, 5, 6]]
    """

    first_step = 0

    def __init__(self, *, steps_per_epoch: int, num_replicas: int = 1, rank: int = 0, seed: int = 0) -> None:
        check_number("steps_per_epoch", steps_per_epoch, 1, whole=True)
        check_processes(num_replicas, rank)
        check_number("seed", seed, 0, whole=True)
        # A DistributedSampler asks its dataset for nothing but its length.
        steps = cast("Dataset[list[Draw]]", range(steps_per_epoch))
        super().__init__(steps, num_replicas=num_replicas, rank=rank, shuffle=True, seed=seed)
        self.steps_per_epoch = self.num_samples = steps_per_epoch
        self._groups: list[dict[int, NDArray[np.int64]]] = []
        self._labels: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._offset = 0

    def assign(
        self,
        labels: NDArray[np.int64],
        modality: NDArray[np.int64],
        *,
        identities_per_batch: int,
        images_per_modality: int,
        offset: int = 0,
    ) -> None:
        """Set the pseudo labels that the following epochs draw from.

        Labels that occur in every modality present are drawn as identities of all of them. Where no label does, each
        modality has pseudo identities of its own, and a step holds P of each.

        Args:
            labels: (N,) pseudo label of each image; negative: never drawn.
            modality: (N,) modality of each image.
            identities_per_batch: P, over all ranks.
            images_per_modality: K.
            offset: Number that is added to every position drawn.

        Raises:
            VIReIDError: P or K does not fit, or a modality has no labelled image.
        """
        self.check_batch(identities_per_batch, images_per_modality)
        self._groups = []
        for number in np.unique(modality):
            rows = np.flatnonzero((modality == number) & (labels >= 0))
            if not len(rows):
                raise VIReIDError("A modality has no image with a pseudo label, so no batch can be drawn.")
            self._groups.append({int(label): rows[labels[rows] == label] + offset for label in np.unique(labels[rows])})
        shared = set.intersection(*(set(group) for group in self._groups))
        if shared:
            self._groups = [{label: group[label] for label in sorted(shared)} for group in self._groups]
        self._paired = bool(shared)
        self._shape = identities_per_batch, images_per_modality
        self._labels, self._offset = labels.copy(), offset

    def check_batch(self, identities_per_batch: int, images_per_modality: int) -> None:
        """Raise a :class:`VIReIDError` if batches of P x K images cannot be drawn on this number of processes."""
        if identities_per_batch < 2 or images_per_modality < 1 or identities_per_batch % self.num_replicas:
            raise VIReIDError(
                f"A batch of {identities_per_batch} pseudo identities with {images_per_modality} images each cannot be "
                f"drawn on {self.num_replicas} processes: give at least 2 pseudo identities, a multiple of the number "
                "of processes, and at least 1 image."
            )

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[list[Draw]]:
        """Yield this rank's batches of the epoch that :meth:`set_epoch` named, from ``first_step`` on.

        Raises:
            VIReIDError: No labels have been assigned.
        """
        if not self._groups:
            raise VIReIDError(
                "There are no pseudo labels to draw by. They are made at the start of an epoch, so a run cannot be "
                "resumed in the middle of one: give a checkpoint that was saved at the end of an epoch."
            )
        plan = self.plan(self.epoch)
        share = plan.shape[2] // self.num_replicas
        own = slice(self.rank * share, (self.rank + 1) * share)
        # Numbered over the whole plan and then cut, so that they do not depend on the number of ranks.
        seeds = np.random.SeedSequence([self.seed, self.epoch, 1]).generate_state(plan.size, np.uint64)
        rest, drawn_seeds = plan[self.first_step :, :, own], seeds.reshape(plan.shape)[self.first_step :, :, own]
        for indices, drawn in zip(rest, drawn_seeds):
            labels = self._labels[indices - self._offset]
            yield [Draw(int(i), int(s), int(label)) for i, s, label in zip(indices.flat, drawn.flat, labels.flat)]

    def plan(self, epoch: int) -> NDArray[np.int64]:
        """Return the positions of an epoch's images over all ranks, (steps, modalities, P, K)."""
        generator = np.random.default_rng([self.seed, epoch, 0])
        identities, images = self._shape
        plan = np.empty((self.steps_per_epoch, len(self._groups), identities, images), dtype=np.int64)
        labels = None
        for number, group in enumerate(self._groups):
            if labels is None or not self._paired:
                labels = draw_in_turn(np.array(list(group)), self.steps_per_epoch, identities, generator)
            for label, positions in group.items():
                chosen = labels == label
                plan[:, number][chosen] = draw_in_turn(positions, int(chosen.sum()), images, generator)
        return plan
