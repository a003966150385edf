"""Training batches of P identities with K visible and K infrared images each."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vireid_lightning.data.samplers.planned import PlannedSampler, draw_in_turn
from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_number
from vireid_lightning.types import INFRARED, VISIBLE, Sample


class IdentitySampler(PlannedSampler):
    """Draws batches of P identities with K visible and K infrared images each.

    The batch is defined globally: the plan of an epoch follows from (seed, epoch) alone, and rank r of R takes the
    r-th P/R identities of each step. So R processes together see exactly the images, with the augmentation seeds, that
    one process would see, and ranks share no identity within a step. A rank's batch is, in this order, its identities'
    visible images and their infrared images; image i of either half shows the same identity.

    An identity is drawn in proportion to the number of images of its scarcer modality. In an epoch of the default
    length every image of that modality is therefore seen about once. The draws of an identity run through a random
    order of its images and then through another, so within an epoch each is used as often as any other or once more; a
    draw repeats an image only where the identity has fewer than K.

    Use it with ``DataLoader(..., batch_size=sampler.batch_size, drop_last=True)``.

    Args:
        samples: The training samples. Samples of unknown identity (-1) are not drawn.
        identities_per_batch: Number P of identities in a batch, over all ranks.
        images_per_modality: Number K of images of each identity and modality in a batch.
        steps_per_epoch: Steps in an epoch; None: round(sum over identities of min(visible, infrared) / (P K)), at
            least 1.
        num_replicas: Number of processes R, a divisor of P.
        rank: Number of this process, from 0.
        seed: Seed of all random draws.

    Raises:
        VIReIDError: P below 2, K below 1, P not divisible by R, fewer usable identities than P, or than 2.

    Example:
        >>> samples = [Sample(f"{i}-{m}.jpg", i, m, 1) for i in range(8) for m in (0, 1)]
        >>> sampler = IdentitySampler(samples, identities_per_batch=4, images_per_modality=1)
        >>> len(sampler), sampler.steps_per_epoch, sampler.batch_size
        (16, 2, 8)
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        identities_per_batch: int,
        images_per_modality: int,
        steps_per_epoch: int | None = None,
        num_replicas: int = 1,
        rank: int = 0,
        seed: int = 0,
    ) -> None:
        check_number("identities_per_batch", identities_per_batch, whole=True)
        check_number("images_per_modality", images_per_modality, whole=True)
        super().__init__(samples, num_replicas=num_replicas, rank=rank, seed=seed)
        self.identities_per_batch = identities_per_batch
        self.images_per_modality = images_per_modality
        self.images = _find_usable(samples, warn=rank == 0)
        self._check()
        self.scarcer = np.array([min(len(visible), len(infrared)) for visible, infrared in self.images.values()])
        per_step = identities_per_batch * images_per_modality
        self._set_length(steps_per_epoch, images=int(self.scarcer.sum()), per_step=per_step)

    def _check(self) -> None:
        """Check that batches of this shape can be drawn."""
        wanted, usable = self.identities_per_batch, len(self.images)
        if wanted < 2:
            raise VIReIDError(f"identities_per_batch is {wanted}, but metric losses compare identities: set 2 or more.")
        if self.images_per_modality < 1:
            raise VIReIDError(f"images_per_modality is {self.images_per_modality}: set 1 or more.")
        if wanted % self.num_replicas:
            raise VIReIDError(
                f"identities_per_batch is {wanted} and is split over {self.num_replicas} processes, which do not "
                f"divide it: set identities_per_batch to a multiple of {self.num_replicas}."
            )
        if usable < 2:
            raise VIReIDError(
                f"The training set has {usable} {'identity' if usable == 1 else 'identities'} with both visible and "
                "infrared images, but training needs at least 2: check the dataset's root and its training split."
            )
        if wanted > usable:
            raise VIReIDError(
                f"identities_per_batch is {wanted}, but the training set has only {usable} identities with both "
                f"visible and infrared images: set identities_per_batch to {usable} or fewer."
            )

    def plan(self, epoch: int) -> NDArray[np.int64]:
        """Return the positions of an epoch's images over all ranks, (steps, 2 modalities, P, K)."""
        generator = np.random.default_rng([self.seed, epoch, 0])
        quota = _share_draws(self.scarcer, self.identities_per_batch, self.steps_per_epoch, generator)
        steps = _schedule(quota, self.identities_per_batch, self.steps_per_epoch, generator)
        plan = np.empty((*steps.shape, 2, self.images_per_modality), dtype=np.int64)
        for identity, by_modality in enumerate(self.images.values()):
            for modality, images in enumerate(by_modality):
                drawn = draw_in_turn(images, int(quota[identity]), self.images_per_modality, generator)
                plan[..., modality, :][steps == identity] = drawn
        return np.ascontiguousarray(plan.transpose(0, 2, 1, 3))


def _find_usable(samples: Sequence[Sample], *, warn: bool) -> dict[int, tuple[NDArray[np.int64], ...]]:
    """Return the positions of each identity's (visible, infrared) images, for identities that have both."""
    found: dict[int, tuple[list[int], list[int]]] = {}
    for position, sample in enumerate(samples):
        if sample.identity >= 0:
            found.setdefault(sample.identity, ([], []))[sample.modality].append(position)
    usable = {identity: found[identity] for identity in sorted(found) if all(found[identity])}
    excluded = len(found) - len(usable)
    if excluded and warn:
        no_visible = sum(not by_modality[VISIBLE] for by_modality in found.values())
        no_infrared = sum(not by_modality[INFRARED] for by_modality in found.values())
        warnings.warn(
            f"{excluded} of {len(found)} training identities are left out of the batches, because {no_visible} have no "
            f"visible and {no_infrared} no infrared image.",
            stacklevel=3,
        )
    return {identity: tuple(np.array(images) for images in usable[identity]) for identity in usable}


def _share_draws(
    weight: NDArray[np.int64], per_step: int, steps: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Share ``per_step * steps`` draws among identities in proportion to ``weight``, at most ``steps`` for each.

    The shares are rarely whole. Systematic sampling rounds each of them up or down so that they add up exactly and
    each has its share as its expectation; integers keep that exact.
    """
    quota = np.zeros(len(weight), dtype=np.int64)
    capped = np.zeros(len(weight), dtype=bool)
    while True:
        left, total = per_step * steps - steps * int(capped.sum()), int(weight[~capped].sum())
        over = ~capped & (weight * left > steps * total)
        if not over.any():
            break
        capped |= over
    quota[capped] = steps
    if left:
        order = generator.permutation(np.flatnonzero(~capped))
        cumulative = np.concatenate([[0], np.cumsum(weight[order])]) * left
        quota[order] = np.diff((cumulative + generator.integers(total)) // total)
    return quota


def _schedule(quota: NDArray[np.int64], per_step: int, steps: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return (steps, per_step) identities, each as often as its quota and never twice in a step."""
    remaining = quota.copy()
    schedule = np.empty((steps, per_step), dtype=np.int64)
    for step in range(steps):
        # An identity that every remaining step needs comes first; there are at most `per_step` of them, because the
        # quotas add up. The other places go to the smallest exponential variates, which draws identities with a
        # probability in proportion to what remains of their quotas.
        with np.errstate(divide="ignore"):
            key = generator.standard_exponential(len(remaining)) / remaining
        key[remaining == steps - step] = -1
        chosen = np.argsort(key, kind="stable")[:per_step]
        remaining[chosen] -= 1
        schedule[step] = generator.permutation(chosen)
    return schedule
